"""The parts of export/cluster/segment_ray.py that need no Ray; make verify runs it on Ray."""

import argparse
import importlib.util
import io
import sys
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fsspec.core import url_to_fs
from PIL import Image
from pyarrow import parquet

import keras_pspnet
from keras_pspnet import scenes
from keras_pspnet.errors import UserError

SCRIPT = Path(__file__).parents[2] / "export" / "cluster" / "segment_ray.py"
spec = importlib.util.spec_from_file_location("segment_ray", SCRIPT)
segment_ray = importlib.util.module_from_spec(spec)
spec.loader.exec_module(segment_ray)


@pytest.fixture(scope="module")
def model(seen_network, tmp_path_factory):
    out = tmp_path_factory.mktemp("export")
    return keras_pspnet.export_model(seen_network(channels=8), out, formats=("float32",))["float32"]


@pytest.fixture
def job(model, tmp_path):
    """Makes the arguments of a job, as `main` would."""

    def make(**changes):
        given = {"pictures": f"{tmp_path}/photos", "out": f"{tmp_path}/out", "column": None}
        given |= {"format": "parquet", "threads": 1, "model": model.read_bytes()}
        return argparse.Namespace(**given | changes)

    return make


def picture(index, **options):
    """A scene as the content of a PNG file."""
    image, _ = scenes.scene(index, split="val", size=(40 + index, 60))
    Image.fromarray(image).save(stream := io.BytesIO(), "PNG", **options)
    return stream.getvalue()


@pytest.fixture
def photos(tmp_path):
    """Four pictures in folders, two broken ones, and files that are no pictures."""
    files = {"b.png": picture(0), "a[1].png": picture(1), "sub/b.png": picture(2)}
    files |= {"sub/deeper/c.PNG": picture(3), "text.jpg": b"no picture"}
    files |= {"cut.png": picture(4)[:900], "notes.txt": b"", ".hidden.png": b"", ".x/d.png": b""}
    for name, content in files.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(content)
    return tmp_path / "photos"


FOUND = ["a[1].png", "b.png", "cut.png", "sub/b.png", "sub/deeper/c.PNG", "text.jpg"]


def work(job, count=None):
    """List, skip what is done, segment `count` of the others here; the rows of all files."""
    names, done = segment_ray.list_pictures(job), segment_ray.list_done(job)
    todo = [name for name in names if name not in done][:count]
    if todo:
        result = segment_ray.Segmenter(job)({"item": np.array(todo, object)})
        assert result["pictures"] == [len(todo)]
    return todo, rows_of(job)


def rows_of(job):
    store, path = url_to_fs(f"{job.out}/table")
    return parquet.read_table(path, filesystem=store).to_pylist()


def test_pictures_are_listed_by_their_path_and_hidden_ones_are_not(job, photos):
    for address in (f"{photos}", f"{photos}/", f"file://{photos}"):
        listed = segment_ray.list_pictures(job(pictures=address))
        assert listed == FOUND


def test_rows_hold_class_maps_and_shares_and_a_broken_picture_its_reason(job, photos, model):
    _, rows = work(job())
    assert sorted(row["picture"] for row in rows) == FOUND
    rows = {row["picture"]: row for row in rows}
    network = keras_pspnet.load_model(model)
    for name in ("a[1].png", "b.png", "sub/b.png", "sub/deeper/c.PNG"):
        row, classes = rows[name], keras_pspnet.segment(network, photos / name)
        assert row["error"] is None and (row["height"], row["width"]) == classes.shape
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(row["classes"]))), classes)
        for index, label in enumerate(network.labels.names):
            assert row["shares"][label] == pytest.approx((classes == index).mean(), abs=1e-6)
    for name, reason in (("cut.png", "not a readable picture"), ("text.jpg", "in no format")):
        assert name in rows[name]["error"] and reason in rows[name]["error"]
        assert rows[name]["classes"] is rows[name]["shares"] is rows[name]["width"] is None


def test_a_second_start_skips_what_is_done_and_takes_new_pictures(job, photos):
    first, rows = work(job(), 4)
    assert first == FOUND[:4] and len(rows) == 4
    (Path(job().out) / "table" / ".rows-0.parquet.partial").write_bytes(b"of a killed worker")
    second, rows = work(job())
    assert second == FOUND[4:]
    assert sorted(row["picture"] for row in rows) == FOUND
    (photos / "new.png").write_bytes(picture(5))
    third, rows = work(job())
    assert third == ["new.png"] and len(rows) == 7
    assert work(job())[0] == []


def test_a_piece_that_is_done_again_replaces_its_rows(job, photos):
    _, rows = work(given := job())
    segment_ray.Segmenter(given)({"item": np.array(FOUND, object)})
    assert rows_of(given) == rows and len(rows) == len(FOUND)
    assert not list(Path(given.out).rglob(".*"))


