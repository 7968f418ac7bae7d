"""The thorough tier's check that damaged and hostile files are refused in one line.

    python tests/verify/verify_mutations.py [--seed N] [--number N] [READER ...]

Without --seed it goes on with the seed of an unfinished run, or takes a new one. --number repeats
one input. Inputs that failed are kept under .verify/mutations/, the counts in mutations.json there.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from mutation_readers import READERS, import_for, make_base
from shell import KEPT, code_version, run

PLACE = KEPT / "mutations"
STATE = PLACE / "mutations.json"

SECONDS = 60
"""Processor time that one input may take."""

WAIT = 300
"""Seconds after which it hangs, without taking any."""

ADDRESSES = 8 * 2**30
"""Bytes of addresses that a process may map; TensorFlow maps more than it uses."""

MEMORY = 4 * 2**30
"""Bytes of memory that one input may take."""

QUIET = ("INFO: Created TensorFlow Lite XNNPACK delegate for CPU.",)
"""What LiteRT prints of every file, damaged or not."""


def mutations(folder):
    """Thousands of damaged and hostile files: each is refused in one line, or read."""
    said = run(sys.executable, __file__)
    result = json.loads(STATE.read_text())
    assert result["finished"] and not result["bad"], said[-3000:]
    shutil.rmtree(PLACE)
    command = f"python tests/verify/verify_mutations.py --seed {result['seed']}"
    return {**{key: result[key] for key in ("seed", "inputs", "readers")}, "command": command}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int)
    parser.add_argument("--number", type=int)
    parser.add_argument("readers", nargs="*")
    options = parser.parse_args()
    state = json.loads(STATE.read_text()) if STATE.exists() else {}
    state = state if state.get("code") == code_version() and not state["finished"] else {}
    seed = options.seed if options.seed is not None else state.get("seed", time.time_ns() % 10**6)
    done = state.get("readers", {}) if state.get("seed") == seed and not options.readers else {}
    print(f"seed {seed}", flush=True)
    base = make_base(PLACE / "base")
    for name, reader in READERS.items():
        if name in done or (options.readers and name not in options.readers):
            continue
        import_for(name)
        numbers = range(reader.count) if options.number is None else [options.number]
        start, results = time.monotonic(), collections.Counter()
        for number in numbers:
            result = one_input(base, name, reader, seed, number)
            results[result] += 1
        good = {kind: results.pop(kind, 0) for kind in ("refused", "read")}
        done[name] = {"inputs": len(numbers), **good, "bad": dict(results)}
        print(f"{name}: {done[name]} {time.monotonic() - start:.0f} s", flush=True)
        if not options.readers:
            write_state(seed, done)


def write_state(seed, done):
    state = {"seed": seed, "code": code_version(), "finished": set(done) == set(READERS)}
    state["inputs"] = sum(row["inputs"] for row in done.values())
    state["bad"] = sum(sum(row["bad"].values()) for row in done.values())
    STATE.write_text(json.dumps({**state, "readers": done}, indent=2))


def one_input(base, name, reader, seed, number) -> str:
    """Make one damaged input and read it in a process of its own; return what came of it."""
    with tempfile.TemporaryDirectory() as top:
        top, said = Path(top) / "top", (Path(top) / "out.txt", Path(top) / "err.txt")
        for part in ("in", "tmp", "home", "cwd"):
            (top / part).mkdir(parents=True)
        for file in said:
            file.touch()
        chance = random.Random(f"{seed} {name} {number}")
        pid = os.fork()
        if not pid:
            child(base, reader, chance, top, said)
        code, peak, hung = watched(pid)
        out, err = (file.read_text(errors="replace") for file in said)
        result = judged(top, code, err, peak, hung)
        if result not in ("refused", "read"):
            print(f"  {name} {number}: {result}: {err[-300:]!r}", flush=True)
            kept = PLACE / f"{name}-{number}".replace(" ", "_")
            shutil.rmtree(kept, ignore_errors=True)
            with contextlib.suppress(shutil.Error):  # of pipes
                shutil.copytree(top / "in", kept, symlinks=True)
            (kept / "said.txt").write_text(f"{result}, exit code {code}\n{out}{err}")
        return result


def child(base, reader, chance, top, said):
    """Read one damaged input in this process, and end it."""
    code = 97
    try:
        os.setsid()
        print_to(said)
        os.chdir(top / "cwd")
        os.environ.update(TMPDIR=str(top / "tmp"), HOME=str(top / "home"))
        tempfile.tempdir = None
        read = reader.damage(chance, base, top / "in")
        print_to(said)  # a library may have printed while it saved the undamaged picture
        (top / "listed.json").write_text(json.dumps(listing(top / "in")))
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
        code = read()
    except SystemExit as ended:  # of argparse
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 98
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def print_to(said):
    """Send what this process prints to two files, which are emptied."""
    for number, file in enumerate(said, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_TRUNC), number)


def watched(pid):
    """Wait for a process; return its exit code, its peak of memory in bytes, and if it hung."""
    waited, before = 0.0, time.monotonic()
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024, waited > WAIT
        time.sleep(0.01)
        now = time.monotonic()
        waited += min(now - before, 0.1)  # while this process stands still, so does the other
        before = now
        if waited > WAIT:
            os.killpg(pid, signal.SIGKILL)


def judged(top, code, err, peak, hung) -> str:
    """Return "refused", "read", or what is bad."""
    lines = [line for line in err.splitlines() if line not in QUIET]
    if hung or code == -signal.SIGXCPU:
        return "hang"
    if code < 0:
        return signal.Signals(-code).name
    if not (top / "listed.json").exists():
        return "no input made"
    if any(
        Path(place).exists() for place in (top / "escaped", top / "cwd/escaped", "/tmp/escaped")
    ):
        return "executed, or written outside"
    if code not in (0, 2):
        return "traceback"
    if peak > MEMORY:
        return "over 4 GB"
    if len(lines) != (code == 2):
        return "more than one line"
    left = listing(top / "tmp")  # in the home folder libraries keep what they like
    if code == 2:
        left += [top / "cwd" / name for name in listing(top / "cwd")]
        before = json.loads((top / "listed.json").read_text())
        left += sorted(set(listing(top / "in")) - set(before))
    if left:
        return "files left"
    return "refused" if code else "read"


def listing(folder) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))


if __name__ == "__main__":
    main()
