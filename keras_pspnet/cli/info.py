"""What a bug report needs: versions, devices, cores, memory (the command `info`)."""

import importlib.metadata
import platform
import re
import signal
import subprocess
import sys

from keras_pspnet import __version__
from keras_pspnet.cli import devices
from keras_pspnet.machine import cores, free_memory

SECONDS = 120
"""How long TensorFlow may take to be imported, from a slow disk too."""
NOT_LISTED = {"docs", "test", "notebooks", "peers", "all", "legacy-device"}
"""Extras that no command needs."""


def run() -> None:
    """Print versions, cores, free memory and devices, one a line.

    What needs TensorFlow comes last and from a process of its own: where TensorFlow is missing,
    crashes or hangs, a line says so, below all else.
    """
    memory = free_memory()
    print(f"keras_pspnet: {__version__}")
    print(f"Python: {platform.python_version()} ({platform.python_implementation()})")
    print(f"platform: {platform.platform()}")
    print(f"cores: {cores()}")
    print("free memory:", "unknown" if memory is None else f"{memory / 1e9:.1f} GB")
    for package in ("numpy", "ai-edge-litert"):
        print(f"{package}: {installed(package) or 'not installed'}")
    print(f"extras: {extras()}", flush=True)
    for line in device_lines():
        print(line)


def installed(package: str) -> str | None:
    """Return the version of an installed package, without importing it; None if it is not there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def extras() -> str:
    """Return the packages of our extras that are installed, as "av 15.1 (video), ..."."""
    try:
        required = importlib.metadata.requires("keras-pspnet") or []
    except importlib.metadata.PackageNotFoundError:
        return "unknown, as keras_pspnet was not installed by pip"
    found = []
    for line in required:  # as: av>=15; extra == "video"
        match = re.match(r"([\w.-]+).*;\s*extra == ['\"]([\w-]+)['\"]", line)
        if match and match[2] not in NOT_LISTED and installed(match[1]):
            found.append(f"{match[1]} {installed(match[1])} ({match[2]})")
    return ", ".join(found) or "none"


def device_lines() -> list[str]:
    """Return what `devices` prints, and why it ended before its time if it did."""
    command = [sys.executable, "-P", devices.__file__]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return [f"TensorFlow: does not work: it is not imported within {SECONDS} s"]
    lines = done.stdout.splitlines()
    if done.returncode:
        ended = f"exit code {done.returncode}"
        if done.returncode < 0:
            ended = signal.Signals(-done.returncode).name
        lines.append(f"TensorFlow: does not work: its process ended with {ended}")
    return lines
