"""The settings of TensorFlow on a CPU."""

import os
import subprocess
import sys

import pytest

from keras_pspnet import cpu

PRINT = "import os; print(os.environ['TF_CPU_ALLOCATOR_USE_BFC'], 'tensorflow' in sys.modules)"


@pytest.mark.parametrize("given, kept", [({}, "1"), ({"TF_CPU_ALLOCATOR_USE_BFC": "0"}, "0")])
def test_a_script_gets_the_settings_and_keeps_its_own(given, kept):
    code = f"import sys, keras_pspnet; keras_pspnet.fast_cpu(); {PRINT}"
    environment = {k: v for k, v in os.environ.items() if k not in cpu.SETTINGS} | given
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [kept, "False"]


def test_it_says_that_it_comes_too_late(monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "tensorflow", object())
    assert "imported already" in refused(cpu.fast_cpu)
