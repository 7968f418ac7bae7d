"""Training on several devices. `make verify` tries 4 of them, two processes, and kills."""

import io
import os
import socket
import subprocess
import sys
import threading
import zipfile

import h5py
import numpy as np
import pytest

from keras_pspnet import cli
from keras_pspnet.data import pipeline
from keras_pspnet.data.datasets import open_source
from keras_pspnet.network.losses import VoidCrossentropy
from keras_pspnet.train import processes, recipes
from keras_pspnet.train.devices import open_devices
from keras_pspnet.train.run import fit

# No dropout, and a rate so small that a rounding at a ReLU does not grow from step to step.
RECIPE = recipes.recipe(
    "scenes_tiny",
    crop=(49, 49),
    channels=8,
    dropout=0.0,
    learning_rate=5e-5,
    batch_size=4,
    train_images=9,
    val_images=2,
    epochs=1,
    jaccard=0.5,
    checkpoint_seconds=0,
)
LOSSES = [
    {},
    {"class_weights": [0.5, 1.0, 2.0]},
    {"ohem_threshold": 0.3},
    {"ohem_threshold": 1e-4},
    {"jaccard": 0.5},
    {"dice": 0.5},
    {"focal": 2.0},
    {"class_weights": [3.0, 1.0, 2.0], "ohem_threshold": 0.6, "jaccard": 1.0, "dice": 1.0},
]

TWO_DEVICES = """
import sys
import keras
import numpy as np
import tensorflow as tf
from keras_pspnet.network.losses import VoidCrossentropy
from keras_pspnet.train.devices import open_devices
from keras_pspnet.train.recipe_fields import Recipe
from keras_pspnet.train.run import fit

out, losses, config = sys.argv[1], eval(sys.argv[2]), eval(sys.argv[3])
model = fit(Recipe(**config), out, devices=2)
assert model.predict_on_batch(np.zeros((1, 49, 49, 3)))["main"].shape == (1, 49, 49, 12)

given = np.load(out + ".npz")
logits, masks = given["logits"], given["masks"]
strategy = open_devices(2, 4).strategy
results = {}

def halves(array):
    return strategy.experimental_distribute_values_from_function(
        lambda replica: tf.constant(np.split(array, 2)[replica.replica_id_in_sync_group])
    )

for index, arguments in enumerate(losses):
    loss = VoidCrossentropy(**arguments)

    def step(logits, masks):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(masks, logits)
        return value, tape.gradient(value, logits)

    value, slope = map(
        strategy.experimental_local_results, strategy.run(step, (halves(logits), halves(masks)))
    )
    results[f"{index}_loss"], results[f"{index}_slope"] = sum(value), np.concatenate(slope)

with strategy.scope():
    image = keras.Input(logits.shape[1:])
    model = keras.Model(image, keras.layers.Dense(3, kernel_initializer="identity")(image))
    model.compile(keras.optimizers.SGD(1.0), VoidCrossentropy(**losses[-1]))
data = tf.data.Dataset.from_tensor_slices((logits, masks)).batch(4)
results["fit_loss"] = model.fit(data, verbose=0).history["loss"]
results["kernel"], results["bias"] = model.get_weights()
np.savez(out + "_results.npz", **results)
"""


def weights(run):
    with zipfile.ZipFile(run / "last.keras") as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    found = {}
    with h5py.File(content, "r") as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


