"""The command line: parse arguments, call a command, turn errors into one line."""

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable

from keras_pspnet import __version__
from keras_pspnet.cli import commands, quiet
from keras_pspnet.errors import UserError, missing_package
from keras_pspnet.export.formats import COMMAND_FORMATS, FORMATS
from keras_pspnet.machine import fast_cpu
from keras_pspnet.train.recipe_fields import field_table


class Parser(argparse.ArgumentParser):
    """An argument parser that prints a wrong argument in one line and knows --traceback."""

    def __init__(self, **options):
        super().__init__(**options)
        self.add_argument(
            "--traceback",
            action="store_true",
            default=argparse.SUPPRESS,  # or a command's default would replace what came before it
            help="print the Python traceback of an error",
        )

    def error(self, message):
        if set(message.split()) & set(FORMATS):  # of --formats int8 float16
            message += "; --formats takes its names with commas, as int8,float16"
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments=None) -> int:
    """Run one command; return its exit code, as `run` does."""
    parser = Parser(prog="keras-pspnet", description="PSPNet: train, score, export, run.")
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)

    command = subparsers.add_parser("demo", help="train, score, export and run on generated scenes")
    command.add_argument("--out", default="runs/demo", metavar="DIR", help="a folder (%(default)s)")
    command.set_defaults(call=commands.demo)

    shown = {"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": fields_text()}
    command = subparsers.add_parser("train", help="train a recipe", **shown)
    listed = "such as scenes; `keras-pspnet recipes` lists all"
    command.add_argument("recipe", metavar="RECIPE", help=listed)
    command.add_argument("--data-dir", metavar="DIR", help="the dataset's folder")
    command.add_argument("--out", metavar="RUN", required=True, help="the run folder")
    setting = {"nargs": "+", "action": "extend", "default": [], "type": field_and_text}
    change = "change fields of the recipe, see below"
    command.add_argument("--set", **setting, metavar="FIELD=VALUE", help=change)
    command.add_argument("--resume", action="store_true", help="continue the training in RUN")
    trained = "a trained network to start from: .keras, run folder or preset:NAME"
    command.add_argument("--start", metavar="MODEL", help=trained)
    taught = "a trained network whose probabilities are learned too, as --start"
    command.add_argument("--teacher", metavar="MODEL", help=taught)
    add_device_options(command)
    broken = "go on past at most N broken pictures (%(default)s)"
    command.add_argument("--skip-broken", type=int, default=0, metavar="N", help=broken)
    command.set_defaults(call=commands.train)

    command = subparsers.add_parser("look", help="check a dataset, count it, show samples")
    command.add_argument("--dataset", required=True, metavar="NAME", help="scenes, folder, ...")
    command.add_argument("--data-dir", metavar="DIR", help="the dataset's folder")
    command.add_argument("--out", metavar="DIR", help="a folder for pictures of samples")
    command.add_argument("--write-labels", action="store_true", help="write labels.json into DIR")
    uncovered = {"choices": ("background", "void"), "help": "what pixels in no polygon are"}
    command.add_argument("--uncovered", **uncovered)
    command.set_defaults(call=commands.look)

    command = subparsers.add_parser("import", help="turn annotations into pictures and masks")
    command.add_argument("source", metavar="SOURCE", help="a folder that `look` recognises")
    command.add_argument("--out", metavar="FOLDER", required=True, help="for pictures and masks")
    command.add_argument("--uncovered", **uncovered)
    command.set_defaults(call=commands.import_folder)

    any_model = {"metavar": "MODEL"}
    any_model["help"] = ".keras, SavedModel folder, .tflite, .onnx, run folder or preset:NAME"
    command = subparsers.add_parser("evaluate", help="score a model on pictures with masks")
    command.add_argument("model", **any_model)
    command.add_argument("--dataset", required=True, metavar="NAME", help="scenes, folder, ...")
    command.add_argument("--data-dir", metavar="DIR", help="the dataset's folder")
    command.add_argument("--split", default="val", help="the split to score on (%(default)s)")
    add_protocol_options(command)
    called = {"metavar": "NAME|FILE", "help": "what the model's classes are called"}
    command.add_argument("--labels", **called)
    contours = "also the IoU along contours, 2 %% of the diagonal wide"
    command.add_argument("--boundary", action="store_true", help=contours)
    command.add_argument("--json", metavar="FILE", help="write the scores")
    command.add_argument("--csv", metavar="FILE", help="write the scores of each picture")
    command.add_argument("--report", metavar="DIR", help="write an HTML page")
    command.set_defaults(call=commands.evaluate)

    command = subparsers.add_parser("predict", help="segment pictures")
    command.add_argument("model", **any_model)
    command.add_argument(
        "images", nargs="+", metavar="IMAGE_FOLDER_OR_VIDEO", help="what to segment"
    )
    command.add_argument("--out", metavar="DIR", required=True, help="for the segmented pictures")
    add_protocol_options(command)
    command.add_argument("--labels", **called)
    add_picture_options(command)
    command.set_defaults(call=commands.predict)

    command = subparsers.add_parser("export", help="write files for devices")
    command.add_argument("model", metavar="MODEL", help="a .keras file, run folder or preset:NAME")
    command.add_argument("--out", metavar="DIR", required=True, help="for the files")
    formats = f"({','.join(COMMAND_FORMATS)}), also int16,onnx"
    command.add_argument("--formats", metavar="LIST", help=formats)
    calibration = "pictures as the device will see them; `scenes`: generated ones"
    command.add_argument("--calibration", metavar="DIR", help=calibration)
    add_export_options(command)
    command.set_defaults(call=commands.export)

    command = subparsers.add_parser("convert", help="read a checkpoint of another project")
    command.add_argument("source", metavar="SOURCE", help="a checkpoint: .pth, .h5, .npy, ...")
    command.add_argument("--out", metavar="MODEL.keras", required=True, help="the new file")
    command.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="(any size)")
    command.set_defaults(call=commands.convert)

    command = subparsers.add_parser("presets", help="list the trained networks that come along")
    command.set_defaults(call=commands.presets)

    command = subparsers.add_parser("recipes", help="list the recipes that `train` takes")
    command.set_defaults(call=commands.recipes)

    command = subparsers.add_parser("info", help="print versions and devices for a bug report")
    command.set_defaults(call=commands.info)

    arguments = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_args(arguments)
    options.typed = shlex.join(["keras-pspnet", *arguments])
    return run(parser.prog, options.call, options)


