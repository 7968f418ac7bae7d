"""The losses against their definitions in numpy; PyTorch's weighted mean, written out."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_pspnet.network import losses as module
from keras_pspnet.network.losses import VoidCrossentropy, class_weights

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (2, 4, 5, 3)).astype(np.float32)
MASK = RNG.choice([0, 1, 2, 255], (2, 4, 5)).astype(np.uint8)


def pixel_losses(mask=MASK, logits=LOGITS):
    """-log of the probability of the true class of each valid pixel, and those classes."""
    valid = mask != 255
    scores, classes = logits[valid].astype(np.float64), mask[valid].astype(int)
    probabilities = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    return -np.log(probabilities[np.arange(len(classes)), classes]), classes


def gradient(loss, mask, logits):
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(mask, logits)
    return float(value), tape.gradient(value, logits).numpy()


def test_the_loss_is_the_mean_over_valid_pixels():
    losses, _ = pixel_losses()
    assert 0 < len(losses) < MASK.size
    assert float(VoidCrossentropy()(MASK, LOGITS)) == pytest.approx(losses.mean(), rel=1e-6)


def test_another_number_of_class_weights_is_an_error():
    with pytest.raises(ValueError, match="2 `class_weights` for 3 classes"):
        VoidCrossentropy(class_weights=[0.3, 1.0])(MASK, LOGITS)


def test_class_weights_weigh_the_mean_as_in_pytorch():
    weights = np.array([0.3, 1.0, 2.5])
    losses, classes = pixel_losses()
    expected = (weights[classes] * losses).sum() / weights[classes].sum()
    result = VoidCrossentropy(class_weights=weights)(MASK, LOGITS)
    assert float(result) == pytest.approx(expected, rel=1e-6)


def test_masks_may_have_a_channel_and_any_integer_type():
    expected = float(VoidCrossentropy()(MASK, LOGITS))
    for mask in (MASK[..., None], MASK.astype(np.int64), MASK.astype(np.float32)):
        assert float(VoidCrossentropy()(mask, LOGITS)) == expected


def test_another_void_value():
    mask = np.where(MASK == 255, -1, MASK.astype(np.int32))
    assert float(VoidCrossentropy(ignore=-1)(mask, LOGITS)) == float(
        VoidCrossentropy()(MASK, LOGITS)
    )


def test_the_gradient_is_softmax_minus_truth_and_zero_at_void():
    _, result = gradient(VoidCrossentropy(), MASK, LOGITS)
    scores = np.exp(LOGITS.astype(np.float64))
    expected = scores / scores.sum(-1, keepdims=True) - np.eye(256)[MASK][..., :3]
    expected[MASK == 255] = 0
    np.testing.assert_allclose(result, expected / (MASK != 255).sum(), atol=1e-7)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"class_weights": [1, 2, 3]},
        {"ohem_threshold": 0.7},
        {"jaccard": 1},
        {"dice": 1},
        {"focal": 2},
        {"class_weights": [1, 2, 3], "ohem_threshold": 0.7, "jaccard": 1, "dice": 1, "focal": 0.5},
    ],
)
def test_nothing_but_void_has_no_loss_and_no_gradient(arguments):
    void = np.full_like(MASK, 255)
    value, result = gradient(VoidCrossentropy(**arguments), void, LOGITS)
    assert value == 0 and (result == 0).all()


def counted(mask, probabilities, **arguments):
    """Which pixels a loss of two classes counts, given the probability of the true class 1."""
    odds = np.log(probabilities / (1 - np.asarray(probabilities)))
    logits = np.stack([np.zeros_like(odds), odds], -1)[None, None].astype(np.float32)
    value, result = gradient(VoidCrossentropy(**arguments), np.array([[mask]], np.uint8), logits)
    kept = np.abs(result[0, 0]).max(-1) > 0
    if kept.any():
        assert value == pytest.approx(-np.log(probabilities)[kept].mean(), rel=1e-5)
    return kept.tolist()


PROBABILITIES = np.array([0.95, 0.6, 0.2, 0.75, 0.1, 0.99])
ONES = [1] * 6


@pytest.fixture
def min_share(monkeypatch):
    """Sets the share of a batch's valid pixels that mining keeps whatever the threshold."""
    return lambda share: monkeypatch.setattr(module, "OHEM_MIN_SHARE", share)


def test_mining_keeps_the_pixels_below_the_threshold():
    kept = counted(ONES, PROBABILITIES, ohem_threshold=0.7)
    assert kept == [False, True, True, False, True, False]


def test_mining_does_not_count_void_however_hard():
    kept = counted([1, 1, 255, 1, 1, 1], PROBABILITIES, ohem_threshold=0.7)
    assert kept == [False, True, False, False, True, False]


