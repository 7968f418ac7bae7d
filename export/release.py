"""A trained model -> a folder for the device team: every format, cards, labels, the runner.

python export/release.py MODEL.keras --out DIR --calibration DIR
"""

import argparse
import sys
from pathlib import Path

from keras_pspnet import cli
from keras_pspnet.cli import commands

RUNNER = Path(__file__).parent / "on_device" / "segment.py"

README = """# PSPNet, {classes} classes, {height}x{width}

Segments RGB pictures into {classes} classes: {names}.

Input `image`: uint8 RGB (1, {height}, {width}, 3), raw camera bytes, no normalisation.
Output `{output}` under the signature `serving_default`; each file's card says all about it.

| file | megabytes | pixels equal to the trained model's | XNNPACK takes |
|---|---:|---:|---|
{rows}
{left_out}
Run it, with numpy, Pillow and ai-edge-litert alone:

    pip install numpy "pillow>=10.1" ai-edge-litert
    python segment.py pspnet_float32.tflite IMAGE ... --out DIR
"""


def main(arguments=None):
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("model", metavar="MODEL.keras")
    parser.add_argument("--out", metavar="DIR", required=True)
    parser.add_argument("--calibration", metavar="DIR", required=True, help="a folder of pictures")
    cli.add_export_options(parser)
    return cli.run(parser.prog, release, parser.parse_args(arguments))


def release(options: argparse.Namespace) -> None:
    """Exports every format and adds what a device team needs beside the files."""
    import json

    from keras_pspnet.errors import UserError
    from keras_pspnet.export.formats import FORMATS, available_formats
    from keras_pspnet.files import read_bytes, write_bytes

    out = Path(options.out)
    for name, ours in ((RUNNER.name, RUNNER.read_bytes()), ("README.md", README.encode())):
        file = out / name
        if file.exists() and (file.is_dir() or read_bytes(file)[:10] != ours[:10]):
            raise UserError(f"{file}: is in the way; move it or choose another --out")
    options.formats = ",".join(available_formats())
    left_out = [name for name in FORMATS if name not in available_formats()]
    if left_out:
        left_out = f"Left out: {', '.join(left_out)}; `pip install 'keras-pspnet[mobile]'` first.\n"
        print(left_out.strip(), flush=True)
    files = commands.export(options)
    cards = [
        json.loads((out / f"{Path(file).stem}.card.json").read_text()) for file in files.values()
    ]
    _, height, width, _ = cards[0]["input"]["shape"]
    text = README.format(
        classes=len(cards[0]["labels"]),
        names=", ".join(cards[0]["labels"]),
        height=height,
        width=width,
        output=cards[0]["output"]["name"],
        rows="\n".join(row(card) for card in cards),
        left_out=left_out or "",
    )
    write_bytes(out / "README.md", text.encode())
    write_bytes(out / RUNNER.name, RUNNER.read_bytes())


def row(card) -> str:
    """A line of the table."""
    delegate = card.get("delegate")
    takes = "" if delegate is None else f"{delegate['partitions']} partitions"
    if delegate and delegate["outside"]:
        takes += f", all but {len(delegate['outside'])} operators"
    return f"| {card['file']} | {card['bytes'] / 1e6:.1f} | {card['agreement']:.4%} | {takes} |"


if __name__ == "__main__":
    sys.exit(main())