def add_protocol_options(parser) -> None:
    """Add the options that say how a picture is fed to the network."""
    parser.add_argument("--crop", nargs=2, type=int, metavar=("H", "W"), help="sliding window")
    parser.add_argument("--base", type=int, metavar="N", help="long side at scale 1; needs --crop")
    parser.add_argument("--scales", metavar="LIST", help="as 0.5,0.75,1,1.25 (1); needs --crop")
    parser.add_argument("--flip", action="store_true", help="average with the mirrored picture")


def add_device_options(parser) -> None:
    """Add the options that spread a training over devices and hosts."""
    devices = "GPUs of this host; without one, parts of its CPU, for trying"
    parser.add_argument("--devices", type=number_or_all, metavar="N|all", help=devices)
    address = "where process 0 listens, for a training over several processes"
    parser.add_argument("--coordinator", metavar="HOST:PORT", help=address)
    parser.add_argument("--processes", type=int, metavar="P", help="how many processes there are")
    parser.add_argument("--process", type=int, metavar="I", help="which of them this is, from 0")


def add_picture_options(parser) -> None:
    """Add the options that say what `predict` writes."""
    ids = "write the values that the masks of the data set hold, not 0..n-1"
    parser.add_argument("--ids", choices=("mask",), help=ids)
    confidence = "also the largest probability of each pixel, 255 is 1"
    parser.add_argument("--confidence", action="store_true", help=confidence)
    overlay = parser.add_mutually_exclusive_group()
    overlay.add_argument("--no-overlay", action="store_true", help="write no overlays")
    overlay.add_argument("--jpeg", action="store_true", help="overlays as JPEG, quality 90")


def add_export_options(parser) -> None:
    """Add the options that `export` and export/release.py share."""
    parser.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="size of the input")
    parser.add_argument("--output", default="classes", help="classes, logits or probabilities")
    parser.add_argument("--labels", metavar="NAME|FILE", help="instead of the model's own")
    parser.add_argument("--min-agreement", type=float, metavar="F", help="share of equal pixels")


def fields_text() -> str:
    """Return the help on the fields of --set, in lines as wide as the terminal."""
    width = min(shutil.get_terminal_size().columns, 120) - 2
    lines = ["fields of --set, with their defaults; a recipe has values of its own:"]
    for name, default, meaning, limits in field_table():
        setting = f"{name}={default}" if default else name
        text = f"{meaning} ({limits})" if limits else meaning
        start = f"  {setting:<26}  "
        lines.append(textwrap.fill(text, width, initial_indent=start, subsequent_indent=" " * 30))
    return "\n".join(lines)


def field_and_text(setting: str) -> tuple[str, str]:
    """Split FIELD=VALUE; argparse prints the error in one line."""
    field, equals, text = setting.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(
            f"expected FIELD=VALUE, not {setting!r}; RECIPE comes first"
        )
    return field, text


def number_or_all(text: str) -> int | str:
    """Return "all" or a whole number; argparse prints the error in one line."""
    if text != "all" and not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a number of devices or all, not {text!r}")
    return text if text == "all" else int(text)


def run(program: str, call: Callable, options) -> int:
    """Call a command and return its exit code.

    Exit codes: 0 when it is done; 1 if nobody reads its output any more; 2 for an error that the
    user can put right, printed as one line; 130 after Ctrl-C or SIGTERM. Other errors are raised.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "tensorflow" not in sys.modules:  # it is where a script calls `main`
        fast_cpu()
    quiet.write_any_character()
    quiet.quiet_pillow()
    try:
        with ended_as_interrupt(), quiet.own_temporary_folder():
            call(options)
        return 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        line = one_line(error)
        if line is None:
            raise
        if getattr(options, "traceback", False):
            traceback.print_exc()
        print(f"{program}: {line}", file=sys.stderr)
        return 2


@contextlib.contextmanager
def ended_as_interrupt():
    """Handle SIGTERM and SIGHUP as Ctrl-C within the block, so that partial files are removed.

    A scheduler sends SIGTERM before it kills, a terminal that is closed SIGHUP. Python sets
    handlers in the main thread only.
    """
    signals = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    if threading.current_thread() is not threading.main_thread():
        signals = []
    before = {number: signal.getsignal(number) for number in signals}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # set by nohup
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def one_line(error: Exception) -> str | None:
    """Return the message of an error that the user can put right, or None for a bug of ours."""
    if isinstance(error, UserError):
        return " ".join(str(error).split())
    if isinstance(error, ImportError) and (missing := missing_package(error)):
        return str(missing)
    if isinstance(error, OSError) and (error.filename or error.strerror):
        name = str(error.filename or "a file")[:80]
        return f"{name}: cannot be used: {error.strerror or error}"
    if isinstance(error, RecursionError) and "JSON" in str(error):
        return "a JSON file is nested too deeply"
    # TensorFlow's error by name, since importing TensorFlow takes seconds.
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return "not enough memory; take smaller pictures or batches"
    return None
