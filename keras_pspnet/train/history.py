"""Write the history of a training: a table with one row per epoch, and its curves."""

import contextlib
import csv
import io
from collections.abc import Iterator
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from keras_pspnet.errors import UserError
from keras_pspnet.files import write_bytes

SCORE = "val_main_mIoU"
"""Column that decides which epoch is the best."""


@contextlib.contextmanager
def or_warning() -> Iterator[None]:
    """Print a warning if the block cannot write its file: the training goes on without it."""
    try:
        yield
    except (UserError, OSError) as error:
        print(f"warning: {error}; the training goes on", flush=True)


def write_history(path: Path, history: list[dict]) -> None:
    """Write one row per epoch as CSV; print a warning if it cannot be written."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]) if history else ["epoch"])
    writer.writeheader()
    writer.writerows(history)
    with or_warning():
        write_bytes(path, text.getvalue().encode())


def curves(history: list[dict]) -> bytes:
    """Plot losses, mIoU and learning rate over epochs; return the bytes of a PNG."""
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    content = (
        ("loss", {"training": "loss", "validation": "val_loss"}),
        ("main-head mIoU", {"training": "main_mIoU", "validation": SCORE}),
        ("learning rate", {"at the end of the epoch": "learning_rate"}),
    )
    for panel, (title, lines) in zip(panels, content):
        for label, key in lines.items():
            panel.plot(epochs, [row[key] for row in history], marker=".", label=label)
        panel.set(title=title, xlabel="epoch")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        panel.grid(alpha=0.3)
        panel.legend(frameon=False)
    panels[1].set_ylim(0, 1)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100)
    return stream.getvalue()
