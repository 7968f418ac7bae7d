"""Damaged run folders: one line each, before TensorFlow is needed."""

import json
import zipfile

import pytest

from keras_pspnet.train.recipes import recipe
from keras_pspnet.train.run_folder import check_run, is_resumable, moved_data
from keras_pspnet.train.splits import check_same_data
from keras_pspnet.train.state import STATE, read_state

RECIPE = recipe("scenes_tiny")
ROW = dict.fromkeys(("loss", "val_loss", "main_mIoU", "val_main_mIoU", "learning_rate"), 0.5)
GOOD = {
    "step": 1,
    "history": [{"epoch": 1, **ROW}],
    "best": 0.5,
    "coarse": False,
    "recipe": RECIPE.to_config(),
    "seeds": [],
    "metrics": [],
}


@pytest.fixture
def run(tmp_path):
    def write(state, name="last.keras"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr(STATE, state if isinstance(state, str) else json.dumps(state))
        return tmp_path / name

    return write


def test_a_whole_state_is_read(run):
    assert read_state(run(GOOD)) == GOOD


DAMAGED = {
    "history": ["x", {}, [1], [{"epoch": 1}], [{"epoch": 1, **ROW, "loss": "x"}], None],
    "seeds": [None, {}, 3],
    "metrics": [None, "x"],
    "recipe": [None, [], "x"],
    "step": [None, -1, 1.5, "1", True],
    "best": ["x", []],
    "coarse": [None, 3],
    "start": [3, ["x"]],
    "machine": [3, {"threads": 1}],
    "data": [3, "x"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in DAMAGED.items() for value in values]
)
def test_a_field_of_another_type_is_named(refused, run, name, value):
    file = run({**GOOD, name: value})
    said = refused(read_state, file)
    assert str(file) in said and (name in said or "iterable" in said)


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", "[" * 5000, '{"step": 1e999}', "null"])
def test_a_state_that_is_none_is_one_line(refused, run, text):
    assert "no training can be resumed" in refused(read_state, run(text))


def test_a_state_that_inflates_is_refused(refused, run, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(STATE, " " * 2**25)
    assert "inflates" in refused(read_state, tmp_path / "a.keras")


@pytest.mark.parametrize(
    "change",
    [
        {"data_dir": 3},
        {"data_dir": ["a"]},
        {"start": "x"},
        {"start": {"sha256": 3}},
        {"start": [1]},
    ],
)
def test_a_recipe_of_other_types_is_one_line(refused, run, tmp_path, change):
    (tmp_path / "recipe.json").write_text(json.dumps(RECIPE.to_config() | change))
    assert "recipe.json" in refused(check_run, RECIPE, tmp_path, True)
    assert "recipe.json" in refused(moved_data, tmp_path, "elsewhere")


def test_data_that_the_state_does_not_describe_is_one_line(refused, run, tmp_path):
    now = {"labels": {"names": ["a"]}, "train": {}, "val": {}}
    for before in ({}, {"labels": 3}, {"labels": {"names": 3}}, {"labels": {"names": ["a"]}}):
        assert "does not say what" in refused(check_same_data, tmp_path, before, now)
    run({**GOOD, "data": {"labels": []}})
    assert "does not say what" in refused(is_resumable, RECIPE, tmp_path, now)
