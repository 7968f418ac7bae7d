"""How the command line treats its arguments, its process and errors."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import keras_pspnet
from keras_pspnet import cli
from keras_pspnet.cli import commands, evaluation
from keras_pspnet.errors import UserError


def raises(error):
    def call(_):
        raise error

    return call


def given(monkeypatch, *arguments):
    """The recipe and the options with which `train` would begin."""
    kept = {}

    def stop(recipe, *_):
        kept["recipe"] = recipe
        raise UserError("enough")

    monkeypatch.setattr("keras_pspnet.train.run_folder.check_run", stop)
    assert cli.main(["train", *arguments]) == 2
    return kept["recipe"]


def test_settings_may_be_repeated_and_the_last_one_counts(monkeypatch, tmp_path):
    settings = ["--set", "epochs=3", "crop=65,65", "--out", str(tmp_path), "--set", "epochs=4"]
    recipe = given(monkeypatch, "scenes", *settings)
    assert (recipe.epochs, recipe.crop) == (4, (65, 65))
    # argparse gives --set everything up to the next option.
    recipe = given(monkeypatch, "--set", "epochs=3", "--out", str(tmp_path), "scenes")
    assert recipe.epochs == 3


@pytest.mark.parametrize("setting", ["scenes", "epochs"])
def test_a_recipe_behind_set_is_one_clear_line(capsys, tmp_path, setting):
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "--out", str(tmp_path), "--set", "epochs=4", setting])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1
    assert f"--set: expected FIELD=VALUE, not '{setting}'; RECIPE comes first" in error


def test_errors_of_the_user_are_one_line(capsys):
    assert cli.run("program", raises(UserError("a\n  b")), None) == 2
    assert capsys.readouterr().err == "program: a b\n"
    assert cli.run("program", lambda _: Path("nowhere/file").read_text(), None) == 2
    assert capsys.readouterr().err == (
        "program: nowhere/file: cannot be used: No such file or directory\n"
    )
    assert cli.run("program", raises(OSError(errno.ENOSPC, "No space left on device")), None) == 2
    assert capsys.readouterr().err == "program: a file: cannot be used: No space left on device\n"
    assert cli.run("program", lambda _: json.loads("[" * 100_000), None) == 2
    assert capsys.readouterr().err == "program: a JSON file is nested too deeply\n"
    assert cli.run("program", raises(KeyboardInterrupt), None) == 130


def recurse(_):
    return recurse(_)


@pytest.mark.parametrize(
    "call", [raises(OSError("of no file")), recurse, raises(ValueError("a bug"))]
)
def test_a_bug_of_ours_keeps_its_traceback(call):
    with pytest.raises((OSError, RecursionError, ValueError)):
        cli.run("program", call, None)


@pytest.mark.parametrize("arguments", [["--traceback", "look"], ["look", "--traceback"], ["look"]])
def test_the_traceback_is_shown_where_it_is_asked_for(capsys, arguments):
    assert cli.main([*arguments, "--dataset", "nowhere"]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith("keras-pspnet: dataset 'nowhere' is not known")
    shown = "Traceback (most recent call last)" in error and "inspect_dataset" in error
    assert shown == ("--traceback" in arguments) and (shown or error.count("\n") == 1)


def test_the_traceback_is_in_the_help(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert "--traceback" in capsys.readouterr().out


def test_sigterm_is_ctrl_c_while_a_command_runs_and_the_callers_handler_returns():
    calls = []
    before = signal.signal(signal.SIGTERM, lambda *_: calls.append("the caller's"))
    try:
        stopped = cli.run("program", lambda _: os.kill(os.getpid(), signal.SIGTERM), None)
        assert stopped == 130 and not calls
        os.kill(os.getpid(), signal.SIGTERM)
        assert calls == ["the caller's"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_command_runs_in_another_thread():
    codes = []
    thread = threading.Thread(target=lambda: codes.append(cli.run("program", len, "")))
    thread.start()
    thread.join()
    assert codes == [0]


@pytest.mark.parametrize("module", ["keras_pspnet", "keras_pspnet.cli"])
def test_the_package_is_the_command(module):
    command = [sys.executable, "-P", "-m", module, "--version"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{keras_pspnet.__version__}\n" == "0.2.0\n"


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ([], (None, None, (1.0,), False)),
        (["--flip"], (None, None, (1.0,), True)),
        (["--crop", "65", "97", "--scales", "0.5,1"], ((65, 97), 2048, (0.5, 1.0), False)),
        (["--crop", "65", "97", "--base", "300"], ((65, 97), 300, (1.0,), False)),
    ],
)
def test_the_protocol_of_the_options(monkeypatch, arguments, expected):
    kept = []
    monkeypatch.setattr(commands, "evaluate", kept.append)
    assert cli.main(["evaluate", "model", "--dataset", "cityscapes", *arguments]) == 0
    protocol = evaluation.protocol_of(kept[0])
    assert (protocol.crop, protocol.base, protocol.scales, protocol.flip) == expected


@pytest.mark.parametrize("scales, says", [("0.5", "give --crop"), ("a", "expected numbers")])
def test_wrong_scales(monkeypatch, refused, scales, says):
    kept = []
    monkeypatch.setattr(commands, "evaluate", kept.append)
    assert cli.main(["evaluate", "model", "--dataset", "voc2012", "--scales", scales]) == 0
    assert says in refused(evaluation.protocol_of, kept[0])
