"""The house: imports go down the floors, and heavy things stay out where they are not needed."""

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import keras_pspnet

PACKAGE = Path(keras_pspnet.__file__).parent
ROOT = PACKAGE.parent

FLOORS = (
    # numpy and Pillow only
    (
        "files",
        "labels",
        "metrics",
        "predict",
        "visualize",
        "drawings",
        "scenes",
        "sources",
        "contract",
        "report",
        "report_html",
        "naming",
        "naming_caffe",
        "naming_mmseg",
        "recognise",
        "pickles",
    ),
    # tensors, no files of the user's
    (
        "resample",
        "layers",
        "graph",
        "dilation",
        "backbones",
        "pretrained",
        "model",
        "losses",
        "optimizer",
        "augment",
        "checkpoints",
        "winograd",
        "device",
    ),
    # files
    ("layouts", "datasets", "tfds_source", "data", "convert", "runners", "export")
    + ("tflite_metadata", "quantize", "proof", "card"),
    # experiments
    (
        "recipe",
        "published",
        "recipes",
        "resume",
        "progress",
        "history",
        "look",
        "train",
        "demo",
        "commands",
        "cli",
    ),
)
FLOOR = {name: level for level, names in enumerate(FLOORS) for name in names}
WITHOUT_TENSORFLOW = (
    *FLOORS[0],
    "checkpoints",
    "layouts",
    "datasets",
    "tfds_source",
    "runners",
    "recipe",
    "published",
    "recipes",
)
WITHOUT_TENSORFLOW += ("progress", "history", "look", "commands", "cli")


def imports(path):
    """The modules a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            if node.module == "keras_pspnet":
                yield from (f"keras_pspnet.{alias.name}" for alias in node.names)


def test_every_module_has_a_floor():
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} == set(FLOOR)


@pytest.mark.parametrize("name", sorted(FLOOR))
def test_imports_go_down_the_floors(name):
    for module in imports(PACKAGE / f"{name}.py"):
        package, _, imported = module.partition(".")
        if package == "keras_pspnet" and imported in FLOOR:
            assert FLOOR[imported] <= FLOOR[name], f"{name} imports {imported} from a floor above"


@pytest.mark.parametrize("name", FLOORS[0])
def test_the_ground_floor_uses_numpy_and_pillow_only(name):
    allowed = sys.stdlib_module_names | {"numpy", "PIL", "keras_pspnet"}
    assert {module.split(".")[0] for module in imports(PACKAGE / f"{name}.py")} <= allowed


def test_nothing_in_the_package_imports_the_delivery_stage():
    for path in PACKAGE.glob("*.py"):
        assert not any(module.split(".")[0] == "export" for module in imports(path))
    assert not (ROOT / "export" / "__init__.py").exists()


def test_tensorflow_free_modules_import_where_tensorflow_cannot():
    lines = ["import sys", "sys.modules['tensorflow'] = sys.modules['keras'] = None"]
    lines += [f"import keras_pspnet.{name}" for name in WITHOUT_TENSORFLOW]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


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
    ignored = shutil.ignore_patterns(".*", "runs", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, source],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    packed = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert packed == {"keras_pspnet"}
    modules = {name for name in names if name.startswith("keras_pspnet/")}
    assert modules == {f"keras_pspnet/{path.name}" for path in PACKAGE.glob("*.py")}


def test_files_stay_readable():
    for path in [*PACKAGE.glob("*.py"), *ROOT.glob("export/**/*.py")]:
        assert len(path.read_text().splitlines()) <= 320, path
