"""Join the processes of a training over several hosts, and end all of them when one ends."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import secrets
import select
import socket
import sys
import threading
import time
import warnings

import numpy as np

from keras_pspnet.errors import UserError, reason_of

HEARTBEAT = 600
"""Seconds without a sign of life after which `jax.distributed` takes a process for dead. A process
on a busy machine may be late; `Watch` finds dead ones much earlier."""

SILENCE = 40
"""Seconds after which a host that does not answer is taken for dead."""

DONE = b"d"
"""What a process says when its part of the training is done."""

ENDED = "another process of this training has ended; start all of them again with --resume"

START = 300
"""Seconds that the processes wait for each other at the start; jax.distributed's own value."""


@dataclasses.dataclass(frozen=True)
class Processes:
    """Say which process of a training this is.

    Args:
        coordinator: HOST:PORT at which process 0 listens and all others find it.
        processes: their number.
        process: number of this one, from 0.
    """

    coordinator: str
    processes: int
    process: int


def read_processes(coordinator=None, processes=None, process=None) -> Processes | None:
    """Return which process of a training this is; None for a training in one process.

    What is not given is taken from the variables of a job step of SLURM; without any of the three
    only if KERAS_BACKEND is jax.

    Raises:
        UserError: one of the three is missing or cannot be, or the Keras backend is another.
    """
    given = (coordinator, processes, process)
    backend = os.environ.get("KERAS_BACKEND")
    slurm = _slurm()
    if processes == 1 or (given == (None,) * 3 and not (slurm and backend == "jax")):
        return None
    coordinator, processes, process = (
        theirs if mine is None else mine for mine, theirs in zip(given, slurm or given)
    )
    if None in (coordinator, processes, process):
        raise UserError(
            "a training over several processes needs --coordinator HOST:PORT, --processes P and "
            "--process I; give all three, or start it by srun"
        )
    if not re.fullmatch(r"[^\s:]+:\d{1,5}|\[[^\s\]]+\]:\d{1,5}", coordinator):
        raise UserError(f"--coordinator {coordinator}: expected HOST:PORT of process 0")
    if processes < 1:
        raise UserError(f"--processes {processes}: expected at least 1")
    if not 0 <= process < processes:
        raise UserError(f"--process {process}: expected a number from 0 to {processes - 1}")
    if backend not in (None, "jax"):
        raise UserError(
            f"KERAS_BACKEND={backend}: a training over several processes needs KERAS_BACKEND=jax"
        )
    return Processes(coordinator, processes, process)


def _slurm() -> tuple[str, int, int] | None:
    """Return coordinator, processes and process of a job step of several tasks, or None."""
    names = ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_JOB_ID")
    texts = [os.environ.get(name) for name in names]
    if None in texts or texts[0] == "1":
        return None
    tasks, process, hosts, job = texts
    first = re.match(r"([^\[,]+)(?:\[(\d+))?", hosts)  # node7,node9 or node[07-09,12],other3
    port = 61440 + int(job) % 4096  # as jax.distributed chooses it
    return f"{first[1]}{first[2] or ''}:{port}", int(tasks), int(process)


def join(place: Processes) -> None:
    """Join the other processes of a training; it waits for all of them.

    Raises:
        UserError: JAX is missing, or the others do not come.
    """
    os.environ["KERAS_BACKEND"] = "jax"
    # Keras's MeanIoU counts in int64, which JAX turns into int32: each process would say so.
    warnings.filterwarnings("ignore", "Explicitly requested dtype int64", UserWarning)
    try:
        import jax
    except ImportError as error:
        raise UserError(
            'several processes need JAX; install it with pip install "keras-pspnet[distributed]"'
        ) from error
    try:
        jax.distributed.initialize(
            place.coordinator,
            place.processes,
            place.process,
            cluster_detection_method="deactivate",  # SLURM's would take one GPU a process
            initialization_timeout=START,
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    except RuntimeError as error:
        raise UserError(
            f"{place.coordinator}: the {place.processes} processes did not find each other "
            f"({reason_of(error)}); expected process 0 to listen there"
        ) from error


def leave() -> None:
    """Leave the other processes at the end of a training; it waits for all of them."""
    import jax

    jax.distributed.shutdown()


class Watch:
    """Watch the other processes of a training, and end this one when one of them ends early.

    A process that waits for a dead one in a sum over all devices can be woken by nothing. Process 0
    therefore holds a connection to each other one. The system closes it when a process ends, and
    when its host has not answered for `SILENCE`.

    Args:
        peers: connected sockets.
    """

    def __init__(self, peers: list):
        self.peers = peers
        for peer in peers:
            _keep_alive(peer)
        threading.Thread(target=self._wait, args=(list(peers),), daemon=True).start()

    def done(self) -> None:
        """Tell the others that this process is done: they no longer need it."""
        for peer in self.peers:
            with contextlib.suppress(OSError):  # done before, and gone
                peer.sendall(DONE)

    def close(self) -> None:
        """Close the connections, which ends the other processes: this one has failed."""
        peers, self.peers = self.peers, []  # before the thread of this watch wakes
        for peer in peers:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)

    def _wait(self, running: list) -> None:
        while running:
            for peer in select.select(running, [], [])[0]:
                said = b""
                with contextlib.suppress(OSError):
                    said = peer.recv(1)
                if said == DONE or not self.peers:
                    running.remove(peer)
                    continue
                print(f"keras-pspnet train: {ENDED}", file=sys.stderr, flush=True)
                os._exit(2)


def connect(host: str) -> list:
    """Connect process 0 with each other one, and return this process's sockets.

    Args:
        host: where process 0 is found.
    """
    import jax
    from jax.experimental import multihost_utils

    first, others = jax.process_index() == 0, jax.process_count() - 1
    listener = socket.create_server(("", 0)) if first else None
    # The number keeps strangers out: who connects has to know it.
    port = [listener.getsockname()[1], secrets.randbits(30)] if first else [0, 0]
    port, number = map(int, multihost_utils.broadcast_one_to_all(np.array(port, np.int32)))
    peers, key = [], number.to_bytes(4, "big")
    if not first:
        peers.append(socket.create_connection((host, port)))
        peers[0].sendall(key)
        return peers
    with listener:
        while len(peers) < others:
            peer, _ = listener.accept()
            if peer.recv(len(key), socket.MSG_WAITALL) == key:
                peers.append(peer)
    return peers


def _keep_alive(peer) -> None:
    """Let the system ask every few seconds whether the other host still answers."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("IDLE", SILENCE // 4), ("INTVL", SILENCE // 4), ("CNT", 3)):
        with contextlib.suppress(AttributeError, OSError):  # macOS has other names
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_KEEP{name}"), value)


@contextlib.contextmanager
def guarded():
    """Turn JAX's error about a process that has ended into a UserError."""
    import jax

    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        time.sleep(5)  # if a process has ended, its watch ends this one now
        raise UserError(
            f"the processes of this training lost each other ({reason_of(error)})"
        ) from error
