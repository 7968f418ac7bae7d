"""The machine: its free memory, the settings of TensorFlow on its CPU, locks of folders."""

import os
import signal
import subprocess
import sys
import time

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
        "/proc/self/cgroup": "0::/\n",
        "/sys/fs/cgroup/memory.max": "3000000\n",
        "/sys/fs/cgroup/memory.current": "2500000\n",
        "/sys/fs/cgroup/memory.stat": "anon 7\ninactive_file 30000\nactive_file 20000\n",
    }
    monkeypatch.setattr(machine.Path, "read_text", lambda self: texts[str(self)])
    assert machine.free_memory() == 3000000 - 2500000 + 50000
    texts["/sys/fs/cgroup/memory.max"] = "max\n"
    assert machine.free_memory() == 4000 * 1024


def test_the_limits_of_a_service_count_and_those_of_the_groups_above_it(tmp_path, monkeypatch):
    service = tmp_path / "system.slice" / "pictures.service"
    service.mkdir(parents=True)
    lines = "4:memory:/elsewhere\n0::/system.slice/pictures.service\n"
    real = machine.Path.read_text

    def read_text(path):
        return lines if str(path) == "/proc/self/cgroup" else real(path)

    monkeypatch.setattr(machine.Path, "read_text", read_text)
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert machine.cores() == 8
    for group, cores in ((service.parent, 6), (service, 3), (tmp_path, 2)):
        (group / "cpu.max").write_text(f"{cores}00000 100000\n")
        assert machine.cores() == cores
    for group, free in ((service.parent, 70_000), (service, 50_000), (tmp_path, 30_000)):
        (group / "memory.max").write_text("100000\n")
        (group / "memory.current").write_text(f"{100_000 - free}\n")
        (group / "memory.stat").write_text("inactive_file 0\nactive_file 500\n")
        assert machine.free_memory() == free + 500


def test_the_free_memory_of_this_machine_is_known():
    assert machine.free_memory() > 2**20


def test_a_folder_is_kept_for_one(tmp_path, refused):
    folder = tmp_path / "new" / "run"
    with machine.locked(folder, "a training"):
        message = refused(machine.locked(folder, "a training").__enter__)
        assert message.startswith(f"{folder}: a training, process {os.getpid()} on ")
        assert message.endswith("uses this folder; wait for it, or choose another folder")
    assert not list(folder.iterdir())
    with machine.locked(folder, "a training"):
        pass
    with pytest.raises(KeyError), machine.locked(tmp_path / "other" / "run", "a training"):
        raise KeyError
    assert not (tmp_path / "other").exists() and folder.is_dir()


KEEP = """
import pathlib, sys, time
from keras_pspnet import machine
with machine.locked(pathlib.Path(sys.argv[1]), "a training"):
    print("kept", flush=True)
    time.sleep(60)
"""


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path, refused):
    command = [sys.executable, "-c", KEEP, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "kept\n"
        message = refused(machine.locked(tmp_path, "a training").__enter__)
        assert f"process {process.pid} on" in message
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (tmp_path / machine.LOCK).exists()
    with machine.locked(tmp_path, "a training"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("where", ["another machine", "a file system without locks"])
def test_where_the_system_does_not_tell_a_lock_ends_when_it_is_not_renewed(
    tmp_path, refused, monkeypatch, where
):
    lock = tmp_path / machine.LOCK
    if where == "another machine":
        lock.write_text("kernel\na training, process 7 on node4 since 2026-01-01 00:00:00")
    else:
        monkeypatch.setattr(machine, "flock", lambda file: None)
        with machine.locked(tmp_path, "a training, process 7 on node4"):
            content = lock.read_text()
        lock.write_text(content)
    message = refused(machine.locked(tmp_path, "a training").__enter__)
    assert "process 7 on node4" in message and "120 s after its end" in message
    assert lock.exists()
    past = time.time() - machine.STALE - 1
    os.utime(lock, (past, past))
    with machine.locked(tmp_path, "a training"):
        assert "process 7 " not in lock.read_text()


def test_a_lock_is_renewed_while_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "RENEWED", 0.01)
    with machine.locked(tmp_path, "a training"):
        os.utime(tmp_path / machine.LOCK, (0, 0))
        end = time.monotonic() + 10
        while os.stat(tmp_path / machine.LOCK).st_mtime == 0:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_a_scratch_folder_goes_and_those_of_killed_processes_too(tmp_path):
    for name, lock in ((".pspnet.aa.partial", True), (".pspnet.bb.partial", False)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").touch()
        if lock:
            (tmp_path / name / machine.LOCK).touch()
    with (
        machine.scratch_in(tmp_path, "pspnet") as one,
        machine.scratch_in(tmp_path, "pspnet") as other,
    ):
        assert one != other and one.is_dir() and other.is_dir()
        assert not (tmp_path / ".pspnet.aa.partial").exists()
    assert [path.name for path in tmp_path.iterdir()] == [".pspnet.bb.partial"]


@pytest.mark.parametrize(
    "texts, expected",
    [
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({}, 8),
    ],
)
def test_the_cores_are_those_of_the_container(monkeypatch, texts, expected):
    def read_text(path):
        name = str(path).removeprefix("/sys/fs/cgroup/")
        if name not in texts:
            raise FileNotFoundError(name)
        return texts[name]

    monkeypatch.setattr(machine.Path, "read_text", read_text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    assert machine.cores() == machine.threads() == expected
    for given, threads in (("5", 5), ("0", expected), ("many", expected)):
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", given)
        assert machine.threads() == threads and machine.cores() == expected