def test_mining_keeps_at_least_its_share_the_hardest(min_share):
    min_share(0.5)
    kept = counted(ONES, PROBABILITIES, ohem_threshold=0.15)
    assert kept == [False, True, True, False, True, False]
    # 3 of 5 valid pixels: the share is of the valid ones, and void is none of the hardest
    min_share(0.6)
    kept = counted([1, 1, 255, 1, 1, 1], PROBABILITIES, ohem_threshold=0.15)
    assert kept == [False, True, False, True, True, False]


def test_mining_keeps_a_tenth_of_the_valid_pixels():
    easy = np.linspace(0.95, 0.99, 30)
    kept = counted([1] * 20 + [255] * 10, easy, ohem_threshold=0.7)
    assert kept == [True] * 2 + [False] * 28


def test_mining_keeps_more_than_its_share_where_more_is_hard(min_share):
    min_share(0.2)
    kept = counted(ONES, PROBABILITIES, ohem_threshold=0.8)
    assert kept == [False, True, True, True, True, False]


def test_mining_may_find_nothing():
    easy = np.full(6, 0.9)  # a tenth of six pixels is none
    assert counted(ONES, easy, ohem_threshold=0.7) == [False] * 6


def test_mined_pixels_are_weighed_by_class(min_share):
    min_share(0.0)
    losses, classes = pixel_losses()
    weights, hard = np.array([0.3, 1.0, 2.5])[classes], np.exp(-losses) < 0.5
    result = VoidCrossentropy(class_weights=[0.3, 1.0, 2.5], ohem_threshold=0.5)
    expected = (weights * losses)[hard].sum() / weights[hard].sum()
    assert float(result(MASK, LOGITS)) == pytest.approx(expected, rel=1e-6)


# --- the focal loss ---


def focal_values(exponent, mask=MASK, logits=LOGITS):
    """(1 - p) ** exponent * -log(p) of each valid pixel, and their classes."""
    losses, classes = pixel_losses(mask, logits)
    return (1 - np.exp(-losses)) ** exponent * losses, classes


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("weights", [None, [0.3, 1.0, 2.5]])
def test_the_focal_loss_by_its_definition(exponent, weights):
    values, classes = focal_values(exponent)
    weight = np.ones(len(values)) if weights is None else np.array(weights)[classes]
    result = VoidCrossentropy(class_weights=weights, focal=exponent)(MASK, LOGITS)
    assert float(result) == pytest.approx((weight * values).sum() / weight.sum(), rel=1e-5)


def test_an_exponent_of_zero_is_the_crossentropy():
    assert float(VoidCrossentropy(focal=0)(MASK, LOGITS)) == float(VoidCrossentropy()(MASK, LOGITS))


def test_mining_chooses_the_same_pixels_for_the_focal_loss(min_share):
    min_share(0.0)
    (values, _), (losses, _) = focal_values(2.0), pixel_losses()
    result = VoidCrossentropy(ohem_threshold=0.5, focal=2.0)(MASK, LOGITS)
    assert float(result) == pytest.approx(values[np.exp(-losses) < 0.5].mean(), rel=1e-5)


PLACES = ((0, 0, 0, 0), (0, 2, 3, 1), (1, 3, 4, 2), (1, 1, 2, 0))


def slopes(value, places=PLACES, step=1e-4):
    """The derivatives of value(logits) by some of the logits, by differences."""
    for place in places:
        moved = LOGITS.astype(np.float64).copy()
        moved[place] += step
        up = value(moved)
        moved[place] -= 2 * step
        yield place, (up - value(moved)) / (2 * step)


@pytest.mark.parametrize("exponent", [0.5, 2.0])
def test_the_gradient_of_the_focal_loss_by_differences(exponent):
    _, result = gradient(VoidCrossentropy(focal=exponent), MASK, LOGITS)
    for place, slope in slopes(lambda logits: focal_values(exponent, logits=logits)[0].mean()):
        assert result[place] == pytest.approx(slope, abs=2e-6)
    assert (result[MASK == 255] == 0).all()