def test_broken_pictures_are_tried_again_where_their_files_are_deleted(job, photos):
    work(job())
    (photos / "text.jpg").write_bytes(picture(7))
    for file in Path(job().out).glob("table/broken-*"):
        file.unlink()
    again, rows = work(job())
    assert again == ["cut.png", "text.jpg"] and len(rows) == len(FOUND)
    assert [row["picture"] for row in rows if row["error"]] == ["cut.png"]


def test_png_files_stand_beside_the_table(job, photos, model):
    _, rows = work(given := job(format="png"))
    assert len(rows) == 6 and all(row["classes"] is None for row in rows)
    maps = {str(p.relative_to(f"{given.out}/classes")) for p in Path(given.out).rglob("*.png")}
    assert maps == {f"{row['picture']}.png" for row in rows if not row["error"]}
    network = keras_pspnet.load_model(model)
    found = np.asarray(Image.open(f"{given.out}/classes/sub/b.png.png"))
    assert np.array_equal(found, keras_pspnet.segment(network, photos / "sub" / "b.png"))


@pytest.fixture
def tables(tmp_path):
    """Seven pictures in two Parquet files: row groups of two, one row empty, one broken."""
    contents = [picture(index) for index in range(5)] + [None, b"broken"]
    (tmp_path / "tables").mkdir()
    for name, part in (("a.parquet", contents[:3]), ("b.parquet", contents[3:])):
        images = [None if data is None else {"bytes": data, "path": "x"} for data in part]
        table = pa.table({"id": list(range(len(part))), "data": part, "image": images})
        parquet.write_table(table, tmp_path / "tables" / name, row_group_size=2)
    (tmp_path / "tables" / "README.md").touch()
    return tmp_path / "tables"


ROWS = ["a.parquet/0/0", "a.parquet/0/1", "a.parquet/1/0"] + [
    f"b.parquet/{row // 2}/{row % 2}" for row in range(4)
]


@pytest.mark.parametrize("column", ["data", "image.bytes"])
def test_the_column_of_parquet_files_is_read(job, tables, column):
    _, rows = work(job(pictures=str(tables), column=column))
    rows = {row["picture"]: row for row in rows}
    assert sorted(rows) == ROWS
    heights = [rows[name]["height"] for name in ROWS]
    assert heights == [40, 41, 42, 43, 44, None, None]
    assert rows[ROWS[5]]["error"] == "its row is empty"
    assert "not a readable picture" in rows[ROWS[6]]["error"]
    one = segment_ray.list_pictures(job(pictures=f"{tables}/b.parquet", column=column))
    assert one == ROWS[3:]


def test_any_address_of_fsspec_is_read_and_written(job, photos):
    import fsspec

    store = fsspec.filesystem("memory")
    place = f"memory://{uuid.uuid4().hex}"
    store.put(f"{photos}/", f"{place}/photos/", recursive=True)
    given = job(pictures=f"{place}/photos", out=f"{place}/out")
    work(given)
    assert segment_ray.list_done(given) == set(FOUND)
    assert not [path for path in store.find(f"{place}/out") if "partial" in path]


def test_rows_of_another_job_are_refused(job, photos, tables, refused):
    work(job())
    other = {"model": b"another"}, {"format": "png"}, {"pictures": f"{photos}/sub"}
    for change, named in zip(other, ("FILE.tflite", "--format", "PICTURES")):
        assert f"another {named}; choose" in refused(segment_ray.list_done, job(**change))
    assert "lies among" in refused(segment_ray.list_done, job(out=f"{photos}/sub/out"))


def run(capsys, *arguments):
    """The last line that the command prints for an error."""
    assert segment_ray.main(list(map(str, arguments))) == 2
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and error[0].startswith(Path(sys.argv[0]).name)
    return error[0]


def test_errors_are_one_line(capsys, model, photos, tables, tmp_path, monkeypatch):
    out = ("--out", tmp_path / "out")
    assert "no such file" in run(capsys, tmp_path / "x.tflite", photos, *out)
    assert "threads=0" in run(capsys, model, photos, *out, "--threads", 0)
    assert "no pictures" in run(capsys, model, tmp_path / "nowhere", *out)
    assert "Protocol not known: nowhere" in run(capsys, model, "nowhere://a", *out)
    assert "--column NAME" in run(capsys, model, tables, *out)
    assert "no pictures" in run(capsys, model, photos, *out, "--column", "image")
    assert "holds int64" in run(capsys, model, tables, *out, "--column", "id")
    assert "nothing" in run(capsys, model, tables, *out, "--column", "nothing")
    (tables / "c.parquet").write_bytes(b"damaged")
    assert "c.parquet" in run(capsys, model, tables, *out, "--column", "data")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'keras-pspnet[cluster]'" in run(capsys, model, photos, *out)
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_stops_the_job(job, photos, tmp_path):
    (tmp_path / "file").touch()
    given = job(out=f"{tmp_path}/file/out")
    segment_ray.list_pictures(given), segment_ray.list_done(given)
    with pytest.raises(UserError, match="cannot be written"):
        segment_ray.Segmenter(given)({"item": np.array(FOUND, object)})


def test_the_program_stays_short():
    assert len(SCRIPT.read_text().splitlines()) < 200
