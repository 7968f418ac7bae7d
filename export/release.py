"""Export a trained model to a folder for the device team: files, cards, the runner.

python export/release.py MODEL --out DIR --calibration DIR

It writes every format; int16 and onnx only where the extra `mobile` is installed.
"""

import argparse
import shlex
import sys
from pathlib import Path

from keras_pspnet import cli
from keras_pspnet.cli import commands

RUNNER = Path(__file__).parent / "on_device" / "segment.py"

MARKER = "<!-- Written by keras_pspnet's export/release.py, which may replace this file. -->"
"""First line of the README, by which a later release knows that it may replace the file."""

README = """{marker}

# PSPNet, {classes} classes, {height}x{width}

Segments RGB pictures into {classes} classes: {names}.

Input `image`: uint8 RGB (1, {height}, {width}, 3), raw camera bytes, not normalized.
Output `{output}`, signature `serving_default`. The card beside each file has its dtypes, shapes,
labels, colours, operators, checksum and agreement.

| file | size (MB) | pixels equal to the Keras model's | XNNPACK delegate |
|---|---:|---:|---|
{rows}
{left_out}{warnings}
To run a file, only numpy, Pillow and ai-edge-litert are needed:

    pip install numpy "pillow>=10.1" ai-edge-litert
    python segment.py pspnet_float32.tflite IMAGE ... --out DIR
"""


def main(arguments=None):
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL", help="a .keras file, run folder or preset:NAME")
    parser.add_argument("--out", metavar="DIR", required=True, help="the folder")
    pictures = "a folder of pictures as the device will see them; `scenes`: generated ones"
    parser.add_argument("--calibration", metavar="DIR", required=True, help=pictures)
    cli.add_export_options(parser)
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    options.typed = shlex.join([Path(__file__).name, *arguments])
    return cli.run(parser.prog, release, options)


def release(options: argparse.Namespace) -> None:
    """Export every available format, and write a README and segment.py beside the files.

    Raises:
        UserError: the export is refused, or another README.md or segment.py is in the way.
    """
    import json

    from keras_pspnet.errors import UserError
    from keras_pspnet.export.formats import FORMATS, available_formats
    from keras_pspnet.files import read_bytes, write_bytes

    out = Path(options.out)
    first_lines = {RUNNER.name: RUNNER.read_bytes().splitlines()[0], "README.md": MARKER.encode()}
    for name, first_line in first_lines.items():
        file = out / name
        if file.exists() and (file.is_dir() or read_bytes(file).splitlines()[:1] != [first_line]):
            raise UserError(f"{file}: is in the way; move it or choose another --out")
    options.formats = ",".join(available_formats())
    left_out = [name for name in FORMATS if name not in available_formats()]
    if left_out:
        left_out = f"Left out: {', '.join(left_out)}; run `pip install 'keras-pspnet[mobile]'`.\n"
        print(left_out.strip(), flush=True)
    files = commands.export(options)
    cards = [
        json.loads((out / f"{Path(file).stem}.card.json").read_text()) for file in files.values()
    ]
    _, height, width, _ = cards[0]["input"]["shape"]
    text = README.format(
        marker=MARKER,
        classes=len(cards[0]["labels"]),
        names=", ".join(cards[0]["labels"]),
        height=height,
        width=width,
        output=cards[0]["output"]["name"],
        rows="\n".join(row(card) for card in cards),
        left_out=left_out or "",
        warnings="".join(
            f"\nWarning: {card['file']}: {text}.\n" for card in cards for text in card["warnings"]
        ),
    )
    write_bytes(out / "README.md", text.encode())
    write_bytes(out / RUNNER.name, RUNNER.read_bytes())


def row(card) -> str:
    """Return a file's line of the table."""
    delegate = ""
    if "delegate" in card:
        partitions, outside = card["delegate"]["partitions"], card["delegate"]["outside"]
        delegate = f"{partitions} partitions"
        if outside:
            delegate += f", {len(outside)} operators outside"
    return f"| {card['file']} | {card['bytes'] / 1e6:.1f} | {card['agreement']:.4%} | {delegate} |"


if __name__ == "__main__":
    sys.exit(main())