@pytest.mark.parametrize("exponent", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("arguments", [{}, {"dice": 1.0}])
def test_gradients_are_finite_however_sure_the_prediction(exponent, arguments):
    truth = np.arange(40).reshape(2, 4, 5).astype(np.uint8) % 3
    for scale in (1e-6, 20.0, 1e4):
        for turn in (0, 1):
            logits = scale * np.eye(3, dtype=np.float32)[(truth + turn) % 3]
            loss = VoidCrossentropy(**arguments, focal=exponent)
            value, result = gradient(loss, truth, logits)
            assert np.isfinite(value) and np.isfinite(result).all()
            if turn == 0 and scale > 10:
                assert value == pytest.approx(0, abs=1e-6) and np.abs(result).max() < 1e-6


# --- the soft Jaccard and the soft Dice loss ---


def overlap(part, whole, mask, logits):
    """1 - the mean of sum part / sum whole over the classes in the mask, pixel by pixel."""
    missing = []
    for label in sorted(set(mask.ravel().tolist()) - {255}):
        above = below = 0.0
        for place in np.ndindex(mask.shape):
            if mask[place] != 255:
                powers = np.exp(logits[place].astype(np.float64))
                p, t = powers[label] / powers.sum(), float(mask[place] == label)
                above, below = above + part(p, t), below + whole(p, t)
        missing.append(1 - above / below)
    return np.mean(missing)


def soft_jaccard(mask=MASK, logits=LOGITS):
    return overlap(lambda p, t: p * t, lambda p, t: p + t - p * t, mask, logits)


def soft_dice(mask=MASK, logits=LOGITS):
    return overlap(lambda p, t: 2 * p * t, lambda p, t: p**2 + t**2, mask, logits)


OVERLAPS = {"jaccard": soft_jaccard, "dice": soft_dice}


@pytest.mark.parametrize("name", OVERLAPS)
@pytest.mark.parametrize("classes", [(0, 1, 2), (0, 2), (1,)])
@pytest.mark.parametrize("weight", [1.0, 0.5, 3.0])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"class_weights": [0.3, 1.0, 2.5]}, {"ohem_threshold": 0.5}, {"focal": 2.0}],
)
def test_the_soft_overlap_is_added(arguments, weight, classes, name):
    mask = np.where(np.isin(MASK, classes), MASK, 255).astype(np.uint8)
    both = VoidCrossentropy(**arguments, **{name: weight})(mask, LOGITS)
    without = VoidCrossentropy(**arguments)(mask, LOGITS)
    expected = weight * OVERLAPS[name](mask)
    assert float(both) - float(without) == pytest.approx(expected, rel=1e-5)
    channel = VoidCrossentropy(**arguments, **{name: weight})(mask[..., None], LOGITS)
    assert float(channel) == float(both)


def test_both_overlaps_may_be_added():
    both = VoidCrossentropy(jaccard=0.5, dice=2.0)(MASK, LOGITS)
    expected = pixel_losses()[0].mean() + 0.5 * soft_jaccard() + 2 * soft_dice()
    assert float(both) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", OVERLAPS)
def test_void_pixels_do_not_move_the_soft_overlap(name):
    loss, other = VoidCrossentropy(**{name: 1.0}), LOGITS.copy()
    other[MASK == 255] = RNG.normal(0, 9, other[MASK == 255].shape)
    assert float(loss(MASK, other)) == pytest.approx(float(loss(MASK, LOGITS)), rel=1e-6)
    _, result = gradient(loss, MASK, LOGITS)
    assert (result[MASK == 255] == 0).all() and (np.abs(result[MASK != 255]).max(-1) > 0).all()


@pytest.mark.parametrize("name", OVERLAPS)
def test_the_gradient_of_the_soft_overlap_by_differences(name):
    _, both = gradient(VoidCrossentropy(**{name: 1.0}), MASK, LOGITS)
    _, without = gradient(VoidCrossentropy(), MASK, LOGITS)
    for place, slope in slopes(lambda logits: OVERLAPS[name](logits=logits)):
        assert (both - without)[place] == pytest.approx(slope, abs=2e-6)


@pytest.mark.parametrize("name", OVERLAPS)
def test_a_perfect_prediction_has_no_loss_and_its_opposite_the_whole(name):
    truth = RNG.integers(0, 3, (2, 4, 5)).astype(np.uint8)
    right, wrong = (60 * np.eye(3, dtype=np.float32)[(truth + n) % 3] for n in (0, 1))
    value, result = gradient(VoidCrossentropy(**{name: 1.0}), truth, right)
    assert value == pytest.approx(0, abs=1e-6) and np.abs(result).max() < 1e-6
    crossentropy = float(VoidCrossentropy()(truth, wrong))
    assert float(VoidCrossentropy(**{name: 1.0})(truth, wrong)) == pytest.approx(crossentropy + 1)


ALL = {"class_weights": [0.3, 1.0, 2.5], "ohem_threshold": 0.6, "jaccard": 0.25, "dice": 0.5}
ALL["focal"] = 1.5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(f"mixed_{dtype}")
    try:
        logits = tf.cast(LOGITS, dtype)
        value = VoidCrossentropy(**ALL)(MASK, logits)
    finally:
        keras.config.set_dtype_policy(before)
    assert value.dtype == tf.float32
    expected = VoidCrossentropy(**ALL)(MASK, tf.cast(logits, tf.float32))
    assert float(value) == float(expected)


