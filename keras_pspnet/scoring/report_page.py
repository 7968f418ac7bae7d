"""The page of report.py as HTML: everything inside it, nothing asked for, nothing that runs."""

from __future__ import annotations

import base64
import dataclasses
import string
from html import escape
from pathlib import Path

import numpy as np

from keras_pspnet import visualize
from keras_pspnet.labels import LabelSet

TABLE_CLASSES = 30
"""Up to so many classes the confusion matrix is a table of numbers, beyond a picture."""

SUMMARY = {
    "mIoU": ("{:.4f}", "mean IoU of the classes that occur in the truth or in a prediction"),
    "mIoU_all": ("{:.4f}", "mean IoU of all classes of the dataset; an absent one counts as 0"),
    "mean_accuracy": ("{:.4f}", "share of a class that was found, mean of the classes"),
    "pixel_accuracy": ("{:.4f}", "share of all pixels that are right"),
    "images": ("{}", "pictures with a mask"),
    "seconds": ("{:.1f}", "time of the predictions alone"),
}


@dataclasses.dataclass(frozen=True)
class PictureEntry:
    """A picture on the page.

    Args:
        name: what it is called.
        score: its own mIoU.
        size: (H, W) of its thumbnails.
        figures: (caption, data URI, alternative text) each.
        classes: (class id, IoU in this picture), largest class first.
        void: share of its pixels.
    """

    name: str
    score: float
    size: tuple[int, int]
    figures: tuple[tuple[str, str, str], ...]
    classes: tuple[tuple[int, float], ...]
    void: float


def render(
    title: str, command: str, scores: dict, labels: LabelSet, counts, *, void, worst, best
) -> bytes:
    """The whole page, in UTF-8.

    Args:
        command: what was typed to get the page.
        scores: what `metrics.evaluate` returned.
        counts: (C, C) pixels by truth and prediction.
        void: share of all pixels.
        worst: PictureEntry each, worst first.
        best: PictureEntry each, best first.
    """
    return PAGE.substitute(
        style=STYLE,
        title=escape(title),
        miou=f"{scores['mIoU']:.4f}",
        command=escape(command),
        summary=_summary(scores),
        pixels=f"{counts.sum():,}",
        void=percent(void),
        classes=_classes(labels, counts),
        confusion=_confusion(labels, counts) + _largest(labels, counts),
        pictures=_pictures(labels, worst, best),
    ).encode("utf-8", "replace")  # file names may hold bytes that are no text


def _summary(scores) -> str:
    rows = [
        f'<th scope="row">{key}</th><td class="n">{form.format(scores[key])}</td><td>{text}</td>'
        for key, (form, text) in SUMMARY.items()
    ]
    return _table("summary", "", rows)


def _classes(labels, counts) -> str:
    true, found, hit = counts.sum(1), counts.sum(0), np.diag(counts)
    iou = hit / np.maximum(true + found - hit, 1)
    rows = []
    for n in sorted(range(len(labels)), key=lambda n: (not true[n] + found[n], -iou[n])):
        head = f'<th scope="row">{_name(labels, n)}</th>'
        if not true[n] + found[n]:
            rows.append(f'{head}<td colspan="5" class="quiet">absent</td>')
            continue
        recall = f"{hit[n] / true[n]:.4f}" if true[n] else "not in the truth"
        precision = f"{hit[n] / found[n]:.4f}" if found[n] else "never predicted"
        rows.append(
            f'{head}<td class="n">{iou[n]:.4f}</td><td><div class="bar" aria-hidden="true">'
            f'<b style="width:{100 * iou[n]:.1f}%"></b></div></td><td class="n">{recall}</td>'
            f'<td class="n">{precision}</td><td class="n">{percent(true[n] / counts.sum())}</td>'
        )
    head = '<th scope="col">class</th><th scope="col" colspan="2">IoU</th>'
    head += _heads("accuracy", "precision", "of the truth")
    return _table("scores of each class", head, rows)


