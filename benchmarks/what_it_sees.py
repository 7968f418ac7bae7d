"""What a network sees, with its pyramid and without: receptive fields, and three kinds of failure.

    python benchmarks/what_it_sees.py [--out runs/ablations]

The networks are those that ablations.py has trained, of each seed that has both; without any, those
of the first seed are trained.

The empirical receptive field is that of Zhou et al., Object Detectors Emerge in Deep Scene CNNs
(ICLR 2015), section 3.2. A patch of noise is laid over one place of a picture after the other. What
this changes where a unit responds most is centred on the unit, and averaged over the pictures to
which the unit responds most. The first seed; then the same for one pixel of three scenes.

The failures are those of section 3.1 of Zhao et al. (CVPR 2017), found by code on 300 scenes that
had no part in choosing a checkpoint. Writes results/what_it_sees.json, receptive_field.png,
one_pixel.png and failures.png.
"""

import argparse
import time
from collections import Counter, defaultdict
from pathlib import Path

import ablations  # before others: it sets TensorFlow's environment
import numpy as np
import receptive_fields
from machine import machine
from PIL import Image, ImageDraw
from scipy import ndimage

import keras_pspnet
from keras_pspnet import scenes, visualize
from keras_pspnet.files import write_json

RESULTS = Path(__file__).parent / "results"
VARIANTS = {"without the pyramid": ablations.NONE, "with the pyramid": ablations.B1236}
SCENES = range(100, 400)
"""Held-out scenes; best.keras was chosen by 0..99."""
PICTURES = SCENES[:16]
"""Scenes for the receptive fields."""

