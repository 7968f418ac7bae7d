"""What `info` and `recipes` print, and the fields in the help of `train`."""

import dataclasses
import json
import platform
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow

import keras_pspnet
from keras_pspnet import cli
from keras_pspnet.cli import devices, info
from keras_pspnet.train.measured import MEASURED
from keras_pspnet.train.recipe_fields import Recipe, field_table
from keras_pspnet.train.recipes import RECIPES

RESULTS = Path(__file__).parent.parent.parent / "benchmarks" / "results"


def printed(capsys):
    assert cli.main(["info"]) == 0
    return [line.split(": ", 1) for line in capsys.readouterr().out.splitlines()]


FAKES = {  # imported by the process that `info` starts, as importing TensorFlow takes seconds
    "tensorflow": """
from types import SimpleNamespace as Space
__version__ = "9.9"
gpu = Space(name="/physical_device:GPU:0")
details = {"device_name": "NVIDIA H100"}
experimental = Space(get_device_details=lambda device: details)
config = Space(list_physical_devices=lambda: [gpu], experimental=experimental)
""",
    "keras": """
from types import SimpleNamespace as Space
__version__ = "9.1"
backend = Space(backend=lambda: "jax")
distribution = Space(list_devices=lambda: ["gpu:0", "gpu:1"])
""",
}


def test_info_prints_what_a_bug_report_needs(capsys, tmp_path, monkeypatch):
    for name, code in FAKES.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = printed(capsys)
    assert found[-4:] == [
        ["TensorFlow", "9.9"],
        ["device", "GPU:0 NVIDIA H100"],
        ["Keras", "9.1, backend jax"],
        ["devices of jax", "gpu:0 gpu:1"],
    ]
    lines = dict(found)
    assert lines["keras_pspnet"] == keras_pspnet.__version__
    assert lines["Python"].startswith(platform.python_version())
    assert lines["numpy"] == np.__version__
    assert re.fullmatch(r"\d+\.\d GB", lines["free memory"]) and int(lines["cores"]) >= 1
    assert re.search(r"tensorflow-datasets \d\S+ \(datasets\)", lines["extras"])
    assert "pytest" not in lines["extras"]


def test_the_devices_are_those_of_tensorflow(capsys):
    devices.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"TensorFlow: {tensorflow.__version__}" and "device: CPU:0" in lines
    assert lines[-1] == f"Keras: {keras.__version__}, backend tensorflow"


@pytest.mark.parametrize(
    "code, says",
    [
        ("raise ModuleNotFoundError(\"No module named 'tensorflow'\")", "No module named"),
        ("try: int('x')\nexcept ValueError: raise ImportError('long\\ntext')", "invalid literal"),
        ("import os\nos.kill(os.getpid(), 4)", "its process ended with SIGILL"),
        ("import os\nos._exit(3)", "its process ended with exit code 3"),
        ("import time\ntime.sleep(60)", "it is not imported within 0.5 s"),
    ],
)
def test_info_says_in_one_line_why_tensorflow_does_not_work(
    capsys, tmp_path, monkeypatch, code, says
):
    (tmp_path / "tensorflow.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    if "sleep" in code:
        monkeypatch.setattr(info, "SECONDS", 0.5)
    *others, (name, reason) = printed(capsys)
    assert name == "TensorFlow" and reason.startswith("does not work: ") and says in reason
    assert [row[0] for row in others][-2:] == ["ai-edge-litert", "extras"]


def test_the_help_of_train_lists_every_field_with_default_meaning_and_range(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    text = capsys.readouterr().out.partition("fields of --set")[2]
    assert max(map(len, text.splitlines())) <= 98
    words = " ".join(text.split())
    for field, (name, default, meaning, limits) in zip(dataclasses.fields(Recipe), field_table()):
        assert name == field.name and len(meaning) > 10 and bool(limits) == bool(field.metadata)
        said = f"{meaning} ({limits})" if limits else meaning
        assert f"{name}{'=' * bool(default)}{default} {said}" in words
    assert "epochs=100 how often each training picture is seen (int from 1 to 1000000)" in words
    assert "(one of 8, 16, 32)" in words and "crop=473,473 height and width" in words


def test_recipes_are_listed_with_what_was_measured(capsys):
    assert cli.main(["recipes"]) == 0
    head, *rows, _, _ = capsys.readouterr().out.splitlines()
    cells = {row[0]: row for row in (re.split(r"\s{2,}", line) for line in rows)}
    assert head.split() == ["recipe", "data", "size", "backbone", "epochs", "cost", "mIoU"]
    assert list(cells) == list(RECIPES)
    assert cells["camvid_lite0"][1:] == [
        "camvid", "369x481", "efficientnet_lite0", "36", "156 minutes", "0.703",
    ]  # fmt: skip
    assert cells["ade20k_resnet101"][-2:] == ["-", "-"]


def test_what_was_measured_is_in_the_results():
    def read(name):
        return json.loads((RESULTS / f"{name}.json").read_text())

    camvid = read("camvid")["runs"]["camvid"]
    scores = {"camvid_lite0": camvid["mIoU"]}
    scores["scenes"] = read("pyramid")["variants"]["with the pyramid"]["mIoU"]
    for name, network in read("mobile")["networks"].items():
        if network["mIoU"]:  # it was trained
            scores[name] = network["mIoU"]["keras"]
    measured = {name: score for name, (_, score) in MEASURED.items() if score is not None}
    assert measured == {name: round(score, 3) for name, score in scores.items() if name in RECIPES}
    assert set(MEASURED) <= set(RECIPES) and len(measured) == 8
    assert MEASURED["camvid_lite0"][0] == f"{camvid['minutes']:.0f} minutes"
    (steps,) = (v for k, v in read("training_steps")["networks"].items() if "185x185" in k)
    assert MEASURED["scenes"][0] == f"{steps['seconds_a_step']['keras_pspnet']:.2f} s a step"
