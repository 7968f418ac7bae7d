"""Segment many pictures on Ray, one .tflite runner in each worker process: docs/cluster.md.

python export/cluster/segment_ray.py FILE.tflite PICTURES --out DIR [--column NAME]
"""

import contextlib
import hashlib
import io
import itertools
import logging
import os
import tempfile
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from keras_pspnet import UserError, cli, load_model, segment
from keras_pspnet.files import is_picture, read_bytes
from keras_pspnet.images import read_image
from keras_pspnet.inference.load import check_model
from keras_pspnet.progress import Meter

PIECE = 32  # pictures that a worker takes at once, at most, and does again if it is killed
INSTALL = "run: pip install 'keras-pspnet[cluster]'"
try:
    import pyarrow as pa
    from fsspec.core import url_to_fs
    from pyarrow import dataset, parquet
except ImportError as missing:
    cli.Parser(prog="segment_ray.py").error(f"{missing}; {INSTALL}")


def main(arguments=None):
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("file", metavar="FILE.tflite")
    parser.add_argument("pictures", metavar="PICTURES", help="a folder or an address")
    parser.add_argument("--out", metavar="DIR", required=True, help="a folder or an address")
    parser.add_argument("--column", metavar="NAME", help="of the Parquet files in PICTURES")
    parser.add_argument("--format", choices=("parquet", "png"), default="parquet", help="of maps")
    parser.add_argument("--actors", type=int, metavar="N", help="workers (as many as fit)")
    parser.add_argument("--threads", type=int, default=1, help="of each worker (%(default)s)")
    parser.add_argument("--address", default="local", help="a Ray cluster, as auto (%(default)s)")
    return cli.run(parser.prog, segment_all, parser.parse_args(arguments))


def segment_all(job) -> None:
    """Segment the pictures that have no row yet; raises UserError."""
    check_model(job.file, "tflite")
    load_model(job.file, threads=job.threads)
    job.model = read_bytes(job.file)
    try:
        found, done = list_pictures(job), list_done(job)
        todo = [name for name in found if name not in done]
        print(f"{len(found)} pictures, {len(found) - len(todo)} done before", flush=True)
        if todo:
            broken = run_on_ray(job, todo)
            print(f"{job.out}: {len(todo) - broken} pictures segmented, {broken} broken")
    except Exception as error:  # stores and Ray have many; `cause` is what a worker raised
        hint = f"; {INSTALL}" * isinstance(error, ModuleNotFoundError)
        raise UserError(f"{getattr(error, 'cause', error) or repr(error)}{hint}") from error


def list_pictures(job) -> list[str]:
    """Name the pictures by path, or by FILE/ROW_GROUP/ROW; raises UserError if there are none."""
    store, path = url_to_fs(job.pictures)
    paths = sorted(store.find(path))
    job.root = path.rpartition("/")[0] if paths == [path] else path
    names = [p[len(job.root) :].lstrip("/") for p in paths if "/." not in p[len(job.root) :]]
    if not job.column:
        names = [name for name in names if is_picture(PurePosixPath(name))]
    elif tables := [name for name in names if name.endswith(".parquet")]:
        job.field = dataset.field(*job.column.split("."))  # A.B is the field B of a struct A
        data = dataset.dataset([f"{job.root}/{table}" for table in tables], filesystem=store)
        kind = data.scanner(columns={"": job.field}).projected_schema.types[0]
        if kind not in (pa.binary(), pa.large_binary()):
            raise UserError(f"--column {job.column} holds {kind}; expected picture files as bytes")
        groups = [(t, g) for t, f in zip(tables, data.get_fragments()) for g in f.row_groups]
        return [f"{table}/{g.id}/{row}" for table, g in groups for row in range(g.num_rows)]
    if job.column or not names:
        raise UserError(f"{job.pictures}: no pictures; --column NAME reads those in Parquet files")
    return names


def list_done(job) -> set[str]:
    """Name the pictures that have a row; raises UserError if --out is of another job."""
    (store, path), (to, out) = url_to_fs(job.pictures), url_to_fs(job.out)
    if to == store and f"{out}/".startswith(f"{path}/"):
        raise UserError(f"--out {job.out}: lies among the pictures; choose another place")
    model, pictures = hashlib.sha256(job.model).hexdigest(), store.unstrip_protocol(path)
    job.made_with = {"FILE.tflite": model, "PICTURES": pictures, "--format": job.format}
    job.made_with["--column"] = str(job.column)
    files = to.ls(f"{out}/table", detail=False) if to.exists(f"{out}/table") else []
    parts = [file for file in files if PurePosixPath(file).name.startswith(("rows-", "broken-"))]
    if not parts:
        return set()
    rows = dataset.dataset(parts, filesystem=to)
    for name, value in job.made_with.items():
        if (rows.schema.metadata or {}).get(name.encode()) != value.encode():
            raise UserError(f"--out {job.out}: made with another {name}; choose another place")
    return set(rows.to_table(["picture"])["picture"].to_pylist())


