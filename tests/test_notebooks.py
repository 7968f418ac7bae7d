"""The notebooks run from top to bottom, at small settings, and are kept with what they showed."""

from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"

# To trace the steps takes longer than a few of them. Pictures are segmented as ever.
UNTRACED = (
    "import keras\n"
    "with_loss = property(lambda model: bool(getattr(model, 'loss', None)), lambda *_: None)\n"
    "keras.Model.run_eagerly = with_loss\n"
)
SMALL = {
    "01_quickstart": "EPOCHS = 1\nSTEPS = 1\nVAL_STEPS = 1",
    "02_train_your_own": (
        "PICTURES = 8\n"
        'SETTINGS = {"epochs": 2, "coarse_epochs": 1, "crop": (65, 65), "channels": 16, '
        '"backbone": "resnet14_narrow", "backbone_weights": None}'
    ),
    "03_export_and_run": (
        'SETTINGS = {"epochs": 1, "train_images": 16, "val_images": 8, "crop": (65, 65)}\n'
        "PICTURES = 2"
    ),
    "04_paper": (
        'BACKBONE = "resnet14_narrow"\n'
        'SETTINGS = {"epochs": 1, "train_images": 4, "val_images": 2, "batch_size": 2, '
        '"crop": (49, 49), "channels": 8}'
    ),
}


def read(name):
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def parameters(notebook):
    (place,) = (
        index
        for index, cell in enumerate(notebook.cells)
        if "parameters" in cell.metadata.get("tags", ())
    )
    return place


def printed(notebook):
    for cell in notebook.cells:
        yield from (output.get("text", "") for output in cell.get("outputs", ()))


def test_every_notebook_is_tested():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs_from_top_to_bottom(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")  # where a kernel's output passes for a terminal
    notebook = read(name)
    small = nbformat.v4.new_code_cell(UNTRACED + SMALL[name])
    notebook.cells.insert(parameters(notebook) + 1, small)
    (tmp_path / "notebooks").mkdir()
    for folder in ("benchmarks", "export"):
        (tmp_path / folder).symlink_to(NOTEBOOKS.parent / folder)
    nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path / "notebooks")}},
    ).execute()
    assert "\x1b[2K" not in "".join(printed(notebook))


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_is_kept_with_its_pictures_and_without_errors(name):
    notebook = read(name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in code for output in cell.outputs]
    assert all(cell.execution_count for cell in code)
    assert not any(output.output_type == "error" for output in outputs)
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert "image/jpeg" in kinds and "image/png" not in kinds
    assert "\x1b[2K" not in "".join(printed(notebook))
    assert (NOTEBOOKS / f"{name}.ipynb").stat().st_size < 1_000_000
