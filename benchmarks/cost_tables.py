"""The tables of times, memory and damaged files, as Markdown lines, from benchmarks/results/."""

from result_files import read


def fastest_peer(race, kind) -> tuple[str, float]:
    """Return the name and the seconds of the fastest other runtime in float32 or int8."""
    peers = {
        name: row["seconds"]
        for name, row in race["runtimes"].items()
        if ("int8" in name) == (kind == "int8") and "keras_pspnet" not in name
    }
    name = min(peers, key=peers.get)
    return name.removesuffix(" int8").removesuffix(" f32"), peers[name]


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
        engine = {"tensorflow": "TensorFlow", "jax": "JAX"}[name.split(",")[0]]
        devices, processes = row["devices"], row["processes"]
        found = f"{row['seconds_a_step']:.2f} | {row['pictures_a_second']:.0f}"
        lines.append(f"| {engine}, {devices}, {processes} | {found} |")
    sizes, read_rate = result["bytes_a_step"], result["pictures_read_a_second"]
    gradients, norms = sizes["gradients"] / 1e6, sizes["batch_norms"] / 1e3
    lines += ["", f"A step exchanges {gradients:.1f} MB of gradients and {norms:.0f} kB of batch"]
    return [*lines, f"norm statistics. {read_rate:.0f} pictures a second are read and augmented."]


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


def _cost(case, which="") -> str:
    seconds, held = (case[f"{which}{key}"] for key in ("processor_seconds", "peak_gigabytes"))
    return f"{seconds:.1f} s, {held:.2f} GiB"


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
