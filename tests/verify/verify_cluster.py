"""The thorough tier's check of export/cluster/segment_ray.py on Ray."""

import contextlib
import os
import socket
import subprocess
import sys
import time

import psutil
import pyarrow
from pyarrow import parquet
from shell import ROOT, environment_with, run
from verify_devices import exported

RAY = ("ray[data]==2.60.0",)
STORE = ("s3fs==2026.9.0", "moto[server]==5.2.5")
PICTURES, BROKEN, SOME = 2000, 3, 60

DRAW = """
import sys
from pathlib import Path
from PIL import Image
from keras_pspnet import scenes
for index in range(int(sys.argv[2])):
    file = Path(sys.argv[1]) / f"day{index % 7}" / f"{index}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scenes.scene(index, split="val", size=(97, 97))[0]).save(file)
"""

UPLOAD = """
import sys
from pathlib import Path
import fsspec
store, files = fsspec.filesystem("s3"), sorted(Path(sys.argv[1]).iterdir())
store.mkdir("bucket")
# With lists fsspec does not guess whether the folder's own name belongs to the paths.
store.put([str(file) for file in files], [f"bucket/photos/{file.name}" for file in files])
"""

DOWNLOAD = """
import sys
import fsspec
fsspec.filesystem("s3").get("bucket/out/", sys.argv[1], recursive=True)
"""

EQUAL = """
import io, sys
from pathlib import Path
import numpy as np
from PIL import Image
from pyarrow import parquet
import keras_pspnet
model, photos, out = keras_pspnet.load_model(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
for row in parquet.read_table(f"{out}/table").to_pylist()[:200]:
    if row["error"] is None:
        classes = np.asarray(Image.open(io.BytesIO(row["classes"])))
        assert np.array_equal(classes, keras_pspnet.segment(model, photos / row["picture"])), row
"""


def cluster(folder):
    """On Ray: 2,000 pictures once each in spite of kills; a Parquet column; an object store.

    TensorFlow and Keras cannot be imported, by the program or by a worker.
    """
    # s3fs needs an older python-dateutil than constraints.txt has.
    python = environment_with(folder / "venv", *RAY, *STORE, constraints=False)
    file, photos = exported() / "classes" / "pspnet_float32.tflite", folder / "photos"
    run(sys.executable, "-c", DRAW, photos, str(PICTURES))
    for index in range(BROKEN):
        (photos / "day3" / f"broken{index}.jpg").write_bytes(b"no picture" * index)
    names = {str(path.relative_to(photos)) for path in photos.rglob("*.*")}
    assert len(names) == PICTURES + BROKEN
    (folder / "blocked").mkdir()
    for name in ("tensorflow", "keras"):
        (folder / "blocked" / f"{name}.py").write_text("raise ImportError('TensorFlow')\n")
    environment = {**os.environ, "PYTHONPATH": f"{folder / 'blocked'}:{ROOT}"}
    command = [python, ROOT / "export" / "cluster" / "segment_ray.py", file]
    result = {"ray": RAY[0], "pictures": len(names)}

    # A worker is killed: Ray starts another, which does the piece again.
    out = folder / "killed worker"
    given = [*command, photos, "--out", out, "--actors", "2"]
    with started(given, environment, folder / "log") as process:
        wait(process, lambda: len(rows(out)) >= 5 and len(workers(process)) == 2)
        first = workers(process)
        first[0].kill()
        killed = time.monotonic()
        wait(process, lambda: len(set(workers(process)) - set(first)) == 1)
        result["seconds_until_a_killed_worker_is_replaced"] = round(time.monotonic() - killed, 1)
        assert process.wait(900) == 0, (folder / "log").read_text()[-2000:]
    assert f"{PICTURES} pictures segmented, {BROKEN} broken" in (folder / "log").read_text()
    once(out, names)
    run(sys.executable, "-c", EQUAL, file, photos, out)

    # A second start has nothing to do, and changes nothing.
    stamps = {path: path.stat().st_mtime_ns for path in rows(out)}
    assert f"{len(names)} done before" in run(*given, env=environment)
    assert stamps == {path: path.stat().st_mtime_ns for path in rows(out)}

    # The program is killed, which ends its workers; a second start does what is left.
    out = folder / "killed program"
    given = [*command, photos, "--out", out, "--actors", "2", "--format", "png"]
    with started(given, environment, folder / "log") as process:
        wait(process, lambda: len(rows(out)) >= 10)
        left = workers(process)
        process.kill()
        psutil.wait_procs(left, timeout=60)
        assert not any(worker.is_running() for worker in left), left
    stamps = {path: path.stat().st_mtime_ns for path in rows(out)}
    done = int(run(*given, env=environment).split(" done before")[0].split()[-1])
    assert 0 < done < len(names)
    result["done_before_the_program_was_killed"] = done
    once(out, names)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    maps = {str(path.relative_to(out / "classes")) for path in out.rglob("*.png")}
    assert maps == {f"{name}.png" for name in names if "broken" not in name}

    # Pictures in a column, and in an object store that a server on this machine plays.
    some = sorted(photos.rglob("*.png"))[:SOME]
    (folder / "tables").mkdir()
    table = pyarrow.table({"image": [path.read_bytes() for path in some]})
    parquet.write_table(table, folder / "tables" / "some.parquet", row_group_size=25)
    given = [*command, folder / "tables", "--column", "image", "--out", folder / "column"]
    run(*given, env=environment)
    once(folder / "column", {f"some.parquet/{n // 25}/{n % 25}" for n in range(SOME)})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment |= {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "a"}
    environment |= {"AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    server = [python, "-m", "moto.server", "-p", port]
    with started(server, os.environ, folder / "server log") as process:
        wait(process, lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        run(python, "-c", UPLOAD, photos / "day0", env=environment)
        given = [*command, "s3://bucket/photos", "--out", "s3://bucket/out"]
        said = run(*given, env=environment)
        count = len(list((photos / "day0").iterdir()))
        assert f"{count} pictures segmented, 0 broken" in said, said
        assert f"{count} done before" in run(*given, env=environment)
        run(python, "-c", DOWNLOAD, folder / "from the store", env=environment)
        process.kill()
    once(folder / "from the store", {path.name for path in (photos / "day0").iterdir()})
    return result


@contextlib.contextmanager
def started(command, environment, log):
    """A process that is killed at the end of the block, with all that it started."""
    with open(log, "w") as file:
        process = subprocess.Popen(
            list(map(str, command)), env=environment, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
            process.kill()
            process.wait()


def wait(process, condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"ended with {process.returncode}"
        assert time.monotonic() < end, "too slow"
        time.sleep(0.05)


def workers(process):
    """The worker processes of a Ray that `process` has started."""
    found = psutil.Process(process.pid).children(recursive=True)
    return [child for child in found if is_worker(child)]


def is_worker(process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()[:1] != [] and "Segmenter" in process.cmdline()[0]
    return False


def rows(out):
    return sorted(out.glob("table/rows-*.parquet"))


def once(out, names):
    """Every picture has one row; the broken ones have a reason and the others a class map."""
    table = parquet.read_table(out / "table")
    found = table["picture"].to_pylist()
    assert len(found) == len(set(found)) == len(names), (len(found), len(set(found)))
    assert set(found) == names
    for name, error in zip(found, table["error"].to_pylist()):
        assert (error is not None) == ("broken" in name), (name, error)