NAMES = scenes.LABELS.names
HOLDS = (  # the classes that a street, a sea, a room can hold
    ("sky", "building", "road", "car", "pole"),
    ("sky", "water", "boat", "buoy"),
    ("wall", "floor", "bed", "pillow", "pole"),
)
THINGS = ("car", "boat", "bed", "pole", "buoy")
ALIKE = (("road", "water", "floor"), ("sky", "wall"))
"""Categories of the same colours and texture."""
SMALL = {"pole": ("pole", "buoy"), "buoy": ("pole", "buoy"), "pillow": ("pillow",)}
"""Small things, and the answers by which one counts as found, whether its name is right or not."""
MIN_PIXELS = 20
"""Pixels of a thing; what is left of one behind another may be less."""
MIXED = 0.1
"""Share of a surface that another category may take before it counts as mixed."""
MISMATCHED, CONFUSED, OVERLOOKED = KINDS = (
    "mismatched relationship",
    "confusable categories",
    "inconspicuous classes",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    out = parser.parse_args().out
    seeds = [seed for seed in ablations.SEEDS if finished(out, seed)] or ablations.SEEDS[:1]
    models = {
        variant: [trained(out, changes, seed) for seed in seeds]
        for variant, changes in VARIANTS.items()
    }
    start = time.process_time()
    found, sheet = failures(models)
    visualize.save_png(RESULTS / "failures.png", sheet)
    firsts = {variant: of_seeds[0] for variant, of_seeds in models.items()}
    images = np.stack([held_out(index)[0] for index in PICTURES])
    fields = {
        variant: receptive_fields.receptive_fields(model, images)
        for variant, model in firsts.items()
    }
    receptive_fields.draw_fields(fields).savefig(RESULTS / "receptive_field.png", dpi=90)
    pixels = [
        (*held_out(SCENES[index]), NAMES.index(name), name)
        for index, name in ((2, "car"), (0, "boat"), (1, "floor"))
    ]
    receptive_fields.draw_pixels(firsts, pixels).savefig(RESULTS / "one_pixel.png", dpi=90)
    result = {
        "command": "python benchmarks/what_it_sees.py",
        "machine": machine(),
        "processor_minutes": round((time.process_time() - start) / 60, 1),
        "networks": {"recipe": "scenes", **ablations.SHORT, "seeds": list(seeds)},
        "receptive_field": {
            "scenes": [PICTURES[0], PICTURES[-1]],
            "seed": seeds[0],
            "side_of_the_patch": receptive_fields.PATCH,
            "layers": {
                layer: {variant: of[layer]["sizes"] for variant, of in fields.items()}
                for layer in receptive_fields.LAYERS
            },
        },
        "failures": {"scenes": [SCENES[0], SCENES[-1]], "kinds": found},
    }
    write_json(RESULTS / "what_it_sees.json", result)
    print((RESULTS / "what_it_sees.json").read_text())


def finished(out: Path, seed: int) -> bool:
    """Whether ablations.py has trained the networks of a seed."""
    return all(ablations.scores(out, ablations.name(c, seed)) for c in VARIANTS.values())


def trained(out: Path, changes: dict, seed: int):
    """Load a network of ablations.py; train it if it is not there."""
    run = ablations.name(changes, seed)
    if ablations.scores(out, run) is None:
        ablations.trained(out / run, changes, seed)
    return keras_pspnet.load_model(out / run)


def held_out(index: int):
    """Draw the picture and the mask of a held-out scene."""
    return scenes.scene(index, split="val", size=(receptive_fields.SIZE,) * 2)


def failures(models) -> tuple[dict, np.ndarray]:
    """Count the failures of each kind; draw the first of each network of the first seed.

    Args:
        models: variant -> networks, one for each seed.

    Returns:
        What the JSON holds, and a sheet of pictures.
    """
    cases, failed, answers, shown = Counter(), Counter(), defaultdict(Counter), {}
    for index in SCENES:
        image, mask = held_out(index)
        seen = {
            variant: [keras_pspnet.segment(model, image) for model in of_seeds]
            for variant, of_seeds in models.items()
        }
        for kind, name, place in candidates(mask):
            cases[kind] += 1
            for variant, of_seeds in seen.items():
                for seed, classes in enumerate(of_seeds):
                    answer = failure(kind, name, classes[place], HOLDS[index % 3])
                    if answer is None:
                        continue
                    failed[kind, variant, seed] += 1
                    answers[kind, variant][f"{name} as {answer}"] += 1
                    if seed == 0 and (kind, variant) not in shown:
                        masks = [mask, *(of_seeds[0] for of_seeds in seen.values())]
                        note = f"{kind}, {variant}: {name} as {answer}"
                        shown[kind, variant] = note, example(image, masks, place)
    found = {}
    for kind in KINDS:
        found[kind] = {"cases": cases[kind]}
        for variant, of_seeds in models.items():
            shares = [failed[kind, variant, seed] / cases[kind] for seed in range(len(of_seeds))]
            found[kind][variant] = {
                "share": round(float(np.mean(shares)), 4),
                "share_std": round(float(np.std(shares)), 4),
                "answers_of_one_network": {
                    answer: round(count / len(shares), 1)
                    for answer, count in answers[kind, variant].most_common(6)
                },
            }
    order = [(kind, variant) for kind in KINDS for variant in models]
    notes, table = zip(*(shown[key] for key in order if key in shown))
    notes = [f"row {number}: {note}" for number, note in enumerate(notes, start=1)]
    titles = ["the first of its kind", "truth", *models]
    return found, visualize.rows(table, titles, notes=notes, labels=scenes.LABELS)


def candidates(mask):
    """Yield (kind, class, place) of all that can fail in a scene; a place is a boolean mask."""
    for label, name in enumerate(NAMES):
        of_class = mask == label
        if any(name in group for group in ALIKE) and of_class.any():
            yield CONFUSED, name, of_class
        things, number = ndimage.label(of_class)
        for thing in range(1, number + 1):
            place = things == thing
            if place.sum() < MIN_PIXELS:
                continue
            if name in THINGS:
                yield MISMATCHED, name, place
            if name in SMALL:
                yield OVERLOOKED, name, place


def failure(kind: str, name: str, ids, holds) -> str | None:
    """Return the wrong answer, or None if this is no failure.

    A thing is mismatched if most of it is taken for a thing that such a scene does not hold; a
    surface confused if MIXED of it is taken for surfaces like it; a small thing overlooked if less
    than half of it is found.

    Args:
        kind: one of KINDS.
        name: the true class.
        ids: (n,) the classes predicted for the pixels of the thing or surface.
        holds: the classes that such a scene can hold.
    """
    counts = dict(zip(NAMES, np.bincount(ids, minlength=len(NAMES))))
    answer = max(counts, key=counts.get)
    if kind == MISMATCHED:
        return answer if answer in THINGS and answer not in holds else None
    if kind == CONFUSED:
        (group,) = (group for group in ALIKE if name in group)
        others = {other: counts[other] for other in group if other != name}
        return max(others, key=others.get) if sum(others.values()) > MIXED * len(ids) else None
    found = sum(counts.pop(right) for right in SMALL[name])
    return max(counts, key=counts.get) if 2 * found < len(ids) else None


def example(image, masks, place) -> list[np.ndarray]:
    """Draw a scene and masks of it, with a box around a place."""
    rows, columns = (np.flatnonzero(place.any(axis)) for axis in (1, 0))
    first = (max(columns[0] - 3, 0), max(rows[0] - 3, 0))
    last = (min(columns[-1] + 3, place.shape[1] - 1), min(rows[-1] + 3, place.shape[0] - 1))
    pictures = [image, *(visualize.colorize(mask, scenes.LABELS) for mask in masks)]
    for number, picture in enumerate(pictures):
        drawn = Image.fromarray(picture)
        ImageDraw.Draw(drawn).rectangle([first, last], outline="white", width=2)
        pictures[number] = np.asarray(drawn)
    return pictures


if __name__ == "__main__":
    main()
