"""A training with a teacher: what it needs, and that it is resumed with the same one."""

import json

import pytest

import keras_pspnet
from keras_pspnet.train import checkpoint, recipes
from keras_pspnet.train.run import Run, fit
from keras_pspnet.train.start import read_start

SMALL = recipes.recipe(
    "scenes_tiny",
    crop=(33, 33),
    channels=4,
    bins=2,
    batch_size=2,
    train_images=2,
    val_images=1,
    epochs=2,
    checkpoint_seconds=0,
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A network of another size and width, with one class more than the data."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.keras"
    names = [*keras_pspnet.labels.SCENES.names[::-1], "boulder"]
    keras_pspnet.build_pspnet(
        13, input_shape=(49, 49, 3), backbone="resnet14_narrow", channels=6, bins=(), labels=names
    ).save(path)
    return path


def test_a_taught_run_is_resumed_with_its_teacher_alone(teacher, tmp_path, capsys, refused):
    class Killed(BaseException):
        pass

    epoch = Run._epoch

    def epoch_and_die(self, meter):
        epoch(self, meter)
        raise Killed

    fit(SMALL, tmp_path / "whole", teacher=teacher)
    assert f"learning from {teacher} too" in capsys.readouterr().out
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "_epoch", epoch_and_die)
        with pytest.raises(Killed):
            fit(SMALL, tmp_path / "cut", teacher=teacher)
    message = refused(fit, SMALL, tmp_path / "cut", resume=True)
    assert "its run has the teacher with the SHA-256" in message and "not none" in message
    fit(SMALL, tmp_path / "cut", teacher=teacher, resume=True)
    for name in ("last.keras", "best.keras", "history.csv"):
        whole, cut = (tmp_path / run / name for run in ("whole", "cut"))
        assert whole.read_bytes() == cut.read_bytes(), name
    written = json.loads((tmp_path / "cut" / "recipe.json").read_text())["teacher"]
    assert written == {"path": str(teacher), "sha256": read_start(teacher).sha256}
    fit(SMALL, tmp_path / "alone")
    rows = [
        checkpoint.read_state(tmp_path / run / "last.keras")["history"][0]
        for run in ("whole", "alone")
    ]
    for row, taught in zip(rows, (True, False)):
        sum_of_heads = row["main_loss"] + 0.4 * row["aux_loss"]
        assert (row["loss"] > sum_of_heads + 1e-3) == taught
        assert row["val_loss"] == pytest.approx(row["val_main_loss"] + 0.4 * row["val_aux_loss"])
    assert "teacher" not in checkpoint.read_state(tmp_path / "alone" / "last.keras")


def test_a_teacher_that_lacks_a_class_is_refused(tmp_path, refused):
    model = keras_pspnet.build_pspnet(
        2, input_shape=(33, 33, 3), backbone="resnet14_narrow", channels=2, labels=["sky", "void"]
    )
    message = refused(fit, SMALL, tmp_path / "run", teacher=model)
    assert message.startswith("a model: a teacher has to know all classes by name, and lacks ")
    assert not (tmp_path / "run").exists()
