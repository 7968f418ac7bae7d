"""The thorough tier: kills, full disks, memory, clean installs, other backends and runtimes.

    make verify                      what has not passed yet for this state of the code
    python tests/verify/verify.py NAME ...  these checks, whether they have passed or not

Resumable. Its summary is benchmarks/results/verify.json.
"""

import json
import sys
import tempfile
import time
import traceback
from pathlib import Path

from shell import KEPT, RESULTS, code_version
from verify_cluster import cluster
from verify_devices import in_mediapipe, in_tflite_runtime, in_the_browser
from verify_installs import bare_clone_demo, bare_clone_test, clean_install
from verify_jax import jax
from verify_kills import full_disk, killed_and_resumed, killed_export, same_bits
from verify_mutations import mutations
from verify_networks import converted, foreign_backbones
from verify_report import report_in_a_browser
from verify_soak import soak
from verify_spread import killed_processes, several_devices
from verify_threads import eight_threads

STATE = KEPT / "state.json"
SUMMARY = RESULTS / "verify.json"

CHECKS = (
    full_disk,
    killed_export,
    same_bits,
    killed_and_resumed,
    eight_threads,
    soak,
    mutations,
    report_in_a_browser,
    jax,
    several_devices,
    killed_processes,
    foreign_backbones,
    converted,
    in_tflite_runtime,
    in_mediapipe,
    in_the_browser,
    cluster,
    clean_install,
    bare_clone_demo,
    bare_clone_test,
)


def main():
    asked, version = sys.argv[1:], code_version()
    state = json.loads(STATE.read_text()) if STATE.exists() else {}
    failed = 0
    for number, check in enumerate(CHECKS, start=1):
        name = check.__name__
        before = state.get(name, {})
        done = before.get("passed") and before.get("code") == version
        if (asked and name not in asked) or (done and not asked):
            continue
        print(f"{number}/{len(CHECKS)} {name}: {check.__doc__.splitlines()[0]}", flush=True)
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                result = {"passed": True, **check(Path(folder))}
            except Exception as error:
                failed += 1
                at = traceback.extract_tb(error.__traceback__)[-1]
                said = f"line {at.lineno}: {at.line}\n{type(error).__name__}: {error}"
                # A command says its reason at the end.
                result = {"passed": False, "error": said[:200] + said[200:][-1800:]}
        result |= {"seconds": round(time.monotonic() - start), "code": version}
        print(f"    {json.dumps(result)}", flush=True)
        state[name] = result
        STATE.parent.mkdir(exist_ok=True)
        STATE.write_text(json.dumps(state, indent=2))
    # What was not run here stands as it was: each says of which code it is.
    checks = {**json.loads(SUMMARY.read_text())["checks"], **state}
    SUMMARY.write_text(json.dumps({"command": "make verify", "checks": checks}, indent=2) + "\n")
    passed = sum(result["passed"] for result in state.values())
    print(f"{passed} passed, {len(state) - passed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
