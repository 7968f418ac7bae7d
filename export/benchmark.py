"""Measure latency, peak memory, size and delegate coverage of .tflite files.

python export/benchmark.py FILE.tflite ... [--threads 2] [--runs 20] [--json FILE]

Each file runs in its own process. Several files take turns, run by run, so that a machine that is
busy at times does not change their ratios. Peak memory is the process's peak minus its memory
before the file was loaded.
"""

import argparse
import contextlib
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from keras_pspnet import cli
from keras_pspnet.errors import UserError
from keras_pspnet.files import writable_folder, write_json
from keras_pspnet.inference.load import check_model
from keras_pspnet.progress import track


def main(arguments=None):
    parser = cli.Parser(description=__doc__.splitlines()[0])
    parser.add_argument("files", metavar="FILE.tflite", nargs="+")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count()), help="(%(default)s)")
    parser.add_argument("--warmup", type=int, default=3, help="runs before measuring (%(default)s)")
    parser.add_argument("--runs", type=int, default=20, help="measured runs (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write the figures")
    return cli.run(parser.prog, benchmark, parser.parse_args(arguments))


def benchmark(options: argparse.Namespace) -> None:
    """Measure the files, print a table and write it to --json."""
    for name, least in (("threads", 1), ("warmup", 0), ("runs", 1)):
        if getattr(options, name) < least:
            given = getattr(options, name)
            raise UserError(f"--{name} {given}: expected at least {least}")
    for file in options.files:
        check_model(file, "tflite")
    if len({Path(file).resolve() for file in options.files}) < len(options.files):
        raise UserError("the same file is given twice; expected each once")
    if options.json:
        if Path(options.json).is_dir():
            raise UserError(f"--json {options.json}: is a folder; expected the name of a file")
        writable_folder(Path(options.json).parent)
    rows = measure(options.files, options.threads, options.warmup, options.runs)
    width = max(len(name) for name in rows)
    print(f"{'file':{width}}  {'ms':>8}  {'10-90 %':>15}  {'peak MB':>8}  {'MB':>7}  delegated")
    for name, row in rows.items():
        spread = "{:.1f}-{:.1f}".format(*row["milliseconds_10_90"])
        print(
            f"{name:{width}}  {row['milliseconds']:8.1f}  {spread:>15}  "
            f"{row['peak_bytes'] / 1e6:8.1f}  {row['bytes'] / 1e6:7.1f}  "
            f"{row['partitions']} partitions, {len(row['outside'])} operators outside"
        )
    if options.json:
        settings = {name: getattr(options, name) for name in ("threads", "warmup", "runs")}
        write_json(Path(options.json), {**settings, "files": rows})


def measure(files, threads, warmup, runs) -> dict[str, dict]:
    """Measure files in turns.

    Returns:
        File -> {"milliseconds": median, "milliseconds_10_90": [10 %, 90 %], "bytes", "peak_bytes",
        "partitions", "outside"}; the last two are those of `delegation`.

    Raises:
        UserError: a file cannot be run.
    """
    context = multiprocessing.get_context("spawn")
    workers = {}
    try:
        for file in files:
            ours, theirs = context.Pipe()
            process = context.Process(target=_cost, args=(theirs, file, threads), daemon=True)
            process.start()
            theirs.close()
            workers[file] = process, ours
            _ask(file, ours)
        milliseconds = {file: [] for file in files}
        for number in track(range(warmup + runs), "measuring", warmup + runs):
            for file, (_, pipe) in workers.items():
                taken = _ask(file, pipe, "run")
                if number >= warmup:
                    milliseconds[file].append(1000 * taken)
        rows = {}
        for file, (_, pipe) in workers.items():
            times = sorted(milliseconds[file])
            last = len(times) - 1
            rows[file] = {
                "milliseconds": statistics.median(times),
                "milliseconds_10_90": [times[round(0.1 * last)], times[round(0.9 * last)]],
                "bytes": Path(file).stat().st_size,
                **_ask(file, pipe, "end"),
            }
        return rows
    finally:
        for process, _ in workers.values():
            process.kill()


def _ask(file, pipe, request=None):
    """Send "run" or "end" to a file's process and return its answer.

    Without a request, wait until the process has loaded its file.

    Raises:
        UserError: the process has died, or it answered with an error.
    """
    try:
        with contextlib.suppress(BrokenPipeError):  # the process has ended; it may have said why
            if request:
                pipe.send(request)
        answer = pipe.recv()
    except (EOFError, ConnectionError) as error:
        raise UserError(f"{file}: its process died; is there enough memory?") from error
    if isinstance(answer, str):
        raise UserError(f"{file}: cannot be run: {answer}")
    return answer


def _cost(pipe, file, threads) -> None:
    """Load one file and serve requests: "run" returns seconds, "end" memory and delegation."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # LiteRT prints lines about its delegates
    from ai_edge_litert.interpreter import Interpreter

    empty = _peak_bytes()
    try:
        interpreter = Interpreter(file, num_threads=threads)
        interpreter.allocate_tensors()
        rng = np.random.default_rng(0)
        for spec in interpreter.get_input_details():
            values = rng.integers(0, 256, spec["shape"])
            interpreter.set_tensor(spec["index"], values.astype(spec["dtype"]))
        pipe.send(None)
        while pipe.recv() == "run":
            start = time.perf_counter()
            interpreter.invoke()
            pipe.send(time.perf_counter() - start)
        peak = _peak_bytes() - empty
        from keras_pspnet.export.delegate import delegation

        partitions, outside = delegation(file)
        pipe.send({"peak_bytes": peak, "partitions": partitions, "outside": outside})
    except Exception as error:  # a damaged file can fail anywhere in the runtime
        pipe.send((str(error).strip() or type(error).__name__).splitlines()[0][:160])


def _peak_bytes() -> int:
    """Return the peak resident memory of this process."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux getrusage also counts the parent's peak
        (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    sys.exit(main())
