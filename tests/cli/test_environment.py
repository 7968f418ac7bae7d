"""The user's system: consoles of any encoding, packages that are half there, temporary files."""

import io
import json
import logging
import os
import signal
import sys
import tempfile

import pytest
from shell import COMMAND, call

import keras_pspnet
from keras_pspnet import cli
from keras_pspnet.cli import quiet


def test_any_console_takes_any_name(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="cp1252"))
    assert cli.run("program", lambda _: print("Boden, 树", flush=True), None) == 0
    assert written.getvalue().strip() == b"Boden, \\u6811"


def test_scores_are_in_their_file_when_they_cannot_be_printed(model, data, tmp_path, monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            if "mIoU" in text:
                raise OSError(28, "No space left on device")
            return len(text)

    file = tmp_path / "scores.json"
    command = ["evaluate", str(model / "pspnet_float32.tflite"), "--dataset", "folder"]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Full())
        assert cli.main([*command, "--data-dir", str(data), "--json", str(file)]) == 2
    assert json.loads(file.read_text())["images"] == 2


@pytest.mark.parametrize(
    "name, error",
    [("rich", ModuleNotFoundError("No module named 'rich'", name="rich")),
     ("PIL", ImportError("cannot import name '_imaging' from 'PIL'", name="PIL"))],
)  # fmt: skip
def test_a_package_that_is_not_whole_is_one_line_with_its_remedy(capsys, name, error):
    def call(_):
        raise error

    assert cli.run("program", call, None) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"program: {name} is missing or half-installed ({error})")
    remedy = {"rich": "rich", "PIL": "pillow"}[name]
    assert said.endswith(f"run: pip install --force-reinstall {remedy}\n")


def test_our_own_import_errors_are_defects():
    def call(_):
        from keras_pspnet.files import nothing_of_the_kind  # noqa: F401

    with pytest.raises(ImportError):
        cli.run("program", call, None)


def test_a_file_whose_runtime_is_missing_says_so(model, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    message = refused(keras_pspnet.load_model, model / "pspnet_float32.tflite")
    assert "ai_edge_litert is missing" in message and message.endswith("ai-edge-litert")


@pytest.mark.parametrize(
    "backend, where, said",
    [("nonsense", "KERAS_BACKEND", "does not exist"), ("torch", "keras.json", "is not installed")],
)
def test_a_backend_that_is_not_there_is_one_line(
    monkeypatch, capsys, tmp_path, backend, where, said
):
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    if where == "KERAS_BACKEND":
        monkeypatch.setenv("KERAS_BACKEND", backend)
    else:
        (tmp_path / "keras.json").write_text(json.dumps({"backend": backend}))
        monkeypatch.setattr(quiet.importlib.util, "find_spec", lambda name: None)
    out = tmp_path / "run"
    assert cli.main(["train", "scenes_tiny", "--out", str(out)]) == 2
    line = capsys.readouterr().err
    assert f"Keras's backend is {backend} (" in line and where in line and said in line
    assert line.endswith("set KERAS_BACKEND=tensorflow\n") and not out.exists()


def test_a_new_training_asks_for_the_backend_before_it_imports_keras(tmp_path):
    command = [*COMMAND, "train", "scenes_tiny", "--out", tmp_path / "run"]
    done = call(*command, env={**os.environ, "KERAS_BACKEND": "nonsense"})
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "Keras's backend is nonsense (KERAS_BACKEND)" in done.stderr


@pytest.mark.parametrize("end", ["done", "terminated", "hung up"])
def test_temporary_files_go_when_a_command_ends(tmp_path, monkeypatch, end):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("TMPDIR", raising=False)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup

    def call(_):
        number, name = tempfile.mkstemp()  # as TensorFlow's autograph does, which leaves it
        os.close(number)
        assert os.path.dirname(name) == os.environ["TMPDIR"] != str(tmp_path)
        if end != "done":
            os.kill(os.getpid(), signal.SIGTERM if end == "terminated" else signal.SIGHUP)

    try:
        assert cli.run("program", call, None) == (0 if end == "done" else 130)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert not list(tmp_path.iterdir())
    assert tempfile.gettempdir() == str(tmp_path) and "TMPDIR" not in os.environ


def test_who_ignores_a_hang_up_as_nohup_does_goes_on():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert cli.run("program", lambda _: os.kill(os.getpid(), signal.SIGHUP), None) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_tensorflow_logs_of_damaged_files_is_hidden(capfd):
    quiet.quiet_tensorflow()
    logging.getLogger("absl").error("Fingerprint was found, but")
    assert not capfd.readouterr().err