def test_a_config_round_trips():
    loss = VoidCrossentropy(7, (1, 2, 3), 0.6, 0.25, dice=0.5, focal=2, name="mine")
    config = keras.saving.serialize_keras_object(loss)
    other = keras.saving.deserialize_keras_object(config)
    assert other.get_config() == loss.get_config()
    assert (other.ignore, other.class_weights) == (7, [1.0, 2.0, 3.0])
    assert (other.ohem_threshold, other.name) == (0.6, "mine")
    mask = np.where(MASK == 255, 7, MASK)
    assert (other.jaccard, other.dice, other.focal) == (0.25, 0.5, 2.0)
    assert float(other(mask, LOGITS)) == float(loss(mask, LOGITS))


@pytest.mark.parametrize(
    "arguments",
    [
        {"ohem_threshold": 0},
        {"ohem_threshold": 2},
        {"jaccard": -0.1},
        {"dice": -1},
        {"dice": float("nan")},
        {"focal": -0.5},
        {"focal": float("inf")},
        {"reduction": "sum"},
    ],
)
def test_settings_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        VoidCrossentropy(**arguments)


def two_heads():
    """A model whose two outputs are its input."""
    image = keras.Input((4, 5, 3))
    outputs = {
        name: keras.layers.Activation("linear", name=name)(image) for name in ("aux", "main")
    }
    return keras.Model(image, outputs)


def test_a_compiled_model_loads_with_its_losses(tmp_path):
    model, masks = two_heads(), {"aux": MASK, "main": MASK}
    loss = {"main": VoidCrossentropy(**ALL), "aux": VoidCrossentropy(focal=2)}
    model.compile("sgd", loss=loss, loss_weights={"main": 1.0, "aux": 0.4})
    expected = model.evaluate(LOGITS, masks, verbose=0, return_dict=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(LOGITS, masks, verbose=0, return_dict=True) == expected
    main = float(VoidCrossentropy(**ALL)(MASK, LOGITS))
    assert expected["main_loss"] == pytest.approx(main, rel=1e-6)


def test_a_compiled_model_reports_both_losses_by_their_weights():
    model = two_heads()
    model.compile(
        "sgd",
        loss={"main": VoidCrossentropy(), "aux": VoidCrossentropy(class_weights=[1, 2, 3])},
        loss_weights={"main": 1.0, "aux": 0.4},
    )
    result = model.evaluate(LOGITS, {"aux": MASK, "main": MASK}, verbose=0, return_dict=True)
    main = float(VoidCrossentropy()(MASK, LOGITS))
    aux = float(VoidCrossentropy(class_weights=[1, 2, 3])(MASK, LOGITS))
    assert result["loss"] == pytest.approx(main + 0.4 * aux, rel=1e-6)
    assert result["main_loss"] == pytest.approx(main, rel=1e-6)
    assert result["aux_loss"] == pytest.approx(aux, rel=1e-6)


def test_class_weights_are_the_root_of_the_median_over_the_count():
    assert class_weights([100, 400, 0, 25]) == pytest.approx([1, 0.5, 1, 2])
    assert class_weights([9, 9]) == [1, 1] and class_weights([0, 0]) == [1, 1]


@pytest.mark.parametrize("weights", [None, [0.3, 1.0, 2.5]])
def test_what_a_picture_counts_is_what_its_loss_is_divided_by(weights):
    loss = VoidCrossentropy(class_weights=weights)
    factors = np.array([*(weights or [1, 1, 1]), *[0] * 253])
    expected = factors[MASK].sum((1, 2))
    assert len(set(expected)) > 1 or len(MASK) == 1
    for mask in (MASK, MASK[..., None]):
        np.testing.assert_allclose(loss.counted(mask), expected, rtol=1e-6)


@pytest.mark.parametrize("label", [5, -1])
def test_a_label_that_is_no_class_is_an_error_or_nan(label):
    """Keras uses XLA on a GPU, which removes checks: there it must not pass for a number."""
    logits = np.random.default_rng(0).normal(size=(1, 4, 4, 5)).astype(np.float32)
    labels = np.zeros((1, 4, 4), np.int64)
    labels[0, 0, 0] = label
    harder = VoidCrossentropy(ohem_threshold=0.7, jaccard=1.0, focal=2.0)
    for loss in (VoidCrossentropy(), harder):
        for call in (loss, tf.function(loss)):
            with pytest.raises(
                tf.errors.InvalidArgumentError, match=r"out of range, expected 0..4"
            ):
                call(labels, logits)
        compiled = tf.function(loss, jit_compile=True)
        assert np.isnan(compiled(labels, logits))
        labels_void = np.where(labels == label, 255, labels)
        np.testing.assert_allclose(compiled(labels_void, logits), loss(labels_void, logits), 1e-5)