def _confusion(labels, counts) -> str:
    shown = np.flatnonzero(counts.sum(0) + counts.sum(1))
    shares = (counts / np.maximum(counts.sum(1, keepdims=True), 1))[np.ix_(shown, shown)]
    # A root for what is wrong, so that few per cent can be seen.
    depths = np.where(np.eye(len(shown), dtype=bool), shares, shares**0.5)
    if len(shown) > TABLE_CLASSES:
        return _heat_map(depths)
    rows = []
    for i, truth in enumerate(shown):
        cells = []
        for j, found in enumerate(shown):
            tip = f"{labels.names[truth]} taken for {labels.names[found]}: "
            cells.append(
                f'<td class="{"hit" if i == j else "miss"}" style="--a:{depths[i, j]:.2f}" '
                f'title="{escape(tip)}{counts[truth, found]:,} pixels">{_cell(shares[i, j])}</td>'
            )
        rows.append(f'<th scope="row">{_name(labels, truth)}</th>{"".join(cells)}')
    heads = "".join(f'<th scope="col">{_name(labels, found)}</th>' for found in shown)
    return _table("confusion matrix", f"<td>truth</td>{heads}", rows, "matrix")


def _heat_map(depths) -> str:
    count, side = len(depths), max(600 // len(depths), 2)
    cells = np.zeros((count, count, 4), np.uint8)  # transparent, so it fits light and dark pages
    cells[..., :3], cells[..., 3] = (245, 124, 0), np.rint(255 * depths)
    cells[np.arange(count), np.arange(count), :3] = (66, 133, 244)
    uri = data_uri("png", visualize.png(cells.repeat(side, 0).repeat(side, 1)))
    return (
        f'<figure class="heat"><img src="{uri}" alt="confusion matrix of {count} classes; the '
        f'largest confusions are listed below" width="{count * side}" height="{count * side}">'
        "<figcaption>A row is a class of the truth, a column a prediction, in the order of the "
        "labels.</figcaption></figure>"
    )


def _largest(labels, counts) -> str:
    """The pairs of classes with the most wrong pixels."""
    wrong = counts - np.diag(np.diag(counts))
    most = 10 if np.count_nonzero(counts.sum(0) + counts.sum(1)) <= TABLE_CLASSES else 30
    rows = []
    for index in np.argsort(-wrong, axis=None, kind="stable")[:most]:
        truth, found = divmod(int(index), len(labels))
        if pixels := wrong[truth, found]:
            share = percent(pixels / counts[truth].sum())
            names = f"<td>{_name(labels, truth)}</td><td>{_name(labels, found)}</td>"
            rows.append(f'{names}<td class="n">{share}</td><td class="n">{pixels:,}</td>')
    if not rows:
        return "<p>No pixel is wrong.</p>"
    head = _heads("truth", "taken for", "share of the class", "pixels")
    return f"<h3>The largest confusions</h3>{_table('largest confusions', head, rows)}"


def _pictures(labels, worst, best) -> str:
    parts = (("Worst pictures" if best else "The only picture", worst), ("Best pictures", best))
    return (
        "".join(
            f"<h3>{heading}</h3>{''.join(_article(labels, seen) for seen in pictures)}"
            for heading, pictures in parts
            if pictures
        )
        or "<p>No picture has a pixel that counts.</p>"
    )


def _article(labels, seen: PictureEntry) -> str:
    height, width = seen.size
    figures = "".join(
        f'<figure><img src="{uri}" alt="{escape(text)}" width="{width}" height="{height}">'
        f"<figcaption>{caption}</figcaption></figure>"
        for caption, uri, text in seen.figures
    )
    legend = [f"<li>{_name(labels, n)} <b>{iou:.2f}</b></li>" for n, iou in seen.classes]
    if seen.void:
        legend.append(f'<li><i class="void"></i>void: {percent(seen.void)} of the pixels</li>')
    return (
        f'<article><h4><bdi title="{escape(seen.name)}">{escape(Path(seen.name).name)}</bdi> '
        f'<span class="quiet">mIoU</span> {seen.score:.4f}</h4>'
        f'<div class="row{" small" if width < 240 else ""}">{figures}</div>'
        f"<ul>{''.join(legend)}</ul></article>"
    )


def _name(labels, n) -> str:
    """A swatch and a class's name, which may be of any script and direction."""
    swatch = '<i style="background:#{:02x}{:02x}{:02x}"></i>'.format(*labels.colors[n])
    return f'<span class="name">{swatch}<bdi>{escape(labels.names[n])}</bdi></span>'


def _heads(*texts) -> str:
    return "".join(f'<th scope="col">{text}</th>' for text in texts)


def _table(name, head, rows, kind="plain") -> str:
    """A table that scrolls within the page where it is too wide, also by keyboard."""
    head = head and f"<thead><tr>{head}</tr></thead>"
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{name}"><table class="{kind}">'
        f"{head}<tbody>{body}</tbody></table></div>"
    )