@pytest.fixture(scope="module")
def on_two(tmp_path_factory):
    """A run on two devices, and there every loss by its logits."""
    out = tmp_path_factory.mktemp("two") / "run"
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4, 7, 5, 3)).astype(np.float32)
    masks = rng.integers(0, 3, (4, 7, 5)).astype(np.uint8)
    masks[0], masks[1, 2:], masks[3, :, 1] = 255, 255, 255  # nearly all void is on one device
    np.savez(f"{out}.npz", logits=logits, masks=masks)
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES, str(out), repr(LOSSES), repr(RECIPE.to_config())],
        env={**os.environ, "TF_NUM_INTEROP_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return out, logits, masks, np.load(f"{out}_results.npz")


def test_two_devices_end_where_one_does(on_two, tmp_path):
    fit(RECIPE, tmp_path)
    one, two = weights(tmp_path), weights(on_two[0])
    assert set(one) == set(two)
    for name, value in one.items():
        scale = max(1.0, np.abs(value).max(initial=0.0))
        np.testing.assert_allclose(two[name], value, rtol=0, atol=1e-5 * scale, err_msg=name)
    assert {path.name for path in on_two[0].iterdir()} == {p.name for p in tmp_path.iterdir()}


@pytest.mark.parametrize("index", range(len(LOSSES)))
def test_a_loss_counts_over_the_batch_of_all_devices(on_two, index):
    import tensorflow as tf

    _, logits, masks, results = on_two
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = VoidCrossentropy(**LOSSES[index])(masks, logits)
    assert results[f"{index}_loss"] == pytest.approx(float(value), rel=1e-5)
    slope = tape.gradient(value, logits).numpy()
    np.testing.assert_allclose(results[f"{index}_slope"], slope, atol=1e-7)
    assert np.abs(slope).max() > 1e-3


def test_plain_fit_under_a_strategy_counts_likewise(on_two):
    import keras

    _, logits, masks, results = on_two
    image = keras.Input(logits.shape[1:])
    model = keras.Model(image, keras.layers.Dense(3, kernel_initializer="identity")(image))
    model.compile(keras.optimizers.SGD(1.0), VoidCrossentropy(**LOSSES[-1]))
    assert results["fit_loss"] == pytest.approx(model.train_on_batch(logits, masks), rel=1e-5)
    kernel, bias = model.get_weights()
    np.testing.assert_allclose(results["kernel"], kernel, atol=1e-6)
    np.testing.assert_allclose(results["bias"], bias, atol=1e-6)
    assert np.abs(kernel - np.eye(3)).max() > 1e-3


# --- what each process reads ---


def arrays(dataset):
    return [(images.numpy(), masks["main"].numpy()) for images, masks in dataset]


def test_the_parts_of_the_processes_make_the_batches():
    source = open_source("scenes", split="train", size=(33, 33)).first(9)
    given = {"crop": (33, 33), "batch_size": 4, "augmentation": None, "seed": 3}
    whole = arrays(pipeline.training_steps(source, 1, 4, **given))
    parts = [arrays(pipeline.training_steps(source, 1, 4, **given, part=(i, 2))) for i in (0, 1)]
    assert len(whole) == 3
    for batch, *halves in zip(whole, *parts, strict=True):
        for array, *pieces in zip(batch, *halves):
            np.testing.assert_array_equal(np.concatenate(pieces), array)


def test_a_validation_in_parts_sees_every_picture_once_and_is_filled_up_with_void():
    source = open_source("scenes", split="val", size=(33, 33)).first(6)
    whole = arrays(pipeline.validation(source, (33, 33), 4))
    assert [len(masks) for _, masks in whole] == [4, 2]
    parts = [arrays(pipeline.validation(source, (33, 33), 4, part=(i, 2))) for i in (0, 1)]
    filled = [np.concatenate([half[1] for half in halves]) for halves in zip(*parts, strict=True)]
    np.testing.assert_array_equal(filled[0], whole[0][1])
    np.testing.assert_array_equal(filled[1][:2], whole[1][1])
    assert [len(masks) for masks in filled] == [4, 4] and (filled[1][2:] == 255).all()


# --- what is refused ---


def test_devices_that_cannot_be_are_refused(refused):
    assert "expected a number of devices, or all" in refused(open_devices, 0, 4)
    assert "expected a number of devices, or all" in refused(open_devices, "two", 4)
    assert "TensorFlow has started with fewer" in refused(open_devices, 64, 64)
    assert open_devices(None, 3).number == open_devices("all", 3).number == 1


def test_a_batch_that_cannot_be_divided_is_refused(refused, monkeypatch):
    from keras_pspnet.train import devices

    monkeypatch.setattr(devices, "_of_tensorflow", lambda asked: devices.Devices(asked))
    assert devices.open_devices(2, 4).number == 2
    message = refused(devices.open_devices, 3, 4)
    assert "batch_size=4" in message and "a multiple of 3" in message


@pytest.mark.parametrize("devices", ["0", "two", "-1", "1.5"])
def test_a_wrong_number_of_devices_is_one_line(devices, capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "scenes", "--out", str(tmp_path / "a"), "--devices", devices])
    assert ended.value.code == 2 and "a number of devices or all" in capsys.readouterr().err


