"""Write the tables of the docs and the five figures of README.md from benchmarks/results/.

    python benchmarks/readme_table.py [--check]

The numbers are those of benchmarks/results/. Each block between <!-- NAME: begin --> and
<!-- NAME: end --> is replaced. The site's pictures are copied into docs/pictures/. With --check
nothing is written; the exit code is 1 if something is out of date.
"""

import sys
from pathlib import Path

import accuracy_tables
import cost_tables
from accuracy_tables import VARIANTS
from result_files import RESULTS, read

ROOT = Path(__file__).parent.parent
PICTURES = ("demo_overview.png", "pyramid.png", "camvid_samples.jpg", "camvid_curves.png")
PICTURES += ("receptive_field.png", "one_pixel.png", "failures.png")


def figures():
    """Return Markdown lines: five figures for the README."""
    pyramid, race = read("pyramid")["variants"], read("peers")
    seconds = {name: row["seconds"] for name, row in race["runtimes"].items()}
    camvid_best = max(read("camvid")["runs"].values(), key=lambda run: run["mIoU"])
    streets = read("streets")["short"]
    short = streets["changes"]
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
            f"{camvid_best['minutes']:.0f} minutes / on drives left out, {short['epochs']} epochs",
            f"{camvid_best['mIoU']:.3f} / {streets['short_colors']['mIoU']:.3f}",
        ),
    ]
    for kind, numbers in (("float32", "float"), ("int8", "int8")):
        peer, taken = cost_tables.fastest_peer(race, kind)
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


BLOCKS = {
    "README.md": [figures],
    "docs/ablations.md": [accuracy_tables.ablations, accuracy_tables.ablations_camvid],
    "docs/cluster.md": [cost_tables.cluster],
    "docs/reliability.md": [cost_tables.mutations],
    "docs/results.md": [
        accuracy_tables.scenes,
        accuracy_tables.camvid,
        accuracy_tables.streets,
        accuracy_tables.mobile,
        cost_tables.peers,
        cost_tables.training,
        cost_tables.reading,
        cost_tables.pictures,
    ],
    "docs/several-devices.md": [cost_tables.scaling],
    "docs/what-it-sees.md": [accuracy_tables.receptive_field, accuracy_tables.failures],
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
