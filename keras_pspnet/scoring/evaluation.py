"""Score a model on a dataset: the function `evaluate`, behind the command of the same name."""

import contextlib
import dataclasses
from collections.abc import Callable

from keras_pspnet.data.datasets import BASES, open_source
from keras_pspnet.data.pairs import Source
from keras_pspnet.errors import UserError
from keras_pspnet.inference.model_facts import (
    Sizes,
    crop_notes,
    describe,
    known_labels,
    named_predictor,
)
from keras_pspnet.inference.predictor import check_classes
from keras_pspnet.inference.segment import Protocol, segment_with
from keras_pspnet.labels import IGNORE, LabelSet
from keras_pspnet.progress import track
from keras_pspnet.scoring import metrics
from keras_pspnet.scoring.boundary import BoundaryIoU


def evaluate(
    model,
    name: str,
    path=None,
    *,
    split: str = "val",
    crop=None,
    base=None,
    scales=(1.0,),
    flip=False,
    labels=None,
    boundary=False,
    on_picture: Callable | None = None,
    verbose=True,
) -> dict:
    """Score a model on the pictures and masks of a dataset, as `keras-pspnet evaluate` does.

    Args:
        model: a path that `load_model` takes, or anything that it returns.
        name: the dataset, see `data.load`.
        path: the dataset's folder; "scenes" takes none.
        split: the split to score on.
        crop, base, scales, flip: sliding window, scales and mirroring, see
            `inference.segment.Protocol`. With `crop`, `base` None is 512 for "ade20k" and
            "voc2012", 2048 for "cityscapes", and the picture's own long side for the others.
        labels: what the model's classes are called: a LabelSet, a list of names, the name of a
            dataset or the path of a labels.json; the model's own by default.
        boundary: True adds "boundary_mIoU", and "boundary_IoU" to each class.
        on_picture: called after each picture, see `scoring.evaluate`.
        verbose: True prints at which size the model looks, notes, and progress.

    Returns:
        What `--json` writes: the dictionary of `ConfusionMatrix.scores`, "images", "seconds" of
        prediction, and "protocol".

    Raises:
        UserError: no such model, dataset or split; the model's classes are not the dataset's; the
            protocol does not fit the model; a picture or mask that cannot be used.
    """
    protocol = protocol_on(name, crop, base, scales, flip)
    evaluation = Evaluation(model, name, path, split=split, protocol=protocol, labels=labels)
    watching = () if on_picture is None else (on_picture,)
    scores = evaluation.scores(*watching, boundary=boundary, verbose=verbose)
    if verbose and evaluation.notes:
        print("\n".join(evaluation.notes))
    return scores


def protocol_on(name, crop, base, scales, flip) -> Protocol:
    """Return a Protocol for a dataset: with `crop`, `base` None is that of the authors' test.

    Raises:
        UserError: as `Protocol`.
    """
    if crop is not None and base is None:
        base = BASES.get(name)
    return Protocol(crop, base, scales, flip)


class Evaluation:
    """A model and the pictures to score it on, compared before TensorFlow is imported.

    Arguments are those of `evaluate`, with a `Protocol`; so are the errors. After `scores`, `notes`
    holds what a user should know of the protocol.
    """

    def __init__(self, model, name, path=None, *, split, protocol: Protocol, labels=None):
        self.model, self.protocol, self.labels = model, protocol, labels
        self.name, self.path, self.split = name, path, split
        self.notes: list[str] = []
        known = known_labels(model, labels)
        self.source = _open_for(known, name=name, path=path, split=split)

    def scores(self, *on_picture: Callable, boundary=False, verbose=True) -> dict:
        """Load the model if it is a path, score it, and return what `evaluate` returns."""
        predictor, source = named_predictor(self.model, self.labels), self.source
        check_classes(predictor.labels, source.labels, source.named)
        self.protocol.check(predictor)
        if self.name == "scenes":  # generated at the size that the model takes
            source = open_source("scenes", split=self.split, size=predictor.size)
        sizes, contours = Sizes(), BoundaryIoU(source.labels)
        watching = [sizes.add, *on_picture, *[contours.add] * boundary]

        def watch(*seen):
            for add in watching:
                add(*seen)

        examples = source.examples()
        if verbose:
            print("\n".join([*source.notes, describe(predictor, self.protocol)]), flush=True)
            examples = track(examples, "evaluating", len(source))
        scores = metrics.evaluate(
            lambda image: segment_with(predictor, image, self.protocol),
            examples,
            source.labels,
            watch,
        )
        if boundary:
            contours.add_to(scores)
        data = self.name, self.path
        self.notes = crop_notes(self.model, predictor, self.protocol, sizes, data)
        protocol = dataclasses.asdict(self.protocol).items()
        lists = {key: list(value) if isinstance(value, tuple) else value for key, value in protocol}
        return {**scores, "protocol": lists}


def _open_for(labels: LabelSet | None, **place) -> Source:
    """Open a dataset's split and compare its classes with a model's `labels`; None: not known."""
    if labels and labels == LabelSet.numbered(len(labels)):
        labels = None  # neither names nor ids: they do not say what a mask's values mean
    source = open_source(**place, labels=labels)
    if labels and not source.named:
        with contextlib.suppress(UserError):
            found = open_source(**place)
            ids, own = found.labels.ids or {}, labels.ids or {}
            # With masks of {0, 255} and a model of {0, 1}, 255 would be void and the rest right.
            if found.labels.names == labels.names or (IGNORE in ids and IGNORE not in own):
                source = found
    if labels:
        check_classes(labels, source.labels, source.named)
    return source.paired()
