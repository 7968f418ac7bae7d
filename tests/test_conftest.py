"""Tests of the ground run without TensorFlow."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

CODE = """
import sys
sys.modules["tensorflow"] = sys.modules["keras"] = None  # an import of either is now an error
import pytest
sys.exit(pytest.main(["-o", "addopts=", "-p", "no:cacheprovider", "-q", *sys.argv[1:]]))
"""


def test_the_ground_is_tested_without_tensorflow():
    files = [str(HERE / name) for name in ("test_labels.py", "test_progress.py")]
    command = [sys.executable, "-P", "-c", CODE, *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=HERE.parent)
    assert done.returncode == 0, done.stdout + done.stderr
