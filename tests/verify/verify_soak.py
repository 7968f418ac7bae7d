"""The thorough tier's check that memory stays flat over thousands of calls."""

import concurrent.futures
import http.client
import json
import os
import subprocess
import sys

import numpy as np
from shell import ROOT, run
from soak import FILES, SIDE, Samples

CALLS = {"reload": 500, "steps": 3000, "segment": 3000, "requests": 10_000}

MORE = 8
"""Threads or files that may be open beside others by chance; a leak of one each epoch is 16."""

GROWTH = {"reload": 300, "steps": 30, "segment": 40, "requests": 10}
"""MiB that may be gained over the last two thirds of the calls. One network, batch, picture or kB
kept at each call would be 2800, 110, 100 and 7 there. Each reload of a file that TensorFlow runs
keeps 1 to 2 MiB in no Python object; why is not known."""

MODELS = f"""
import pathlib, sys
import keras_pspnet
folder = pathlib.Path(sys.argv[1])
network = {{"backbone": "resnet14_narrow", "channels": 8, "output_stride": 16}}
keras_pspnet.build_pspnet(3, input_shape=(None, None, 3), **network).save(folder / {FILES[0]!r})
model = keras_pspnet.build_pspnet(3, input_shape=({SIDE}, {SIDE}, 3), **network)
formats = ("saved_model", "float32", "onnx")
keras_pspnet.export_model(model, folder, formats=formats, output="logits")
"""


def soak(folder):
    """Thousands of steps, pictures, reloads and requests: memory stays flat, no file is left."""
    (folder / "models").mkdir()
    run(sys.executable, "-c", MODELS, folder / "models")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:  # two processes at a time
        found = dict(zip(CALLS, pool.map(lambda part: measured(folder, part), CALLS)))
    left = [path for path in (folder / "run").iterdir() if path.name.startswith(".")]
    # LiteRT itself keeps a file .ses in the folder for temporary files.
    left += [path for part in CALLS for path in (folder / part).iterdir() if path.name != ".ses"]
    assert not left, left
    for part, result in found.items():
        assert result["MiB_growth"] <= GROWTH[part], (part, found)
        for name in ("threads", "open_files"):
            before, after = result[name]
            assert after <= before + MORE, (part, name, found)
    return found


def measured(folder, part):
    """Run a part in a process of its own; its temporary files go into the folder of its name."""
    models, temporary = folder / "models", folder / part
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary), "TF_NUM_INTEROP_THREADS": "1"}
    if part == "requests":
        return growth(requests(folder, models / FILES[2], environment))
    command = [sys.executable, ROOT / "tests" / "verify" / "soak.py", part]
    said = run(*command, models, folder / "run", CALLS[part], env=environment)
    return growth(json.loads(said.splitlines()[-1]))


def growth(samples) -> dict:
    """Return how resident memory grows once a third of the calls has warmed the process up.

    MiB_growth is the slope, by least squares, times the calls after the first third. Of threads
    and open files the maxima are given: of the second third, and of the last.
    """
    third = len(samples) // 3
    call, mib, threads, files = np.array(samples[third:]).T
    slope = np.polyfit(call, mib, 1)[0]
    thirds = [[int(of[:third].max()), int(of[third:].max())] for of in (threads, files)]
    return {
        "calls": samples[-1][0],
        "MiB_after_a_third": round(mib[0]),
        "MiB_at_the_end": round(mib[-1]),
        "MiB_growth": round(float(slope * (call[-1] - call[0])), 1),
        "threads": thirds[0],
        "open_files": thirds[1],
    }


def requests(folder, model, environment):
    """Ask export/web/serve.py for its files; return what was measured, see `Samples`."""
    sys.path.insert(0, str(ROOT / "export" / "web"))
    from serve import CACHE, PACKAGES

    home = folder / "home"  # holds packages as if they were downloaded: no browser runs them
    for name in PACKAGES:
        package = home / CACHE.relative_to(os.path.expanduser("~")) / name
        package.mkdir(parents=True)
        (package / "package.json").write_text("{}")
    command = [sys.executable, ROOT / "export" / "web" / "serve.py", model, "--port", "0"]
    environment = {**environment, "HOME": str(home)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as server:
        try:
            port = int(server.stdout.readline().split("/")[2].split(":")[1])
            samples = ask(port, Samples(CALLS["requests"], server.pid))
        finally:
            server.terminate()
            said = server.communicate()[1]
    assert server.returncode == 130 and said == "serve.py: interrupted\n", said[-2000:]
    return samples


def ask(port, samples):
    paths = ("/", "/app.js", "/model.json?x=1", "/model.tflite", "/litert/core/package.json")
    answers = {path: 200 for path in paths} | {"/../serve.py": 404, "/nothing": 404}

    def one(number):
        path = list(answers)[number % len(answers)]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        connection.request("GET", path)
        if number % 10:
            answer = connection.getresponse()
            assert answer.status == answers[path], (path, answer.status)
            answer.read()
        connection.close()  # of each tenth unread, as by a page that is closed

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in pool.map(one, range(samples.calls)):
            samples.after_a_call()
    return samples
