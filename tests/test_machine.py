"""The machine: its free memory, the settings of TensorFlow on its CPU."""

import os
import subprocess
import sys

import pytest

from keras_pspnet import machine

PRINT = "import os; print(os.environ['TF_CPU_ALLOCATOR_USE_BFC'], 'tensorflow' in sys.modules)"


@pytest.mark.parametrize("given, kept", [({}, "1"), ({"TF_CPU_ALLOCATOR_USE_BFC": "0"}, "0")])
def test_a_script_gets_the_settings_and_keeps_its_own(given, kept):
    code = f"import sys, keras_pspnet; keras_pspnet.fast_cpu(); {PRINT}"
    environment = {k: v for k, v in os.environ.items() if k not in machine.SETTINGS} | given
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [kept, "False"]


def test_it_says_that_it_comes_too_late(monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "tensorflow", object())
    assert "imported already" in refused(machine.fast_cpu)


def test_the_free_memory_is_that_of_the_container(monkeypatch):
    texts = {
        "/proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    4000 kB\n",
        "/sys/fs/cgroup/memory.max": "3000000\n",
        "/sys/fs/cgroup/memory.current": "2500000\n",
        "/sys/fs/cgroup/memory.stat": "anon 7\ninactive_file 30000\nactive_file 20000\n",
    }
    monkeypatch.setattr(machine.Path, "read_text", lambda self: texts[str(self)])
    assert machine.free_memory() == 3000000 - 2500000 + 50000
    texts["/sys/fs/cgroup/memory.max"] = "max\n"
    assert machine.free_memory() == 4000 * 1024


def test_the_free_memory_of_this_machine_is_known():
    assert machine.free_memory() > 2**20
