"""Segment pictures with a .tflite file of keras_pspnet, without TensorFlow.

    python segment.py FILE.tflite IMAGE ... --out DIR

Needs numpy, Pillow 10.1 and ai-edge-litert (or tflite-runtime with numpy below 2). For each
picture it writes NAME_classes.png, whose pixels are class ids, and NAME_overlay.png to look at.
The file's class map is resized to the picture's size by nearest neighbour.
"""

import argparse
import collections
import hashlib
import itertools
import json
import os
import signal
import sys
import time
import warnings
import zipfile

try:
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont, ImageOps, __version__

    if tuple(map(int, __version__.split(".")[:2])) < (10, 1):  # its font has one size only
        raise ImportError(f"Pillow is {__version__}, expected 10.1 or newer")
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tflite_runtime.interpreter import Interpreter
except ImportError as error:
    print(
        f"segment.py: {error}; run: pip install numpy 'pillow>=10.1' ai-edge-litert",
        file=sys.stderr,
    )
    sys.exit(2)

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")  # that are read, by Pillow's names


class UserError(Exception):
    """An error that the user can fix, told in one line: what, which file, what was expected."""


class Parser(argparse.ArgumentParser):
    """Report wrong arguments in one line, as all other errors."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def load(path, threads):
    """Load a .tflite file.

    Returns:
        A function uint8 (H, W, 3) -> class ids (H, W) or scores (H, W, C), the input size (H, W),
        and the labels, see `read_labels`.
    """
    try:
        with open(path, "rb") as file:
            magic = file.read(8)[4:]
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    if magic != b"TFL3":
        raise UserError(f"{path}: not a .tflite file")
    if hasattr(os, "fork") and not has_card(path):  # not on Windows
        check_first_run(path, threads)
    return opened(path, threads)


def has_card(path):
    """Return whether a file has the card of its export next to it: then it has been run."""
    try:
        with open(os.path.splitext(path)[0] + ".card.json", "rb") as card, open(path, "rb") as file:
            return json.load(card)["sha256"] == hashlib.sha256(file.read()).hexdigest()
    except Exception:  # no card, or a damaged one
        return False


def check_first_run(path, threads):
    """Run a file once in a child process, for 60 seconds of processor time and 4 GB."""
    said, say = os.pipe()
    if not (child := os.fork()):
        try:
            import resource

            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            resource.setrlimit(resource.RLIMIT_DATA, (2**32, 2**32))
            resource.setrlimit(resource.RLIMIT_CPU, (60, 65))
            run, size, _ = opened(path, threads)
            run(np.zeros((*size, 3), np.uint8))
        except Exception as error:
            text = f"{error}" if isinstance(error, UserError) else f"{path}: damaged: {error}"
            os.write(say, text.encode(errors="replace")[:2000])
        finally:
            os._exit(0)
    os.close(say)
    with open(said, "rb") as pipe:
        message = pipe.read().decode(errors="replace")
    if status := os.waitpid(child, 0)[1]:
        message = f"{path}: damaged: its first run got {signal.Signals(os.WTERMSIG(status)).name}"
    if message:
        raise UserError(message)


def opened(path, threads):
    """Open a .tflite file in this process; returns what `load` does."""
    try:
        interpreter = Interpreter(path, num_threads=threads)
        runner = interpreter.get_signature_runner("serving_default")
        ((name, image),) = runner.get_input_details().items()
        (output,) = runner.get_output_details()
        _, height, width, channels = (int(side) for side in image["shape"])
        labels = read_labels(path)
    except Exception as error:  # a damaged file can fail anywhere in the runtime
        reason = str(error) or type(error).__name__
        raise UserError(f"{path}: damaged, or not a file of keras_pspnet: {reason}") from error
    if image["dtype"] != np.uint8 or channels != 3 or 0 in (height, width):
        raise UserError(f"{path}: not a file of keras_pspnet: it does not take uint8 pictures")

    def run(picture):
        try:
            result = runner(**{name: picture[None]})[output][0]
        except Exception as error:
            raise UserError(f"{path}: damaged: it cannot be run: {error}") from error
        classes = len(labels["names"])
        if result.ndim == 2 and result.dtype.kind in "iu" and result.size:
            fits = 0 <= result.min() <= result.max() < classes
        else:
            fits = result.size and result.shape[2:] == (classes,) and np.isfinite(result).all()
        if not fits:
            raise UserError(f"{path}: damaged: its results are not those of {classes} classes")
        return result

    return run, (height, width), labels


def read_labels(path):
    """Read {"names", "colors"} from the labels.json attached to a .tflite file."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            labels = json.loads(archive.read("labels.json"))
        names, colors = labels["names"], np.array(labels["colors"])
        fits = colors.shape == (len(names), 3) and colors.dtype.kind in "iu"
        fits = fits and all(name.encode() and name.splitlines() == [name] for name in names)
        if fits and 0 <= colors.min() <= colors.max() <= 255:
            return labels
    raise ValueError("no labels inside, with a name and a colour for each class")