# --- which process this is ---

STEP = {
    "SLURM_JOB_ID": "4097",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "2",
    "SLURM_STEP_NODELIST": "gpu[007-009,12],other3",
}


@pytest.fixture
def environment(monkeypatch):
    for name in (*STEP, "KERAS_BACKEND"):
        monkeypatch.delenv(name, raising=False)

    def change(**variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return change


def test_a_training_in_one_process_stays_one(environment):
    assert processes.read_processes() is None
    assert processes.read_processes(processes=1) is None
    environment(**STEP)  # many trainings at once, on TensorFlow
    assert processes.read_processes() is None
    environment(KERAS_BACKEND="jax", SLURM_STEP_NUM_TASKS="1")
    assert processes.read_processes() is None


def test_processes_are_given_or_taken_from_slurm(environment):
    given = processes.Processes("10.0.0.1:1234", 2, 0)
    assert processes.read_processes("10.0.0.1:1234", 2, 0) == given
    environment(KERAS_BACKEND="jax", **STEP)
    assert processes.read_processes() == processes.Processes("gpu007:61441", 4, 2)
    assert processes.read_processes("a:1") == processes.Processes("a:1", 4, 2)
    environment(SLURM_STEP_NODELIST="node1,node4")
    assert processes.read_processes() == processes.Processes("node1:61441", 4, 2)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (("10.0.0.1:1234", 2, None), "give all three"),
        ((None, 2, 0), "give all three"),
        (("10.0.0.1", 2, 0), "expected HOST:PORT"),
        (("10.0.0.1:1234", 2, 2), "expected a number from 0 to 1"),
        (("10.0.0.1:1234", 2, -1), "expected a number from 0 to 1"),
        (("10.0.0.1:1234", 0, 0), "expected at least 1"),
    ],
)
def test_processes_that_cannot_be_are_refused(given, reason, environment, refused):
    assert reason in refused(processes.read_processes, *given)


def test_several_processes_need_jax(environment, refused, capsys, tmp_path):
    environment(KERAS_BACKEND="tensorflow")
    given = ("10.0.0.1:1234", 2, 0)
    assert "needs KERAS_BACKEND=jax" in refused(processes.read_processes, *given)
    words = ["--coordinator", "10.0.0.1:1234", "--processes", "2", "--process", "0"]
    assert cli.main(["train", "scenes", "--out", str(tmp_path / "a"), *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "a").exists()


# --- one ends, all end ---


@pytest.fixture
def watched(monkeypatch):
    """A watch of another process, the socket of that one, and the exit codes of this one."""
    codes, ended = [], threading.Event()

    def leave(code):
        codes.append(code)
        watch.peers = []  # its thread ends, as the process would
        ended.set()

    monkeypatch.setattr(processes.os, "_exit", leave)
    server = socket.create_server(("127.0.0.1", 0))
    other = socket.create_connection(server.getsockname())
    peer, _ = server.accept()
    watch = processes.Watch([peer])
    yield watch, other, codes, ended
    watch.close()
    other.close()
    server.close()


def test_a_process_ends_when_another_one_does(watched, capfd):
    _, other, codes, ended = watched
    other.close()
    assert ended.wait(10) and codes == [2]
    line = capfd.readouterr().err
    assert line.count("\n") == 1 and "another process of this training has ended" in line


def test_a_process_that_is_done_may_end(watched):
    watch, other, codes, ended = watched
    other.sendall(processes.DONE)
    other.close()
    watch.done()
    assert not ended.wait(0.5) and codes == []


def test_a_process_that_fails_lets_the_others_know(watched):
    watch, other, codes, ended = watched
    watch.close()
    other.settimeout(10)
    assert other.recv(1) == b"" and not ended.wait(0.5) and codes == []
