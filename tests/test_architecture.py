"""Folders import what they are allowed to, and TensorFlow stays out where it can."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import keras_pspnet

PACKAGE = Path(keras_pspnet.__file__).parent
ROOT = PACKAGE.parent

GROUND = {"errors", "files", "images", "labels", "device_contract", "visualize", "progress"} | {
    "machine",
    "private_api",
}
ARROWS = {  # folder -> the folders that it may import, beside the ground
    "weights": set(),
    "network": {"weights"},
    "scenes": set(),
    "data": {"scenes"},
    "inference": {"network"},
    "scoring": {"inference", "data"},
    "train": {"network", "data", "inference", "scoring"},
    "export": {"network", "inference", "scoring", "scenes"},
}
ARROWS["cli"] = set(ARROWS)
DOORS = {"__init__", "__main__"}  # of the package itself: they may import everything

# Where TensorFlow cannot be imported: all of these folders, and these files of the others.
WITHOUT_TENSORFLOW = {
    "weights": None,
    "scenes": None,
    "scoring": None,
    "inference": None,
    "cli": {"demo"},
    "train": {
        "run",
        "loop",
        "build",
        "accumulate",
        "scored_weights",
        "checkpoint",
        "callbacks",
        "devices",
    },
    "data": {"pipeline", "augment", "augment_window", "copy_paste"},
    "export": {"deliver", "converters", "fast_graph", "winograd", "card", "agreement"},
}


def files():
    """(folder, name, path) of each file; the folder is "" on the ground."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield "/".join(path.relative_to(PACKAGE).parent.parts), path.stem, path


def module(path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for _, _, path in files()}


def imports(path, everywhere=True):
    """The modules that a file imports; with `everywhere` also those imported inside functions."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if everywhere else tree.body
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide which folder is meant"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module


def folder_of(name) -> str | None:
    """The folder of one of our modules, "" for the ground; None for other packages."""
    parts = name.split(".")
    if parts[0] != "keras_pspnet":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in ARROWS else ""


def test_every_file_stands_in_a_folder_or_on_the_ground():
    for folder, name, path in files():
        if folder:
            assert folder in ARROWS, path
        else:
            assert name in GROUND | DOORS, f"{path} is in no folder"
    assert {folder for folder, _, _ in files()} == {"", *ARROWS}
    assert {name for folder, name, _ in files() if not folder} == GROUND | DOORS


@pytest.mark.parametrize("folder", sorted({"", *ARROWS}))
def test_imports_follow_the_arrows(folder):
    seen = 0
    for place, name, path in files():
        if place != folder or (not folder and name in DOORS):
            continue
        for imported in imports(path):
            target = folder_of(imported)
            if target is not None:
                seen += 1
                allowed = {"", folder} | ARROWS.get(folder, set())
                assert target in allowed, f"{path} imports {imported}"
    assert seen


def test_imports_form_no_circle():
    graph = {
        name: {other for other in imports(path, everywhere=False) if other in MODULES} - {name}
        for name, path in MODULES.items()
    }
    del graph["keras_pspnet"]  # the lazy door
    checked, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name in checked:
            return
        path.append(name)
        for other in graph.get(name, ()):
            visit(other)
        checked.add(path.pop())

    for name in graph:
        visit(name)
    assert checked >= set(graph) and len(graph) > 1


def test_a_circle_is_found(tmp_path, monkeypatch):
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("from keras_pspnet.two import b\n")
    two.write_text("import keras_pspnet.one\n")
    monkeypatch.setattr(
        sys.modules[__name__],
        "MODULES",
        {"keras_pspnet": PACKAGE / "__init__.py", "keras_pspnet.one": one, "keras_pspnet.two": two},
    )
    with pytest.raises(AssertionError, match=r"one -> keras_pspnet\.two -> keras_pspnet\.one"):
        test_imports_form_no_circle()


@pytest.mark.parametrize("name", sorted(GROUND))
def test_the_ground_uses_numpy_and_pillow_only(name):
    allowed = sys.stdlib_module_names | {"numpy", "PIL", "keras_pspnet"}
    later = {"progress": {"rich"}, "visualize": {"matplotlib"}}
    later["private_api"] = {"tensorflow", "jax"}
    path = PACKAGE / f"{name}.py"
    found = {imported.split(".")[0] for imported in imports(path, everywhere=False)}
    assert found <= allowed
    inside = {imported.split(".")[0] for imported in imports(path)}
    assert inside <= allowed | later.get(name, set())  # imported in functions alone


def test_nothing_in_the_package_imports_the_delivery_stage():
    for path in MODULES.values():
        assert not any(name.split(".")[0] == "export" for name in imports(path))
    assert not (ROOT / "export" / "__init__.py").exists()


def test_what_needs_no_tensorflow_is_imported_without_it():
    lines = ["import sys", "sys.modules['tensorflow'] = sys.modules['keras'] = None"]
    for folder, name, path in files():
        heavy = WITHOUT_TENSORFLOW.get(folder, {name} if folder else set())
        if name not in {"__main__", *(heavy or ())}:
            lines.append(f"import {module(path)}")
    assert len(lines) > 35
    subprocess.run([sys.executable, "-P", "-c", "\n".join(lines)], check=True, timeout=60)


def test_importing_the_package_and_asking_for_help_import_no_tensorflow():
    code = (
        "import sys, keras_pspnet\n"
        "from keras_pspnet.cli import main\n"
        "try: main(['train', '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "RECIPE" in done.stdout and not done.stderr


def test_every_public_name_loads():
    for name in keras_pspnet.__all__:
        assert getattr(keras_pspnet, name) is not None
    assert set(keras_pspnet.__all__) <= set(dir(keras_pspnet))
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = keras_pspnet.nothing_of_the_kind


def test_the_wheel_holds_the_package_alone(tmp_path):
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".*", "runs", "build", "site", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, source],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info" not in name}
    there = (path for path in PACKAGE.rglob("*") if path.is_file())
    assert packed == {
        str(path.relative_to(ROOT)) for path in there if "__pycache__" not in path.parts
    }


def test_files_stay_readable():
    for path in [*MODULES.values(), *ROOT.glob("export/**/*.py")]:
        assert len(path.read_text().splitlines()) <= 320, path
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 24


def test_the_tree_in_contributing_is_the_one_on_the_disk():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (tree,) = re.findall(r"    keras_pspnet/\n((?:    .*\n)+)", text)
    named, folder = set(), ""
    for line in tree.splitlines():
        depth = (len(line) - len(line.lstrip())) // 4
        name, _, subject = line.strip().partition(" ")
        assert subject.strip(), f"CONTRIBUTING.md says nothing of {name}"
        if name.endswith("/"):
            folder = name
        else:
            named.add(name if depth == 2 else folder + name)
    there = (path for path in PACKAGE.rglob("*") if path.is_file())
    on_disk = {str(p.relative_to(PACKAGE)) for p in there if "__pycache__" not in p.parts}
    doors = {f"{name}/__init__.{kind}" for name in ARROWS for kind in ("py", "pyi")}
    assert named == on_disk - (doors - {"scenes/__init__.py", "cli/__init__.py"})
