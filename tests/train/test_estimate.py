"""What a training says of its length before it starts."""

import pytest

from keras_pspnet.train import estimate, recipe


def test_the_matrix_product_is_measured_in_gflop_a_second(monkeypatch):
    now = iter([0.0, 0.5, 1.0, 1.25, 2.0, 3.0])
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: next(now))
    monkeypatch.setattr(estimate, "SIDE", 1000)
    monkeypatch.setattr(estimate, "TIMES", 3)
    assert estimate.matrix_product() == pytest.approx(2 / 0.25)


def test_the_seconds_of_the_measured_machine():
    """training_steps.json: 1.2736 s a step of 4 pictures of 369x481 at output stride 16."""
    one = recipe("camvid_lite0", epochs=1, coarse_epochs=1)
    assert estimate.seconds(one, 4, 0, 198.6) == pytest.approx(1.2736, rel=0.01)
    fine = one.change(coarse_epochs=0)
    assert estimate.seconds(fine, 4, 0, 198.6) == pytest.approx(2.6 * 1.2736, rel=0.01)
    both = one.change(epochs=3, coarse_epochs=1)
    assert estimate.seconds(both, 9, 6, 198.6) == pytest.approx(
        (2 + 2 / 4) * (1 + 2 * 2.6) * 1.2736, rel=0.01
    )
    assert estimate.seconds(both, 8, 0, 397.2) == pytest.approx(6.2 * 1.2736, rel=0.01)
    assert estimate.seconds(recipe("ade20k_resnet101"), 100, 0, 198.6) is None


def test_the_line_says_why_there_are_more_epochs(monkeypatch):
    monkeypatch.setattr(estimate, "matrix_product", lambda: 100.0)
    few = recipe("folder_lite0")
    line = estimate.line(few, 40, 8, on_cpu=True)
    assert line.startswith(
        "40 pictures: 60 epochs of 10 steps, as so few need more epochs to make 600 steps; about "
    )
    assert line.endswith(" if this machine does nothing else")
    assert estimate.line(few, 400, 8, on_cpu=False) == "400 pictures: 22 epochs of 100 steps"
    assert estimate.line(recipe("ade20k_resnet101"), 32, 8, on_cpu=True) == (
        "32 pictures: 100 epochs of 2 steps"
    )