def percent(share: float) -> str:
    """A share in words that does not make nothing of little."""
    return "under 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"


def _cell(share) -> str:
    """A percentage in two characters; what rounds to nothing or to all, and is not, says so."""
    if 0 < share < 0.005:
        return "&lt;1"
    if 0.995 <= share < 1:
        return "&gt;99"
    return f"{100 * share:.0f}" if share else ""


def data_uri(kind: str, picture: bytes) -> str:
    """An encoded picture as part of the page."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #202124; --quiet: #5f6368; --line: #dadce0;
  --soft: #f3f5f8; --bar: #1a73e8; --hit: 110 168 254; --miss: 255 154 77 }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e8eaed; --quiet: #a3a8b0;
  --line: #3c4046; --soft: #22252b; --bar: #6ea8fe; --hit: 30 82 150; --miss: 160 68 0 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 78rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif }
h1, h4, li, code { overflow-wrap: anywhere }
h1 { margin: 0; line-height: 1.2 } h4 { margin: 1.4rem 0 .3rem }
h2 { margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--line) } p { max-width: 48rem }
.quiet, figcaption { color: var(--quiet); font-weight: normal } .wide { overflow-x: auto }
pre { padding: .7rem 1rem; border-radius: .4rem; background: var(--soft); white-space: pre-wrap }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem .25rem 1px; text-align: left; vertical-align: top }
thead th { white-space: nowrap } tbody tr { border-top: 1px solid var(--line) }
.n { text-align: right; white-space: nowrap }
.name { display: inline-flex; align-items: baseline } table .name { max-inline-size: 14rem }
table bdi { min-inline-size: 0; overflow-wrap: break-word }
i { display: inline-block; flex: none; width: .85em; height: .85em; margin-inline-end: .4em;
  border-radius: .15em; outline: 1px solid var(--quiet); vertical-align: -.08em }
i.void { background: repeating-linear-gradient(135deg, #282828 0 3px, #969696 3px 6px) }
.bar { width: min(24rem, 25vw); height: .8em; margin-top: .35em; background: var(--soft) }
.bar b { display: block; height: 100%; background: var(--bar) }
.matrix th, .matrix td { padding: .2rem .35rem; vertical-align: middle }
.matrix thead th { writing-mode: vertical-rl; transform: rotate(180deg); font-weight: normal }
.matrix thead td { vertical-align: bottom; color: var(--quiet) }
.matrix tbody td { min-width: 2.6rem; text-align: center; border: 1px solid var(--line) }
.matrix tbody th { position: sticky; left: 0; background: var(--paper) }
.hit { background: rgb(var(--hit) / var(--a)) } .miss { background: rgb(var(--miss) / var(--a)) }
figure { margin: 0 } figcaption, ul { font-size: .85rem } .heat { max-width: 600px }
img { display: block; width: 100%; height: auto; background: var(--soft) }
.small img, .heat img { image-rendering: pixelated }
.row { display: grid; grid-template-columns: repeat(4, 1fr); gap: .6rem }
ul { display: flex; flex-wrap: wrap; gap: 0 1.1rem; margin: .4rem 0; padding: 0; list-style: none }
@media (max-width: 44rem) { .row { grid-template-columns: 1fr 1fr }
  table { font-size: .85rem } table .name { max-inline-size: 9rem } }
"""

PAGE = string.Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>$title: mIoU $miou</title>
<style>$style</style>
</head>
<body>
<main>
<h1>$title</h1>
<pre><code>$command</code></pre>
<h2 id="summary">Summary</h2>
$summary
<p>$pixels pixels count; $void of all pixels are void, which never count.</p>
<h2 id="classes">Classes</h2>
<p>IoU: the pixels that truth and prediction share, over those that either has. Accuracy: how much
of the class was found. Precision: how much of what was found is right.</p>
$classes
<h2 id="confusion">Confusion matrix</h2>
<p>A row is a class of the truth: so many per cent of it were taken for the class of the column.
Blue, on the diagonal, is right, orange wrong; absent classes are left out.</p>
$confusion
<h2 id="pictures">Pictures</h2>
<p>By the mIoU of each alone. Under each stand its classes: colour, name, IoU in this picture.
Striped pixels are void: they do not count.</p>
$pictures
</main>
</body>
</html>
""")
