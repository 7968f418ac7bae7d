"""The devices that a training runs on: several of one host, or those of several hosts."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from pathlib import Path

import keras

from keras_pspnet import private_api
from keras_pspnet.errors import UserError
from keras_pspnet.train.processes import Watch, connect, guarded

_strategies = {}  # by number of devices; a second one would mix up its sums with the first one's


@dataclasses.dataclass(frozen=True)
class Devices:
    """Hold the devices of a training and this process's place among its processes.

    Args:
        number: number of devices, of all processes together.
        process, processes: number of this process, from 0, and how many there are.
        strategy: a tf.distribute.Strategy or a keras.distribution.Distribution; None for one
            device.
    """

    number: int = 1
    process: int = 0
    processes: int = 1
    strategy: object = None

    @property
    def writes(self) -> bool:
        """Whether this process writes the run folder: the first one does."""
        return self.process == 0

    @property
    def part(self) -> tuple[int, int] | None:
        """What part of each batch this process reads, see `pipeline.validation`."""
        return None if self.strategy is None else (self.process, self.processes)

    @property
    def on_cpu(self) -> bool:
        """Whether it is TensorFlow on this machine's processor alone."""
        if self.strategy is not None or keras.backend.backend() != "tensorflow":
            return False
        import tensorflow as tf

        return not tf.config.list_physical_devices("GPU")

    @contextlib.contextmanager
    def scope(self):
        """Build and train models on these devices within the block.

        Raises:
            UserError: another process of the training has ended.
        """
        with contextlib.ExitStack() as stack:
            if self.processes > 1:
                stack.enter_context(guarded())
            if self.strategy is not None:
                stack.enter_context(self.strategy.scope())
            yield

    def watch(self) -> Watch:
        """Begin to watch the other processes, which must do so too."""
        if self.processes == 1:
            return Watch([])
        return Watch(connect(private_api.coordinator().rpartition(":")[0].strip("[]")))

    def built(self, model: keras.Model) -> keras.Model:
        """Return a model whose batch norms take their statistics over all devices.

        The package's do so by themselves; Keras's own, in a backbone, are told to.
        """
        if self.strategy is not None and keras.backend.backend() == "tensorflow":
            for layer in private_api.inner_layers(model):
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.synchronized = True
        return model

    def alone(self, model: keras.Model) -> keras.Model:
        """Return a model that one device of this process runs; a copy where there are several.

        Call it outside of `scope`.
        """
        if self.strategy is None:
            return model
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.keras"
            model.save(path)
            return keras.saving.load_model(path)


def open_devices(asked, batch_size: int) -> Devices:
    """Return the devices that a training runs on.

    Args:
        asked: number of devices of each process, "all", or None: one device, with
            `jax.distributed` all devices of every process.
        batch_size: pictures of a step on all devices together.

    Raises:
        UserError: no such number of devices, TensorFlow or JAX was started with fewer, or the
            batch cannot be divided evenly.
    """
    if asked not in (None, "all") and (type(asked) is not int or asked < 1):
        raise UserError(f"devices={asked!r}; expected a number of devices, or all")
    backend = keras.backend.backend()
    if backend == "jax":
        devices = _of_jax(asked)
    elif asked is None:
        devices = Devices()
    elif backend == "tensorflow":
        devices = _of_tensorflow(asked)
    else:
        raise UserError(f"devices={asked}: not with the Keras backend {backend}; leave it out")
    if batch_size % devices.number:
        raise UserError(
            f"recipe: batch_size={batch_size} is the batch of all {devices.number} devices; "
            f"expected a multiple of {devices.number}, or other devices"
        )
    return devices


def _of_tensorflow(asked) -> Devices:
    import tensorflow as tf

    gpus = len(tf.config.list_physical_devices("GPU"))
    number = (gpus or 1) if asked == "all" else asked
    if number == 1:
        return Devices()
    if gpus and number > gpus:
        raise UserError(f"devices={number}: there are {gpus} GPUs; expected at most {gpus}, or all")
    for before in set(_strategies) - {number}:
        raise UserError(
            f"devices={number}: this process has trained on {before} devices, and TensorFlow keeps "
            "to one number; start another process"
        )
    if number not in _strategies:
        if not gpus:
            _logical_cpus(number)
        names = [f"{'GPU' if gpus else 'CPU'}:{index}" for index in range(number)]
        _strategies[number] = tf.distribute.MirroredStrategy(names)
    return Devices(number, strategy=_strategies[number])


def _logical_cpus(number: int) -> None:
    """Divide TensorFlow's CPU into logical devices, for trying."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    with contextlib.suppress(RuntimeError):  # TensorFlow has started
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * number
        )
    if len(tf.config.list_logical_devices("CPU")) < number:
        raise UserError(
            f"devices={number}: TensorFlow has started with fewer devices; call train.fit before "
            "anything that computes with TensorFlow"
        )


def _of_jax(asked) -> Devices:
    import jax
    import tensorflow as tf

    with contextlib.suppress(RuntimeError):  # TensorFlow has started; it only feeds JAX
        tf.config.set_visible_devices([], "GPU")
    if type(asked) is int:
        with contextlib.suppress(RuntimeError):  # JAX has started
            jax.config.update("jax_num_cpu_devices", asked)
    processes, local = jax.process_count(), len(jax.local_devices())
    each = asked
    if asked is None:
        each = 1 if processes == 1 else local
    elif asked == "all":
        each = local
    if each > local:
        raise UserError(f"devices={each}: there are {local}; expected at most {local}, or all")
    if each == processes == 1:
        return Devices()
    names = []
    for process in range(processes):
        own = [device for device in jax.devices() if device.process_index == process]
        names += [f"{device.platform}:{device.id}" for device in own[:each]]
    distribution = keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)
    return Devices(len(names), jax.process_index(), processes, distribution)
