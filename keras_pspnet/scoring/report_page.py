"""Render the page of `evaluate --report`: one HTML file without scripts or external requests."""

import base64
import dataclasses
from pathlib import Path

import jinja2
import numpy as np

from keras_pspnet.labels import LabelSet

VOID = (40, 40, 40)
"""The colour of void pixels on the page."""

TABLE_CLASSES = 30
"""Above this number of classes the confusion matrix is left out, for it would not be readable."""


@dataclasses.dataclass(frozen=True)
class PictureEntry:
    """A picture on the page.

    Args:
        name: its path, as shown in the tooltip; the heading shows the file name.
        score: mIoU of this picture alone.
        size: (H, W) of its thumbnails.
        figures: (caption, data URI) of each thumbnail.
        classes: (class id, IoU in this picture), largest class first.
        void: share of its pixels that are void, in 0..1.
    """

    name: str
    score: float
    size: tuple[int, int]
    figures: tuple[tuple[str, str], ...]
    classes: tuple[tuple[int, float], ...]
    void: float


def render(counts, labels: LabelSet, **about) -> bytes:
    """Return the page as UTF-8.

    Args:
        counts: (C, C) pixel counts; rows are the truth, columns the prediction.
        labels: the classes.
        about: title, command (the command line that made the page), scores (the dictionary that
            `metrics.evaluate` returned), void (share of all pixels, in 0..1), worst and best
            (PictureEntry of each, worst and best first).
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"percent": percent, "cell": _cell, "basename": lambda n: Path(n).name}
    template = Path(__file__).with_name("report_page.html").read_text("utf-8")
    shown = np.flatnonzero(counts.sum(0) + counts.sum(1))
    page = environment.from_string(template).render(
        labels=labels,
        pixels=int(counts.sum()),
        classes=_classes(counts, about["scores"]["per_class"]),
        matrix=_matrix(counts, shown) if len(shown) <= TABLE_CLASSES else None,
        confusions=_largest_confusions(counts, 10 if len(shown) <= TABLE_CLASSES else 30),
        void_color=VOID,
        **about,
    )
    return page.encode("utf-8", "replace")  # file names may hold bytes that are not text


def _classes(counts, per_class) -> list[dict]:
    """Return the scores of the classes: best IoU first, absent classes last."""
    shares = counts.sum(1) / max(counts.sum(), 1)
    rows = [
        {"n": n, "share": share, **{name.lower(): value for name, value in scores.items()}}
        for n, (share, scores) in enumerate(zip(shares, per_class.values()))
    ]
    return sorted(rows, key=lambda row: (row["iou"] is None, -(row["iou"] or 0)))


def _matrix(counts, shown) -> list:
    """Return (truth, [(prediction, share of the truth, pixels)]) of the classes that occur."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return [(t, [(found, shares[t, found], counts[t, found]) for found in shown]) for t in shown]


def _largest_confusions(counts, most) -> list:
    """Return (truth, prediction, share of the truth, pixels) with the most wrong pixels."""
    wrong = counts - np.diag(np.diag(counts))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(index), len(counts)) for index in order]
    return [(t, p, wrong[t, p] / counts[t].sum(), wrong[t, p]) for t, p in pairs if wrong[t, p]]


def percent(share: float) -> str:
    """Format a share as a percentage; small non-zero values become "under 0.1 %", never "0.0 %"."""
    return "under 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def _cell(share) -> str:
    """Format a share for a cell of the matrix, e.g. "42"; inexact 0 and 100 become <1 and >99."""
    if 0 < share < 0.005:
        return "<1"
    if 0.995 <= share < 1:
        return ">99"
    return f"{100 * share:.0f}" if share else ""


def data_uri(kind: str, picture: bytes) -> str:
    """Return an encoded picture as a data URI; `kind` is "png" or "jpeg"."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
