"""How the files of models, checkpoints and runs are damaged, and what reads them.

Each function takes (random, base, folder), writes a damaged file into the folder and returns what
reads it: a function without arguments that returns the exit code.
"""

import functools
import importlib.util
import io
import json
import shutil
import zipfile

import mutate
import mutate_schema
import numpy as np
from shell import ROOT

CHECKPOINTS = ROOT / "tests" / "weights" / "checkpoints"

SETTINGS = [
    "crop=49,49",
    "channels=8",
    "batch_size=4",
    "train_images=4",
    "val_images=1",
    "epochs=1",
]
"""A run of one short step."""


def command(*arguments):
    from keras_pspnet.cli import main

    return functools.partial(main, list(map(str, arguments)))


def called(read, path):
    """What calls a function of the package as a command does."""
    from keras_pspnet import cli

    return functools.partial(cli.run, "mutations", read, path)


def predict(base, model, picture=None):
    return command("predict", model, picture or base / "picture.png", "--out", "out")


def damaged_tflite(random, base):
    """A .tflite file with a changed flatbuffer, labels or bytes."""
    from ai_edge_litert import schema_py_generated as schema

    data = (base / "out" / f"pspnet_{random.choice(('float32', 'int8'))}.tflite").read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        config = archive.read("labels.json")
        tree = data[: min(entry.header_offset for entry in archive.infolist())]
    way = random.random()
    if way < 0.1:
        return mutate.damaged_bytes(random, data)
    if way < 0.35:
        config = mutate.damaged_text(random, config)
    else:
        model = schema.ModelT.InitFromPackedBuf(bytearray(tree), 0)
        mutate_schema.damaged_tree(random, model)
        tree = _packed(model)
    stream = io.BytesIO(tree)
    stream.seek(0, io.SEEK_END)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("labels.json", config)
    return stream.getvalue()


def _packed(model):
    import flatbuffers

    builder = flatbuffers.Builder(2**22)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def tflite(random, base, folder):
    path = folder / "model.tflite"
    path.write_bytes(_made(damaged_tflite, random, base))
    return predict(base, path)


def _made(make, random, base):
    """What a schema can write: the builders refuse numbers that a field cannot hold."""
    while True:
        try:
            return make(random, base)
        except Exception:  # the flatbuffer library raises anything
            continue


