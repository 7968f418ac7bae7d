"""Writes the results table of the README from benchmarks/results/.

    python benchmarks/readme_table.py [--check]

With --check it only says whether the README is up to date (exit code 1 if not).
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- results: begin -->\n", "<!-- results: end -->\n"


def read(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


def table():
    """Markdown: what was measured, on what, with which command."""
    baselines, pyramid, demo = read("scenes_baselines"), read("pyramid"), read("demo")
    rows = [
        ("a classifier that sees one pixel", f"{baselines['pixel']['mIoU']:.3f}", "1"),
        ("a classifier that sees 9x9 pixels", f"{baselines['patch9']['mIoU']:.3f}", "1"),
    ]
    for variant, label in (
        ("without (bins=())", "PSPNet without its pyramid (`bins=()`)"),
        ("with the pyramid", "PSPNet"),
    ):
        values = pyramid["variants"][variant]
        rows.append((label, f"{values['mIoU']:.3f} ± {values['mIoU_std']:.3f}", "3"))
    rows.append(("PSPNet, `make demo`, Keras", f"{demo['mIoU_keras']:.3f}", "1"))
    rows.append(("the same as `.tflite`, without TensorFlow", f"{demo['mIoU_tflite']:.3f}", "1"))
    lines = ["| on held-out generated scenes, 185x185 | mIoU | seeds |", "|---|---:|---:|"]
    lines += [f"| {name} | {score} | {seeds} |" for name, score, seeds in rows]
    gain = pyramid["variants"]
    classes = gain["with the pyramid"]["classes"]
    lines += ["", "| IoU, mean of 3 seeds | " + " | ".join(classes) + " |"]
    lines.append("|---|" + "---:|" * len(classes))
    for variant, label in (("with the pyramid", "PSPNet"), ("without (bins=())", "no pyramid")):
        values = gain[variant]["classes"].values()
        lines.append(f"| {label} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    return "\n".join([*lines, "", *camvid(), "", *peers(), *mobile()]) + "\n"


def camvid():
    """Markdown lines: the trainings on CamVid."""
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
    """Markdown lines: the race against other runtimes."""
    race = read("peers")
    fastest = min(
        row["seconds"]
        for name, row in race["runtimes"].items()
        if "int8" not in name and "keras_pspnet" not in name
    )
    lines = ["| PSPNet-50, 150 classes, 473x473, 2 threads | seconds | of the fastest float peer |"]
    lines.append("|---|---:|---:|")
    for name, row in race["runtimes"].items():
        graph = "" if "keras_pspnet" in name else ", the authors' graph"
        name = f"**{name}**" if "keras_pspnet" in name else name
        lines.append(f"| {name}{graph} | {row['seconds']:.2f} | {row['seconds'] / fastest:.2f} |")
    ours = race["runtimes"]["keras_pspnet float32, LiteRT"]["seconds"]
    reference = race["gflop"]["authors' graph"]
    limit = race["matrix_product_gflop_per_s"]
    lines += [
        "",
        f"The machine's matrix product makes {limit:.0f} GFLOP/s. The fastest float peer runs the "
        f"authors' graph ({reference:.0f} GFLOP) at {reference / fastest / limit:.2f} of that; our "
        f"float32 file needs {race['gflop']['pspnet_float32.tflite']:.0f} GFLOP and runs them at "
        f"{race['gflop']['pspnet_float32.tflite'] / ours / limit:.2f} of it: all of the authors' "
        f"would take {reference / ours / limit:.2f}.",
    ]
    return lines


def mobile():
    """Markdown lines: the mobile family, once it was trained."""
    if not (RESULTS / "mobile.json").exists():
        return []
    lines = [
        "",
        "| Lite0 on CamVid val | mIoU | in int8 | ms float32 | ms int8 | MB int8 | MB held |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in read("mobile")["networks"].values():
        if row["epochs"] is None:
            label = "MobileNetV2, output stride 16, width 128"
        else:
            label = f"output stride {row['output_stride']}, width {row['channels']}"
        scores = [row["mIoU"].get(kind) for kind in ("keras", "int8")]
        cells = [label, *("not trained" if score is None else f"{score:.3f}" for score in scores)]
        cells += [f"{row[kind]['milliseconds']:.0f}" for kind in ("float32", "int8")]
        cells += [f"{row['int8'][key] / 1e6:.1f}" for key in ("bytes", "peak_bytes")]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main():
    path = ROOT / "README.md"
    text = path.read_text()
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    new = before + BEGIN + table() + END + after
    if "--check" in sys.argv:
        if new != text:
            sys.exit("README.md: its results table is old; run python benchmarks/readme_table.py")
        return
    path.write_text(new)


if __name__ == "__main__":
    main()
