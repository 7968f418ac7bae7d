"""A training with a teacher: what it needs, and that it is resumed with the same one."""

import json

import pytest

from keras_pspnet.labels import SCENES, LabelSet
from keras_pspnet.train import checkpoint, recipes
from keras_pspnet.train import loop as running
from keras_pspnet.train.run import fit
from keras_pspnet.train.start import read_start

SMALL = recipes.recipe(
    "scenes_tiny",
    crop=(33, 33),
    batch_size=2,
    train_images=4,
    val_images=1,
    epochs=1,
    checkpoint_seconds=0,
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, tiny_network):
    """A network with one class more than the data, in another order."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.keras"
    tiny_network(labels=LabelSet((*SCENES.names[::-1], "boulder"))).save(path)
    return path


def test_a_taught_run_is_resumed_with_its_teacher_alone(
    teacher, tiny_network, tmp_path, capsys, refused, monkeypatch
):
    class Killed(BaseException):
        pass

    save = checkpoint.save

    def save_and_die(model, path, state):
        save(model, path, state)
        raise Killed

    monkeypatch.setattr(running, "build", lambda *_: tiny_network())
    fit(SMALL, tmp_path / "whole", teacher=teacher)
    assert f"learning from {teacher} too" in capsys.readouterr().out
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", save_and_die)
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
    (row,) = checkpoint.read_state(tmp_path / "whole" / "last.keras")["history"]
    assert row["loss"] > row["main_loss"] + 0.4 * row["aux_loss"] + 1e-3
    assert row["val_loss"] == pytest.approx(row["val_main_loss"] + 0.4 * row["val_aux_loss"])


def test_a_teacher_that_lacks_a_class_is_refused(tmp_path, refused, tiny_network):
    model = tiny_network(labels=LabelSet(("sky", "boulder")))
    message = refused(fit, SMALL, tmp_path / "run", teacher=model)
    assert message.startswith("a model: a teacher has to know all classes by name, and lacks ")
    assert not (tmp_path / "run").exists()
