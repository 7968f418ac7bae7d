"""Augmentation: image and mask stay together, nothing is invented, one seed is one result."""

import numpy as np
import pytest
import tensorflow as tf

from keras_pspnet.data.augment import Augmentation, blur, crop, jitter, rescale, rotate
from keras_pspnet.images import IMAGENET_MEAN

COLORS = np.array([[250, 20, 30], [10, 200, 60], [40, 90, 220], [128, 128, 0]], np.float32)


def pattern(height=60, width=72):
    """Large blocks of the ids 0..3, and the picture that shows each id in its colour."""
    rows, columns = np.mgrid[:height, :width]
    mask = ((rows // 20) * 2 + columns // 24 + rows // 40).astype(np.uint8) % 4
    return tf.constant(COLORS[mask]), tf.constant(mask)


def assert_together(image, mask, margin):
    """Pixels whose whole neighbourhood has one id show the colour of that id."""
    image, mask = np.asarray(image), np.asarray(mask)
    assert image.shape == (*mask.shape, 3) and image.dtype == np.float32
    assert mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 1, 2, 3, 255}
    side = 2 * margin + 1
    windows = np.lib.stride_tricks.sliding_window_view(mask, (side, side)).reshape(
        mask.shape[0] - side + 1, mask.shape[1] - side + 1, -1
    )
    inner = np.full(mask.shape, 254)
    inner[margin:-margin, margin:-margin] = np.where(
        windows.min(-1) == windows.max(-1), windows[..., 0], 254
    )
    for label in range(4):
        shown = image[inner == label]
        assert len(shown) == 0 or np.abs(shown - COLORS[label]).max() < 0.01
    assert (inner < 4).sum() > 0.03 * (mask != 255).sum()


def noise(*size):
    return np.random.default_rng(0).uniform(0, 255, (*size, 3)).astype(np.float32)


@pytest.mark.parametrize("factor", [0.5, 0.77, 1.0, 1.9])
def test_rescaling_keeps_image_and_mask_together(factor):
    image, mask = rescale(*pattern(), factor)
    assert mask.shape == (round(60 * factor), round(72 * factor))
    assert_together(image, mask, 2)


@pytest.mark.parametrize("degrees", [-10, 3, 30])
def test_rotation_keeps_image_and_mask_together(degrees):
    image, mask = rotate(*pattern(), np.float32(np.radians(degrees)))
    assert mask.shape == (60, 72)
    assert_together(image, mask, 2)


@pytest.mark.parametrize("seed", range(20))
def test_everything_together_keeps_image_and_mask_together(seed):
    image, mask = Augmentation()(*pattern(), (seed, 0))
    assert_together(image, mask, 5)
    image, mask = crop(image, mask, (49, 65), (seed, 1))
    assert mask.shape == (49, 65)
    assert_together(image, mask, 5)
    assert np.asarray(image).min() > -0.01 and np.asarray(image).max() < 255.01


def test_doubling_is_bilinear_for_the_image_and_nearest_for_the_mask():
    image = np.array([[[0.0] * 3, [80.0] * 3]], np.float32)
    image, mask = rescale(image, np.array([[3, 255]], np.uint8), 2.0)
    assert np.asarray(image)[0, :, 0].tolist() == [0, 20, 60, 80]
    assert np.asarray(mask).tolist() == [[3, 3, 255, 255]] * 2


def test_the_smallest_picture_does_not_vanish():
    image, mask = rescale(noise(1, 3), np.zeros((1, 3), np.uint8), 0.1)
    assert image.shape == (1, 1, 3) and mask.shape == (1, 1)


def turned(image, mask, angle):
    """Each output pixel looks at its place in the input, turned back about the centre."""
    height, width = mask.shape
    center_y, center_x = (height - 1) / 2, (width - 1) / 2
    padded = np.pad(image - IMAGENET_MEAN, ((1, 1), (1, 1), (0, 0)))
    new_image = np.zeros_like(image) + np.float32(IMAGENET_MEAN)
    new_mask = np.full_like(mask, 255)
    for row in range(height):
        for column in range(width):
            x, y = column - center_x, row - center_y
            source_x = np.cos(angle) * x - np.sin(angle) * y + center_x
            source_y = np.sin(angle) * x + np.cos(angle) * y + center_y
            if -1 < source_x < width and -1 < source_y < height:
                left, top = int(np.floor(source_x)), int(np.floor(source_y))
                right, bottom = source_x - left, source_y - top
                block = padded[top + 1 : top + 3, left + 1 : left + 3]
                weights = np.outer([1 - bottom, bottom], [1 - right, right])
                new_image[row, column] = (block * weights[..., None]).sum((0, 1)) + IMAGENET_MEAN
            nearest_y, nearest_x = int(np.rint(source_y)), int(np.rint(source_x))
            if 0 <= nearest_y < height and 0 <= nearest_x < width:
                new_mask[row, column] = mask[nearest_y, nearest_x]
    return new_image, new_mask


@pytest.mark.parametrize("degrees", [-10, 7, 45])
def test_rotation_by_its_definition(degrees):
    image, angle = noise(14, 19), np.radians(degrees)
    mask = np.random.default_rng(1).integers(0, 4, (14, 19)).astype(np.uint8)
    result, ids = rotate(tf.constant(image), mask, np.float32(angle))
    expected, expected_ids = turned(image, mask, angle)
    np.testing.assert_allclose(result, expected, atol=0.01)
    assert np.array_equal(ids, expected_ids) and (expected_ids == 255).any()


def test_a_quarter_turn_moves_every_pixel_whole():
    image, mask = noise(9, 9), np.arange(81, dtype=np.uint8).reshape(9, 9)
    result, ids = rotate(tf.constant(image), mask, np.float32(np.pi / 2))
    assert np.array_equal(ids, np.rot90(mask))
    np.testing.assert_allclose(result, np.rot90(image), atol=0.01)


@pytest.mark.parametrize("size", [(8, 11), (3, 5), (2, 7), (1, 4), (2, 2), (1, 1)])
def test_blurring_is_a_gaussian_of_five_by_five_with_a_reflected_border(size):
    image, (height, width) = noise(*size), size
    taps = np.array([1.0, 4.0, 6.0, 4.0, 1.0])
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    padded, expected = np.pad(image, ((2, 2), (2, 2), (0, 0)), "reflect"), 0.0
    for row in range(5):
        for column in range(5):
            part = padded[row : row + height, column : column + width]
            expected = expected + kernel[row, column] * part
    np.testing.assert_allclose(blur(image), expected, rtol=1e-5)
    in_graph = tf.function(blur, input_signature=[tf.TensorSpec((None, None, 3))])
    np.testing.assert_allclose(in_graph(image), expected, rtol=1e-5)


def test_flipping_mirrors_both():
    image, mask = noise(4, 6), np.arange(24, dtype=np.uint8).reshape(4, 6)
    always = Augmentation((1, 1), rotation_share=0, blur_share=0, flip_share=1)
    result, ids = always(image, mask, (3, 0))
    np.testing.assert_allclose(result, image[:, ::-1], atol=1e-4)
    assert np.array_equal(ids, mask[:, ::-1])


def test_without_any_share_nothing_changes():
    image, mask = noise(4, 6), np.arange(24, dtype=np.uint8).reshape(4, 6)
    result, ids = Augmentation((1, 1), 10, 0, 0, 0)(image, mask, (3, 0))
    np.testing.assert_allclose(result, image, atol=1e-4)
    assert np.array_equal(ids, mask)


STILL = {"scales": (1, 1), "rotation_share": 0, "blur_share": 0, "flip_share": 0}


def test_colours_change_and_the_mask_does_not():
    image, mask = pattern()
    results = []
    for seed in range(10):
        result, ids = Augmentation(**STILL, color=0.3)(image, mask, (seed, 0))
        assert result.shape == image.shape and result.dtype == tf.float32
        assert np.array_equal(ids, mask)
        assert float(tf.reduce_max(tf.abs(result - image))) > 2
        results.append(np.asarray(result))
    assert not any(np.allclose(results[0], other, atol=1) for other in results[1:])


@pytest.mark.parametrize("color", [0.3, 0.99])
def test_changed_colours_are_still_colours(color):
    dark, light = np.zeros((4, 4, 3), np.float32), np.full((4, 4, 3), 255, np.float32)
    for image in (dark, light, noise(20, 20), np.asarray(pattern()[0])):
        for seed in range(20):
            result, _ = Augmentation(**STILL, color=color)(
                image, np.zeros(image.shape[:2], np.uint8), (seed, 0)
            )
            assert float(tf.reduce_min(result)) >= -1e-3
            assert float(tf.reduce_max(result)) <= 255 + 1e-3


def test_changed_colours_by_their_definition(monkeypatch):
    """Brightness, contrast about each channel's mean, and saturation, each by its own draw."""
    deltas, contrasts, saturations = [], [], []
    image = noise(8, 9) / 4 + 90  # far from both ends: nothing is clipped
    for seed in range(40):
        result = jitter(image, 0.2, (seed, 0)).numpy()
        # Grey stays grey: the mean brightness and its spread tell the first two draws.
        grey = np.repeat(image[..., :1], 3, -1)
        shown = jitter(grey, 0.2, (seed, 0)).numpy()
        np.testing.assert_allclose(shown[..., 0], shown[..., 2], atol=1e-3)
        deltas.append(float(shown.mean() - grey.mean()))
        contrasts.append(float(shown.std() / grey.std()))
        mean = image.mean((0, 1))
        plain = (image - mean) * contrasts[-1] + mean + deltas[-1]
        # Saturation leaves the largest channel and scales the distance of the others from it.
        top, below = plain.max(-1, keepdims=True), plain.max(-1, keepdims=True) - plain
        ratio = ((top - result) * below).sum() / (below * below).sum()
        saturations.append(float(ratio))
        np.testing.assert_allclose(result, top - ratio * below, atol=0.05)
    for draws, center, most in (
        (deltas, 0, 0.2 * 128),
        (contrasts, 1, 0.2),
        (saturations, 1, 0.2),
    ):
        away = np.abs(np.array(draws) - center)
        assert away.max() <= most * 1.001 + 1e-3 and away.max() > 0.8 * most
        assert min(draws) < center - 0.5 * most and max(draws) > center + 0.5 * most
        assert abs(np.mean(draws) - center) < 0.35 * most  # 3.8 standard deviations
    assert abs(np.corrcoef(deltas, contrasts)[0, 1]) < 0.5
    assert abs(np.corrcoef(contrasts, saturations)[0, 1]) < 0.5


@pytest.mark.parametrize("seed", range(3))
def test_colours_come_last_and_leave_the_rest_as_it_is(seed):
    image, mask = pattern()
    before, ids = Augmentation()(image, mask, (seed, 0))
    same_image, same_ids = Augmentation(color=0.0)(image, mask, (seed, 0))
    assert np.array_equal(before, same_image) and np.array_equal(ids, same_ids)
    colored, colored_ids = Augmentation(color=0.4)(image, mask, (seed, 0))
    assert np.array_equal(ids, colored_ids)
    assert np.array_equal(colored, jitter(before, 0.4, (seed, 0)))
    assert not np.allclose(colored, before, atol=1)


def test_one_seed_is_one_colour():
    image, mask = pattern()
    run = tf.function(Augmentation(**STILL, color=0.4))
    one, again, other = (run(image, mask, tf.constant([s, 0], tf.int64))[0] for s in (5, 5, 6))
    assert np.array_equal(one, again) and not np.allclose(one, other, atol=1)
    eager, _ = Augmentation(**STILL, color=0.4)(image, mask, (5, 0))
    np.testing.assert_allclose(eager, one, atol=1e-3)


def test_one_seed_is_one_result():
    augmentation = tf.function(Augmentation())
    results = [augmentation(*pattern(), tf.constant(seed)) for seed in ([5, 0], [5, 0], [6, 0])]
    for first, again in zip(results[0], results[1]):
        assert np.array_equal(first, again)
    assert results[0][1].shape != results[2][1].shape


def test_shares_are_probabilities_and_scales_and_angles_are_uniform():
    image = tf.constant(noise(5, 8))
    mask = tf.constant(np.arange(40, dtype=np.uint8).reshape(5, 8))

    def happened(**shares):
        """In how many of 200 seeds the image changed."""
        settings = {"rotation_share": 0.0, "blur_share": 0.0, "flip_share": 0.0, **shares}
        run = tf.function(Augmentation((1, 1), **settings))
        return sum(
            float(tf.reduce_max(tf.abs(run(image, mask, tf.constant([seed, 0]))[0] - image))) > 0.1
            for seed in range(200)
        )

    # The standard deviation of 200 tosses is 7 (6 at a quarter).
    assert 72 < happened(flip_share=0.5) < 128
    assert 72 < happened(blur_share=0.5) < 128
    assert 72 < happened(rotation_share=0.5) < 128
    assert 25 < happened(flip_share=0.25) < 75

    large = (tf.zeros((100, 100, 3)), tf.zeros((100, 100), tf.uint8))
    scale = tf.function(Augmentation((0.5, 2.0), 0, 0, 0, 0))
    sides = [int(tf.shape(scale(*large, tf.constant([s, 0]))[1])[0]) for s in range(200)]
    assert 50 <= min(sides) < 60 and 190 < max(sides) <= 200 and 115 < np.mean(sides) < 135


def test_rotations_go_both_ways_up_to_the_largest_angle(monkeypatch):
    angles = []
    monkeypatch.setattr(
        "keras_pspnet.data.augment.rotate",
        lambda image, mask, angle: (angles.append(np.degrees(float(angle))), (image, mask))[1],
    )
    for seed in range(200):
        Augmentation((1, 1), 10, 0.5, 0, 0)(noise(1, 1), np.zeros((1, 1), np.uint8), (seed, 0))
    assert 72 < len(angles) < 128
    assert -10 <= min(angles) < -8 and 8 < max(angles) <= 10 and abs(np.mean(angles)) < 2


# --- crop ---


def numbered(height, width):
    mask = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    return np.repeat(mask[..., None], 3, -1).astype(np.float32), mask


def test_without_a_seed_the_centre_is_cropped():
    image, mask = numbered(9, 12)
    result, ids = crop(image, mask, (5, 4))
    assert np.array_equal(ids, mask[2:7, 4:8])
    np.testing.assert_allclose(result, image[2:7, 4:8], atol=1e-4)


def test_with_seeds_every_place_is_cropped():
    image, mask = numbered(6, 7)
    run = tf.function(lambda seed: crop(image, mask, (4, 5), seed))
    places = set()
    for seed in range(120):
        result, ids = run(tf.constant([seed, 1]))
        row, column = divmod(int(ids[0, 0]), 7)
        assert np.array_equal(ids, mask[row : row + 4, column : column + 5])
        np.testing.assert_allclose(result, image[row : row + 4, column : column + 5], atol=1e-4)
        places.add((row, column))
    assert places == {(row, column) for row in range(3) for column in range(3)}


@pytest.mark.parametrize("seed", [None, (4, 1)])
def test_what_is_too_small_is_padded_around_with_mean_and_void(seed):
    image, mask = numbered(2, 3)
    result, ids = crop(tf.constant(image), mask, (5, 6), seed)
    expected = np.full((5, 6), 255)
    expected[1:3, 1:4] = mask
    assert np.array_equal(ids, expected)
    result = np.asarray(result)
    np.testing.assert_allclose(result[1:3, 1:4], image, atol=1e-4)
    assert (result[expected == 255] == np.float32(IMAGENET_MEAN)).all()


def test_one_side_may_be_padded_and_the_other_cropped():
    image, mask = numbered(3, 10)
    _, ids = crop(image, mask, (5, 4))
    assert np.array_equal(ids, np.pad(mask[:, 3:7], ((1, 1), (0, 0)), constant_values=255))
