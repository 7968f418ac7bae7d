"""Write the tables of the docs and the five figures of README.md from benchmarks/results/.

    python benchmarks/readme_table.py [--check]

The numbers are those of benchmarks/results/. Each block between <!-- NAME: begin --> and
<!-- NAME: end --> is replaced. The site's pictures are copied into docs/pictures/. With --check
nothing is written; the exit code is 1 if something is out of date.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
VARIANTS = ("with the pyramid", "without (bins=())")
PICTURES = ("demo_overview.png", "pyramid.png", "camvid_samples.jpg", "camvid_curves.png")
PICTURES += ("receptive_field.png", "one_pixel.png", "failures.png")


def read(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


def figures():
    """Return Markdown lines: five figures for the README."""
    pyramid, race = read("pyramid")["variants"], read("peers")
    seconds = {name: row["seconds"] for name, row in race["runtimes"].items()}
    camvid_best = max(read("camvid")["runs"].values(), key=lambda run: run["mIoU"])
    small = next(
        row
        for row in read("mobile")["networks"].values()
        if (row["epochs"], row["output_stride"], row["channels"]) == (10, 16, 128)
    )
    with_pyramid, without = (pyramid[key]["mIoU"] for key in VARIANTS)
    rows = [
        (
            "mIoU with / without the pyramid, generated scenes",
            f"{with_pyramid:.3f} / {without:.3f}",
        ),
        (
            f"mIoU on CamVid val, EfficientNet-Lite0, {camvid_best['recipe']['epochs']} epochs in "
            f"{camvid_best['minutes']:.0f} minutes",
            f"{camvid_best['mIoU']:.3f}",
        ),
    ]
    for kind, numbers in (("float32", "float"), ("int8", "int8")):
        peer, taken = fastest_peer(race, kind)
        rows.append(
            (
                f"PSPNet-50 at 473x473, {kind} `.tflite`, two threads",
                f"{seconds[f'keras_pspnet {kind}, LiteRT']:.2f} s; {peer}, the fastest other "
                f"{numbers} runtime, takes {taken:.2f} s",
            )
        )
    rows.append(
        (
            f"EfficientNet-Lite0 on CamVid val, {small['epochs']} epochs, int8 `.tflite`, 369x481",
            f"mIoU {small['mIoU']['int8']:.3f}, {small['int8']['milliseconds']:.0f} ms, "
            f"{small['int8']['bytes'] / 1e6:.1f} MB",
        )
    )
    lines = ["| measured on two cores of an AMD EPYC | |", "|---|---|"]
    return lines + [f"| {name} | {value} |" for name, value in rows]


def fastest_peer(race, kind) -> tuple[str, float]:
    """Return the name and the seconds of the fastest other runtime in float32 or int8."""
    peers = {
        name: row["seconds"]
        for name, row in race["runtimes"].items()
        if ("int8" in name) == (kind == "int8") and "keras_pspnet" not in name
    }
    name = min(peers, key=peers.get)
    return name.removesuffix(" int8").removesuffix(" f32"), peers[name]


def scenes():
    """Return Markdown lines: the generated scenes, with and without the pyramid."""
    baselines, pyramid, demo = read("scenes_baselines"), read("pyramid"), read("demo")
    rows = [
        ("a classifier that sees one pixel", f"{baselines['pixel']['mIoU']:.3f}", "1"),
        ("a classifier that sees 9x9 pixels", f"{baselines['patch9']['mIoU']:.3f}", "1"),
    ]
    with_pyramid, without = VARIANTS
    for variant, label in (
        (without, "PSPNet without its pyramid (`bins=()`)"),
        (with_pyramid, "PSPNet"),
    ):
        values = pyramid["variants"][variant]
        rows.append((label, f"{values['mIoU']:.3f} ± {values['mIoU_std']:.3f}", "3"))
    rows.append(("PSPNet, `make demo`, Keras", f"{demo['mIoU_keras']:.3f}", "1"))
    rows.append(("the same as `.tflite`, without TensorFlow", f"{demo['mIoU_tflite']:.3f}", "1"))
    lines = ["| on held-out generated scenes, 185x185 | mIoU | seeds |", "|---|---:|---:|"]
    lines += [f"| {name} | {score} | {seeds} |" for name, score, seeds in rows]
    gain = pyramid["variants"]
    classes = gain[with_pyramid]["classes"]
    lines += ["", "| IoU, mean of 3 seeds | " + " | ".join(classes) + " |"]
    lines.append("|---|" + "---:|" * len(classes))
    for variant, label in ((with_pyramid, "PSPNet"), (without, "no pyramid")):
        values = gain[variant]["classes"].values()
        lines.append(f"| {label} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    return lines


def camvid():
    """Return Markdown lines: the trainings on CamVid."""
    lines = ["| CamVid validation, 480x360 | weights | epochs | minutes | mIoU | pixel accuracy |"]
    lines.append("|---|---|---:|---:|---:|---:|")
    runs = read("camvid")["runs"].values()
    for run in runs:
        recipe = run["recipe"]
        start = {"imagenet": "ImageNet"}.get(recipe["backbone_weights"], "from scratch")
        strides = f"{recipe['output_stride']}"
        if recipe["coarse_epochs"]:
            fine = recipe["epochs"] - recipe["coarse_epochs"]
            strides = f"{2 * recipe['output_stride']}" + f", last {fine} epochs {strides}" * bool(
                fine
            )
        lines.append(
            f"| EfficientNet-Lite0, output stride {strides} | {start} | {recipe['epochs']} "
            f"| {run['minutes']:.0f} | {run['mIoU']:.3f} | {run['pixel_accuracy']:.3f} |"
        )
    classes = next(iter(runs))["classes"]
    lines += ["", "| IoU of the first | " + " | ".join(classes) + " |"]
    lines.append("|---|" + "---:|" * len(classes))
    lines.append("| | " + " | ".join(f"{value:.2f}" for value in classes.values()) + " |")
    return lines


def peers():
    """Return Markdown lines: the comparison with other runtimes."""
    race = read("peers")
    peer, fastest = fastest_peer(race, "float32")
    lines = [f"| PSPNet-50, 150 classes, 473x473, 2 threads | seconds | / {peer}'s in float |"]
    lines.append("|---|---:|---:|")
    for name, row in race["runtimes"].items():
        graph = "" if "keras_pspnet" in name else ", the authors' graph"
        name = f"**{name}**" if "keras_pspnet" in name else name
        lines.append(f"| {name}{graph} | {row['seconds']:.2f} | {row['seconds'] / fastest:.2f} |")
    ours = race["runtimes"]["keras_pspnet float32, LiteRT"]["seconds"]
    authors, fewer = (race["gflop"][key] for key in ("authors' graph", "pspnet_float32.tflite"))
    limit = race["matrix_product_gflop_per_s"]
    lines += [
        "",
        "A GFLOP is 10^9 multiplications and additions, of convolutions alone. The machine's rate "
        f"is taken from numpy's product of two large float32 matrices: {limit:.0f} GFLOP/s.",
        "",
        f"- The authors' graph needs {authors:.0f} GFLOP. {peer} computes them at "
        f"{authors / fastest / limit:.2f} of that rate.",
        f"- Our float32 file computes the same network with {fewer:.0f} GFLOP. LiteRT does so at "
        f"{fewer / ours / limit:.2f} of that rate.",
        f"- A runtime that computed all {authors:.0f} GFLOP in the time of our file would need "
        f"{authors / ours / limit:.2f} of that rate.",
    ]
    return lines


def training():
    """Return Markdown lines: training steps against PyTorch, and where their time goes."""
    steps, profile = read("training")["networks"], read("profile")["networks"]
    names = ("ours, s", "PyTorch, s", "times its speed", "ours, GB", "PyTorch, GB")
    lines = ["| a training step, two cores | " + " | ".join(names) + " |"]
    lines.append("|---|" + "---:|" * len(names))
    for name, row in steps.items():
        ours = row["programs"]["keras_pspnet"]
        others = [value for key, value in row["programs"].items() if key != "keras_pspnet"]
        peer = min(others, key=lambda program: program["seconds"])
        backbone = {"r": "PSPNet-50", "e": "EfficientNet-Lite0"}[name[0]]
        size = "x".join(map(str, row["size"]))
        cells = [f"{backbone}, output stride {row['stride']}, {size}, batch {row['batch']}"]
        cells += [f"{program['seconds']:.2f}" for program in (ours, peer)]
        cells.append(f"{row['times_the_speed_of_PyTorch']:.2f}")
        cells += [f"{program['peak_gigabytes']:.2f}" for program in (ours, peer)]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Of a step's time, convolutions take:", ""]
    for name, row in profile.items():
        times = row["milliseconds_of_operators"]
        share = sum(value for key, value in times.items() if "Conv2" in key)
        share /= 1000 * row["seconds_a_step"]
        lines.append(f"- {name}: at least {share:.0%} of {row['seconds_a_step']:.2f} s.")
    return lines


def reading():
    """Return Markdown lines: reading and augmenting pictures, beside OpenCV in a DataLoader."""
    lines = ["| read and augmented, a second and core | ours | OpenCV | times its speed |"]
    lines.append("|---|---:|---:|---:|")
    for name, row in read("reading")["pictures"].items():
        ours, theirs = row["pictures_a_second_and_core"].values()
        ratio = row["times_the_speed_of_the_peer"]
        lines.append(f"| {name} | {ours:.0f} | {theirs:.0f} | {ratio:.2f} |")
    return lines


def scaling():
    """Return Markdown lines: a training step divided over devices and processes of one machine."""
    result = read("scaling")
    lines = ["| engine, devices, processes | seconds a step | pictures a second |"]
    lines.append("|---|---:|---:|")
    for name, row in result["rows"].items():
        engine, devices, processes = name.split(",")[0], row["devices"], row["processes"]
        found = f"{row['seconds_a_step']:.2f} | {row['pictures_a_second']:.0f}"
        lines.append(f"| {engine}, {devices}, {processes} | {found} |")
    sizes, read_rate = result["bytes_a_step"], result["pictures_read_a_second"]
    exchanged = (
        f"{sizes['gradients'] / 1e6:.1f} MB of gradients and {sizes['batch_norms'] / 1e3:.0f}"
    )
    text = f"A step exchanges {exchanged} kB of batch norm statistics. {read_rate:.0f} pictures a "
    return [*lines, "", f"{text}second are read and augmented."]


def cluster():
    """Return Markdown lines: pictures a second on Ray, beside one process and the bare runner."""
    networks = read("cluster")["networks"]
    rows = list(next(iter(networks.values()))["pictures_a_second"])
    lines = ["| pictures a second | " + " | ".join(networks) + " |"]
    lines.append("|---|" + "---:|" * len(networks))
    for row in rows:
        found = (network["pictures_a_second"][row] for network in networks.values())
        lines.append(f"| {row} | " + " | ".join(f"{value:.0f}" for value in found) + " |")
    started = [f"{network['ray_start_seconds']:.0f}" for network in networks.values()]
    return [*lines, "", f"Ray itself starts in {' and '.join(started)} seconds, which is left out."]


def mobile():
    """Return Markdown lines: small networks for phones."""
    names = ("mIoU", "in int8", "ms float32", "ms int8", "MB int8", "MB held")
    lines = ["| Phone networks on CamVid val | " + " | ".join(names) + " |"]
    lines.append("|---|" + "---:|" * len(names))
    for row in read("mobile")["networks"].values():
        if row["epochs"] is None:
            label = "MobileNetV2, output stride 16, width 128"
        else:
            label = f"Lite0, output stride {row['output_stride']}, width {row['channels']}"
        scores = [row["mIoU"].get(kind) for kind in ("keras", "int8")]
        cells = [label, *("not trained" if score is None else f"{score:.3f}" for score in scores)]
        cells += [f"{row[kind]['milliseconds']:.0f}" for kind in ("float32", "int8")]
        cells += [f"{row['int8'][key] / 1e6:.1f}" for key in ("bytes", "peak_bytes")]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def pictures():
    """Return Markdown lines: what large pictures cost."""
    result = read("pictures")
    lines = ["| `segment`, 150 classes | own size | 12 megapixels | 48 megapixels |"]
    lines.append("|---|---:|---:|---:|")
    rows = {}
    for case in result["segment"]:
        if case["classes"] == 150:
            rows.setdefault(case["model"], []).append(case)
    for model, cases in rows.items():
        side = cases[0]["own_size"]
        name = f"{'windows' if model == 'any size' else model}, {side}x{side}"
        cells = [_cost(cases[0], "own_"), *(_cost(case) for case in cases)]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    drawn, whole = result["overlay_and_write"], result["resnet50_whole"]
    lines += [
        "",
        f"- Overlay, class ids and writing at 12 megapixels: {drawn['processor_seconds']:.1f} s, "
        f"{drawn['megabytes']:.0f} MB.",
        f"- The largest picture that a PSPNet-50 of any size takes whole, {whole['side']}x"
        f"{whole['side']} with 150 classes: {whole['bytes_of_a_pixel']} bytes a pixel.",
    ]
    return lines


def mutations():
    """Return Markdown lines: how many damaged files each reader read; none before the first run."""
    result = read("verify")["checks"].get("mutations", {})
    if not result.get("passed"):
        return []
    lines = [f"`{result['command']}` on `make verify`'s {result['inputs']} inputs:", ""]
    lines += ["| reader | inputs | refused | read | bad |", "|---|---:|---:|---:|---:|"]
    for name, row in result["readers"].items():
        counts = (row["inputs"], row["refused"], row["read"], sum(row["bad"].values()))
        lines.append(f"| {name} | " + " | ".join(map(str, counts)) + " |")
    return lines


def _cost(case, which="") -> str:
    seconds, held = (case[f"{which}{key}"] for key in ("processor_seconds", "peak_gigabytes"))
    return f"{seconds:.1f} s, {held:.2f} GiB"


def receptive_field():
    """Return Markdown lines: the sides of receptive fields."""
    columns = ("theoretical_side", "side_with_half", "side_with_nine_tenths")
    lines = ["| pixels | theoretical | half of the change | nine tenths |", "|---|---:|---:|---:|"]
    for layer, variants in read("what_it_sees")["receptive_field"]["layers"].items():
        for variant, sizes in variants.items():
            cells = (str(sizes[column]) for column in columns)
            lines.append(f"| {layer}, {variant} | " + " | ".join(cells) + " |")
    return lines


def failures():
    """Return Markdown lines: the failures of each kind, and what was taken for what."""
    result = read("what_it_sees")
    kinds, seeds = result["failures"]["kinds"], len(result["networks"]["seeds"])
    variants = [name for name in next(iter(kinds.values())) if name != "cases"]
    lines = ["| share of the cases that fail | cases | " + " | ".join(variants) + " |"]
    lines.append("|---|---:|" + "---:|" * len(variants))
    for kind, found in kinds.items():
        cells = []
        for variant in variants:
            share, spread = (100 * found[variant][key] for key in ("share", "share_std"))
            cells.append(f"{share:.1f} ± {spread:.1f} %" if seeds > 1 else f"{share:.1f} %")
        lines.append(f"| {kind} | {found['cases']} | " + " | ".join(cells) + " |")
    lines += ["", "The most frequent answers of one network, in cases:", ""]
    for kind, found in kinds.items():
        for variant in variants:
            answers = found[variant]["answers_of_one_network"].items()
            listed = ", ".join(f"{answer} {number:.0f}" for answer, number in answers)
            lines.append(f"- {kind}, {variant}: {listed or 'none'}.")
    return lines


def streets():
    """Return Markdown lines: the phone network on drives that it never saw."""
    forms = read("streets")["short"]
    names = {"before": "the recipe without both", "float": "float32", "int8": "int8"}
    rows = {names[form]: forms[form] for form in names if form in forms}
    classes = next(iter(rows.values()))["classes"]
    lines = ["| | " + " | ".join(rows) + " |", "|---|" + "---:|" * len(rows)]
    means = {key: key.replace("_", " ") for key in ("mIoU", "pixel_accuracy")}
    for key, label in means.items():
        lines.append(
            f"| {label} | " + " | ".join(f"{row[key]:.3f}" for row in rows.values()) + " |"
        )
    for clip in next(iter(rows.values()))["folds"]:
        found = (f"{row['folds'][clip]['mIoU']:.3f}" for row in rows.values())
        lines.append(f"| mIoU of {clip} alone | " + " | ".join(found) + " |")
    for name in classes:
        found = (f"{row['classes'][name]:.2f}" for row in rows.values())
        lines.append(f"| {name} | " + " | ".join(found) + " |")
    return lines


BLOCKS = {
    "README.md": [figures],
    "docs/reliability.md": [mutations],
    "docs/cluster.md": [cluster],
    "docs/several-devices.md": [scaling],
    "docs/results.md": [scenes, camvid, streets, peers, training, reading, mobile, pictures],
    "docs/what-it-sees.md": [receptive_field, failures],
}


def main():
    files = {}
    for name, blocks in BLOCKS.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        for block in blocks:
            begin, end = (f"<!-- {block.__name__}: {place} -->\n" for place in ("begin", "end"))
            before, rest = text.split(begin)
            _, after = rest.split(end)
            text = "\n".join([before + begin, *block(), "", end + after])
        files[ROOT / name] = text.encode()
    for name in PICTURES:
        files[ROOT / "docs" / "pictures" / name] = (RESULTS / name).read_bytes()
    old = [path for path, data in files.items() if not path.is_file() or path.read_bytes() != data]
    if "--check" in sys.argv and old:
        names = ", ".join(str(path.relative_to(ROOT)) for path in old)
        sys.exit(f"{names}: out of date; run python benchmarks/readme_table.py")
    for path in old:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[path])


if __name__ == "__main__":
    main()