def on_device(random, base, folder):
    path = folder / "model.tflite"
    path.write_bytes(_made(damaged_tflite, random, base))
    source = ROOT / "export" / "on_device" / "segment.py"
    spec = importlib.util.spec_from_file_location("segment", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arguments = [str(path), str(base / "picture.png"), "--out", "out"]
    return functools.partial(module.main, arguments)


def onnx(random, base, folder):
    import onnx

    path, data = folder / "model.onnx", (base / "out" / "pspnet.onnx").read_bytes()
    if random.random() < 0.15:
        data = mutate.damaged_bytes(random, data)
    else:
        model = onnx.load_from_string(data)
        mutate_schema.damaged_message(random, model)
        data = model.SerializeToString()
    path.write_bytes(data)
    return predict(base, path)


def checkpoint(*names):
    """A reader of one of these checkpoints of other projects, without the network's building."""

    def damage(random, base, folder):
        from keras_pspnet.weights.reader import read_checkpoint
        from keras_pspnet.weights.recognise import recognise

        name = random.choice(names)
        path = folder / name
        damaged_checkpoint(random, path, (CHECKPOINTS / name).read_bytes())
        return called(lambda path: recognise(read_checkpoint(path), path), path)

    return damage


def damaged_checkpoint(random, path, data):
    if random.random() < 0.25:
        data = mutate.damaged_bytes(random, data)
    elif path.suffix == ".safetensors":
        length = 8 + int.from_bytes(data[:8], "little")
        header = mutate.damaged_text(random, data[8:length])
        data = len(header).to_bytes(8, "little") + header + data[length:]
    elif path.suffix == ".h5":
        path.write_bytes(data)
        mutate.damage_hdf5(random, path)
        return
    elif path.suffix == ".npy":
        start = 10 + int.from_bytes(data[8:10], "little")
        data = data[:start] + mutate_schema.damaged_pickle(random, data[start:])
    elif "legacy" in path.name:
        begin = mutate_schema.pickle_ends(data, 3)
        end = mutate_schema.pickle_ends(data, 4)
        data = data[:begin] + mutate_schema.damaged_pickle(random, data[begin:end]) + data[end:]
    else:
        data = mutate.damaged_zip(random, data, _in_a_pth)
    path.write_bytes(data)


def _in_a_pth(random, name, content):
    if name.endswith("data.pkl"):
        return mutate_schema.damaged_pickle(random, content)
    return mutate.damaged_bytes(random, content)


PLOT = {"module": "keras.utils", "class_name": "function", "registered_name": "plot_model"}
HOSTILE = (
    PLOT | {"config": "plot_model"},
    PLOT | {"module": "keras.ops", "config": "while_loop", "registered_name": "while_loop"},
    PLOT | {"module": "keras.config", "config": "set_backend", "registered_name": "set_backend"},
    {"module": "keras.layers", "class_name": "Lambda", "config": {"function": "x"}},
    {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"},
    {"class_name": "__lambda__", "config": {"value": ["4wAA", None, None]}},
)
"""What no configuration of a network holds."""


def keras(random, base, folder):
    path = folder / "model.keras"
    path.write_bytes(damaged_keras(random, (base / "run" / "best.keras").read_bytes()))
    return predict(base, path)


def damaged_keras(random, data):
    if random.random() < 0.1:
        return mutate.damaged_bytes(random, data)
    return mutate.damaged_zip(random, data, _in_a_keras_file)


def _in_a_keras_file(random, name, content):
    if not name.endswith(".json"):
        return mutate.damaged_bytes(random, content)
    if name != "config.json" or random.random() < 0.6:
        return mutate.damaged_text(random, content)
    config = json.loads(content)
    layer = random.choice(config["config"]["layers"])["config"]
    layer[random.choice(("activation", "dtype", "kernel_initializer"))] = random.choice(HOSTILE)
    return json.dumps(config).encode()


def saved_model(random, base, folder):
    from tensorflow.core.protobuf import saved_model_pb2

    path = folder / "saved_model"
    shutil.copytree(base / "out" / "saved_model", path)
    file = random.choice(sorted(file for file in path.rglob("*") if file.is_file()))
    if random.random() < 0.4:
        damage = mutate.damaged_text if file.suffix == ".json" else mutate.damaged_bytes
        file.write_bytes(damage(random, file.read_bytes()))
        return predict(base, path)
    file = path / "saved_model.pb"
    content = saved_model_pb2.SavedModel()
    content.ParseFromString(file.read_bytes())
    if random.random() < 0.5:
        functions = content.meta_graphs[0].graph_def.library.function
        nodes = random.choice(functions).node_def
        names = ("WriteFile", "EagerPyFunc", "PyFunc", "While", "StatelessWhile", "ReadFile")
        random.choice(nodes).op = random.choice((*names, "Fill", "SaveV2", "StringJoin"))
    else:
        mutate_schema.damaged_message(random, content)
    file.write_bytes(content.SerializeToString())
    return predict(base, path)


def run_folder(random, base, folder):
    """A run that is resumed: its recipe.json, or the state, network or weights in last.keras."""
    run = folder / "run"
    shutil.copytree(base / "run", run)
    file = run / random.choice(("recipe.json", "last.keras", "last.keras"))
    data = file.read_bytes()
    if file.suffix == ".json":
        file.write_bytes(mutate.damaged_text(random, data))
    else:
        change = {"training_state.json": 0.7}
        stream = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
            chosen = random.choice(old.namelist())
            chosen = next((n for n, share in change.items() if random.random() < share), chosen)
            for name in old.namelist():
                content = old.read(name)
                new.writestr(
                    name, _in_a_keras_file(random, name, content) if name == chosen else content
                )
        file.write_bytes(stream.getvalue())
    return command("train", "scenes_tiny", "--out", run, "--resume", "--set", *SETTINGS)


def converted(random, base, folder):
    """Checkpoints whose arrays or "meta" are other ones, as far as the built network."""
    from keras_pspnet.weights.reader import read_arrays

    arrays = read_arrays(CHECKPOINTS / "semseg.safetensors")
    names = sorted(arrays)
    for _ in range(random.randint(1, 2)):
        name = random.choice(names)
        value = np.atleast_1d(arrays.pop(name))
        way = random.randrange(5)
        if way == 0:
            arrays[name] = value[: len(value) // 2]
        elif way == 1:
            arrays[name] = np.concatenate([value, value])
        elif way == 2:
            arrays[name.replace("layer", "layers")] = value
        elif way == 3:
            arrays[name] = value[..., None]
    header, body = {}, b""
    for name, value in arrays.items():
        offsets = [len(body), len(body) + value.nbytes]
        header[name] = {"dtype": "F32", "shape": value.shape, "data_offsets": offsets}
        body += value.astype("<f4").tobytes()
    header = json.dumps(header).encode()
    path = folder / "weights.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + body)
    return command("convert", path, "--out", "out/model.keras")