def read_image(path):
    """Read a picture as uint8 RGB (H, W, 3), with its EXIF orientation applied."""
    Image.MAX_IMAGE_PIXELS = None  # `check` looks at the memory instead
    try:
        with Image.open(path, formats=FORMATS) as image:
            check(image, path)
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # 16-bit grey; Pillow would clip it at 255
                grey = np.asarray(image)
                if 0 < grey.max() <= 255:
                    raise UserError(f"{path}: values up to {grey.max()} as 16 bits; make it 8 bits")
                image = Image.fromarray(np.rint(grey / np.float32(257)).astype(np.uint8))
            return np.asarray(image.convert("RGB"))
    except (UserError, MemoryError):
        raise
    except Exception as error:  # a damaged picture can raise anything inside Pillow
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"{path}: not a readable picture ({reason})") from error


def check(image, path):
    """Refuse 32-bit grey, and a picture whose decoding takes more than half of the free memory."""
    # Pillow below 11 opens 16-bit PNGs in mode I.
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise UserError(
            f"{path}: 32-bit grey; expected 8 or 16 bits a channel: scale the values to 0..255 and "
            "save them as PNG"
        )
    needed = image.width * image.height * 8  # 4 bytes in Pillow, 3 in the array
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            free = next(int(line.split()[1]) * 1024 for line in file if "MemAvailable" in line)
    except (OSError, ValueError, StopIteration):  # it is Linux's
        return
    if needed > max(free / 2, 2**28):
        raise UserError(
            f"{path}: {image.width}x{image.height} pixels take {needed / 1e9:.1f} GB to decode, "
            f"more than half of the free memory ({free / 1e9:.1f} GB); cut the picture into parts"
        )


def unique_names(paths):
    """Return one output name for each path, no two of them equal.

    A path gets its stem, else its full file name, else the first free one of stem_2, stem_3, ...
    Case does not count: on some file systems a.png is A.png.
    """
    names, taken = [], set()
    numbers = collections.defaultdict(lambda: itertools.count(2))
    for path in paths:
        file = os.path.basename(path)
        stem = os.path.splitext(file)[0]
        numbered = (f"{stem}_{number}" for number in numbers[stem.casefold()])
        choices = itertools.chain((stem, file), numbered)
        names.append(next(name for name in choices if name.casefold() not in taken))
        taken.add(names[-1].casefold())
    return names