def run_on_ray(job, todo) -> int:
    """Segment pictures on Ray and return how many of them are broken; raises UserError."""
    import ray.data

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", **os.environ}
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars, context.raise_original_map_exception = False, True
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    progress = contextlib.closing(Meter("segmenting", len(todo)))
    with ray.init(job.address, **quiet), progress as meter:
        cores, broken = int(ray.cluster_resources().get("CPU", 0)), 0
        actors = cores // job.threads if job.actors is None else job.actors
        if not 0 < actors * job.threads <= cores:
            raise UserError(f"--actors {actors} --threads {job.threads}: Ray has {cores} cores")
        pieces = ray.data.from_items(todo, override_num_blocks=-(-len(todo) // PIECE))
        pool = {"compute": ray.data.ActorPoolStrategy(size=actors), "num_cpus": job.threads}
        done = pieces.map_batches(Segmenter, batch_size=None, fn_constructor_args=[job], **pool)
        for piece in done.iter_rows():
            broken += piece["broken"]
            meter.advance(f"{broken} broken", piece["pictures"])
    return broken


class Segmenter:
    """Segment pieces and write their rows; each worker process holds one."""

    def __init__(self, job):
        with tempfile.NamedTemporaryFile() as file:
            file.write(job.model)
            file.flush()
            self.model = load_model(file.name, threads=job.threads)
        self.job, self.labels = job, self.model.labels.names
        (self.store, _), (self.to, self.out) = url_to_fs(job.pictures), url_to_fs(job.out)
        columns = {"picture": pa.string(), "error": pa.string(), "classes": pa.binary()}
        columns |= {"height": pa.int32(), "width": pa.int32()}
        columns["shares"] = pa.struct({name: pa.float32() for name in self.labels})
        self.schema = pa.schema(columns, job.made_with)

    def __call__(self, piece) -> dict:
        """Write the rows of a piece; return how many there are, and how many are broken."""
        names, parts = piece["item"].tolist(), {"rows": [], "broken": []}
        for name, content in zip(names, self.contents(names)):
            row = self.row(name, content)
            parts["broken" if "error" in row else "rows"].append(row)
        digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:20]
        for kind, rows in parts.items():
            if rows:
                parquet.write_table(pa.Table.from_pylist(rows, self.schema), file := io.BytesIO())
                self.write(f"table/{kind}-{digest}.parquet", file.getvalue())
        return {"pictures": [len(names)], "broken": [len(parts["broken"])]}

    def contents(self, names):
        """Return the content of each picture file, or the error of reading it."""
        if not self.job.column:
            paths = [f"{self.job.root}/{name}" for name in names]
            return self.store.cat_ranges(paths, None, None, on_error="return")
        found, make = [], dataset.ParquetFileFormat().make_fragment
        places = [name.rsplit("/", 2) for name in names]
        for (table, group), part in itertools.groupby(places, lambda place: place[:2]):
            rows = make(self.store.open(f"{self.job.root}/{table}"), row_groups=[int(group)])
            column = rows.to_table(columns={"": self.job.field})[0]
            found += column.take([int(row) for *_, row in part]).to_pylist()
        return found

    def row(self, name, content) -> dict:
        """Return the row of a picture, with the reason if it is broken; write its PNG."""
        try:
            if not isinstance(content, bytes):
                raise content or ValueError("its row is empty")
            classes = segment(self.model, read_image(io.BytesIO(content), name))
        except Exception as error:  # whatever a picture can do to a decoder
            return {"picture": name, "error": " ".join(str(error).split()) or repr(error)}
        shares = np.bincount(classes.ravel(), minlength=len(self.labels)) / classes.size
        row = {"picture": name, "height": len(classes), "width": classes.shape[1]}
        row["shares"] = dict(zip(self.labels, shares.tolist()))
        classes = classes if classes.dtype == np.uint8 else classes.astype(np.uint16)
        Image.fromarray(classes).save(png := io.BytesIO(), "PNG", compress_level=1)  # the fastest
        if self.job.format == "parquet":
            return row | {"classes": png.getvalue()}
        self.write(f"classes/{name}.png", png.getvalue())
        return row

    def write(self, name, content) -> None:
        """Write a file of --out, which appears when it is complete; raises UserError."""
        folder, _, name = f"{self.out}/{name}".rpartition("/")
        try:
            self.to.makedirs(folder, exist_ok=True)
            self.to.pipe_file(f"{folder}/.{name}.partial", content)
            self.to.mv(f"{folder}/.{name}.partial", f"{folder}/{name}")
        except Exception as error:
            raise UserError(f"{folder}/{name}: cannot be written: {error}") from error


if __name__ == "__main__":
    raise SystemExit(main())
