"""The command line: parse, call, print."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable

from keras_pspnet import __version__
from keras_pspnet.cli import commands
from keras_pspnet.errors import UserError


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong argument is one line, as every other error."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments=None) -> int:
    """Runs one command; 0 when it is done, 2 when something given to it is wrong."""
    parser = Parser(prog="keras-pspnet", description="PSPNet: train, score, export, run.")
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)

    command = subparsers.add_parser("demo", help="the whole way once, on generated scenes")
    command.add_argument("--out", default="runs/demo", metavar="DIR", help="(%(default)s)")
    command.set_defaults(call=commands.demo)

    command = subparsers.add_parser("train", help="train a recipe")
    command.add_argument("recipe", metavar="RECIPE")
    command.add_argument("--data-dir", metavar="DIR", help="the dataset's folder")
    command.add_argument("--out", metavar="RUN", required=True, help="the run folder")
    setting = {"nargs": "+", "action": "extend", "default": [], "metavar": "FIELD=VALUE"}
    command.add_argument("--set", dest="settings", **setting, help="change the recipe")
    command.add_argument("--resume", action="store_true", help="go on where RUN was left")
    command.set_defaults(call=commands.train)

    command = subparsers.add_parser("look", help="check a dataset, count it, show samples")
    command.add_argument("--dataset", required=True, metavar="NAME")
    command.add_argument("--data-dir", metavar="DIR")
    command.add_argument("--out", metavar="DIR", help="a folder for pictures of samples")
    command.set_defaults(call=commands.look)

    command = subparsers.add_parser("evaluate", help="score a model on pictures with masks")
    command.add_argument(
        "model", metavar="MODEL", help=".keras, SavedModel folder, .tflite or .onnx"
    )
    command.add_argument("--dataset", required=True, metavar="NAME")
    command.add_argument("--data-dir", metavar="DIR")
    command.add_argument("--split", default="val", help="(%(default)s)")
    command.add_argument("--crop", nargs=2, type=int, metavar=("H", "W"), help="sliding window")
    command.add_argument("--base", type=int, metavar="N", help="long side at scale 1")
    command.add_argument("--scales", metavar="LIST", help="0.5,0.75,1,1.25,1.5,1.75 (1)")
    command.add_argument("--flip", action="store_true", help="average with the mirrored picture")
    command.add_argument("--json", metavar="FILE", help="write the scores")
    command.add_argument("--report", metavar="DIR", help="write a page to look at")
    command.set_defaults(call=commands.evaluate)

    command = subparsers.add_parser("predict", help="segment pictures")
    command.add_argument(
        "model", metavar="MODEL", help=".keras, SavedModel folder, .tflite or .onnx"
    )
    command.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER")
    command.add_argument("--out", metavar="DIR", required=True)
    command.add_argument("--labels", metavar="NAME|FILE", help="instead of the model's own")
    command.set_defaults(call=commands.predict)

    command = subparsers.add_parser("export", help="write files for devices")
    command.add_argument("model", metavar="MODEL", help="a .keras file")
    command.add_argument("--out", metavar="DIR", required=True)
    formats = "saved_model,float32,float16,dynamic,int8"
    command.add_argument(
        "--formats", default=formats, metavar="LIST", help="(%(default)s), also int16,onnx"
    )
    command.add_argument(
        "--calibration", metavar="DIR", help="pictures as the device will see them"
    )
    add_export_options(command)
    command.set_defaults(call=commands.export)

    command = subparsers.add_parser("convert", help="read somebody else's PSPNet")
    command.add_argument("source", metavar="SOURCE", help="a checkpoint: .pth, .h5, .npy, ...")
    command.add_argument("--out", metavar="MODEL.keras", required=True)
    command.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="(any size)")
    command.set_defaults(call=commands.convert)

    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    options.typed = shlex.join(["keras-pspnet", *arguments])
    return run(parser.prog, options.call, options)


def add_export_options(parser) -> None:
    """What `export` and export/release.py share."""
    parser.add_argument("--size", nargs=2, type=int, metavar=("H", "W"))
    parser.add_argument("--output", default="classes", help="classes, logits or probabilities")
    parser.add_argument("--labels", metavar="NAME|FILE", help="instead of the model's own")
    parser.add_argument("--min-agreement", type=float, metavar="F", help="share of equal pixels")


def run(program: str, call: Callable, options) -> int:
    """Calls a command; what the user can mend becomes one line and exit code 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with contextlib.suppress(ValueError):  # not in the main thread
        # What a scheduler sends before it kills: files are cleared away as after Ctrl-C.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        call(options)
    except UserError as error:
        print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the output has stopped
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except (OSError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        name = getattr(error, "filename", None) or "a file"
        print(f"{program}: {str(name)[:80]}: cannot be used: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        tensorflows = type(error).__name__ == "ResourceExhaustedError"  # which may not be imported
        if not (tensorflows or isinstance(error, MemoryError)):
            raise
        print(f"{program}: not enough memory; take smaller pictures or batches", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