def segment(run, size, picture):
    """Return the class ids (H, W) of a picture of any size.

    Args:
        run, size: see `load`.
        picture: uint8 RGB (H, W, 3).
    """
    height, width = picture.shape[:2]
    small = Image.fromarray(picture)
    if (height, width) != size:
        small = small.resize(size[::-1], Image.Resampling.BILINEAR)
    result = run(np.asarray(small))
    classes = result if result.ndim == 2 else result.argmax(-1)
    # Nearest neighbour: class ids cannot be interpolated.
    rows = ((np.arange(height) + 0.5) * size[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * size[1] / width).astype(int)
    return classes[rows[:, None], columns]


def overlay(picture, classes, labels):
    """Return a sheet: the picture mixed with its class colours, and below it a legend."""
    colors = np.array(labels["colors"], np.uint8)
    mixed = Image.blend(Image.fromarray(picture), Image.fromarray(colors[classes]), 0.55)
    factor = min(-(-360 // mixed.height), 2000 // mixed.width)
    if factor > 1:
        mixed = mixed.resize(
            (mixed.width * factor, mixed.height * factor), Image.Resampling.NEAREST
        )
    em = max(16, mixed.height // 45)  # font size in pixels; the legend scales with it
    text, gap, row = ImageFont.load_default(em), em // 2, em * 13 // 8
    places, line, left = [], 0, gap
    for index in np.unique(classes):
        name = labels["names"][index]
        needed = em * 5 // 2 + int(text.getlength(name))
        if left + needed > mixed.width and left > gap:
            line, left = line + 1, gap
        places.append((index, name, line, left))
        left += needed
    canvas = Image.new("RGB", (mixed.width, mixed.height + row * (line + 1) + gap), "white")
    canvas.paste(mixed, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for index, name, line, left in places:
        top = mixed.height + gap + row * line
        draw.rectangle((left, top, left + em, top + em), fill=tuple(labels["colors"][index]))
        draw.text((left + em * 11 // 8, top + gap), name, fill="black", font=text, anchor="lm")
    return canvas


def save(images):
    """Write the PNGs of one picture, {path: image}; old files are replaced when all are written."""
    folder = os.path.dirname(next(iter(images)))
    new_folders, above = [], folder
    while above and not os.path.exists(above):
        new_folders.append(above)
        above = os.path.dirname(above)
    try:
        os.makedirs(folder, exist_ok=True)
        for path, image in images.items():
            if os.path.isdir(path):
                raise UserError(f"{path}: is a folder; remove it or choose another --out")
            image.save(path + ".partial", "PNG", compress_level=1)  # six times as fast
        for path in images:
            os.replace(path + ".partial", path)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        for path in images:
            if os.path.exists(path + ".partial"):
                os.remove(path + ".partial")
        for empty in new_folders:
            if os.path.isdir(empty) and not os.listdir(empty):
                os.rmdir(empty)


def main(arguments=None):
    parser = Parser(description="Segment pictures with a .tflite file.")
    parser.add_argument("file", metavar="FILE.tflite")
    parser.add_argument("images", metavar="IMAGE", nargs="+")
    parser.add_argument("--out", metavar="DIR", required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")  # Pillow's, of damaged pictures
    try:
        for path in options.images:
            if not os.path.isfile(path):
                kind = "a folder" if os.path.isdir(path) else "no such file"
                raise UserError(f"{path}: {kind}; expected pictures")
            read_image(path)
        if options.threads < 1:
            raise UserError(f"--threads {options.threads}: expected at least 1")
        run, size, labels = load(options.file, options.threads)
        for path, name in zip(options.images, unique_names(options.images)):
            picture = read_image(path)
            start = time.perf_counter()
            classes = segment(run, size, picture)
            milliseconds = 1000 * (time.perf_counter() - start)
            stem = os.path.join(options.out, name)
            ids = Image.fromarray(classes.astype(np.uint8 if classes.max() < 256 else np.uint16))
            sheet = overlay(picture, classes, labels)
            save({f"{stem}_classes.png": ids, f"{stem}_overlay.png": sheet})
            shown = ", ".join(labels["names"][index] for index in np.unique(classes))
            print(f"{path}: {milliseconds:.1f} ms, {shown}")
    except UserError as error:
        print("segment.py:", *str(error).split(), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
