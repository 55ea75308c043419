"""The process that forks the decoding processes, from the run's side: starts it, and asks it for workers."""

import fcntl
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from imgdl_pipeline.core.jpeg.protocol import FORK, GO, REAP
from imgdl_pipeline.core.jpeg.worker_client import Worker
from imgdl_pipeline.core.model.outcome import ResourceError

SHARED_BYTES = 4 * 1024 * 1024
"""Memory that each worker shares with this process; a larger image comes as a file."""

START_S = 60.0
"""Seconds that the server may take to start on a machine that is busy."""

KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "OPENBLAS_CORETYPE")
"""All of the environment that the processes get: secrets are not for decoders."""

ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class ForkServer:
    """Starts the server when it is first needed, and again where it is gone; one lock guards all state."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: _Process | None = None
        self._workers: dict[Worker, _Process] = {}
        self._is_closed = False

    def start(self) -> None:
        """Start the server, without waiting until it is ready.

        Raises:
            ResourceError: It cannot be started.
        """
        with self._lock:
            self._running()

    def fork(self, wait_s: float) -> Worker:
        """Return a new worker, whose answers are waited for so many seconds.

        Raises:
            ResourceError: It cannot be started.
        """
        for is_last in (False, True):  # a server that has been killed since it was used gets a successor
            try:
                with self._lock:
                    return self._forked(wait_s)
            except (OSError, ResourceError) as error:
                with self._lock:
                    self._stop()
                if is_last or self._is_closed:
                    raise ResourceError(f"no process can be started to decode images: {error}") from error
        raise AssertionError("unreachable")

    def _forked(self, wait_s: float) -> Worker:
        shared_fd = _shared_memory()
        try:
            server = self._running()
            pid, connection = server.fork(shared_fd)
            worker = Worker(pid, connection, mmap.mmap(shared_fd, SHARED_BYTES), wait_s)
        finally:
            os.close(shared_fd)
        self._workers[worker] = server
        return worker

    def ended(self, worker: Worker) -> int:
        """Kill a worker if it still runs, and return how it ended, as `waitpid` has it."""
        worker.close()
        with self._lock:
            server = self._workers.pop(worker, None)
            if server is None or server is not self._process:
                return signal.SIGKILL  # it ended with the server that had forked it
            try:
                return server.reap(worker.pid)
            except OSError:  # the server is gone, and its workers with it; the next fork starts one
                self._stop()
                return signal.SIGKILL

    def close(self) -> None:
        """End the server; its workers end with it."""
        with self._lock:
            self._is_closed = True
            self._stop()

    def _running(self) -> "_Process":
        if self._is_closed:
            raise ResourceError("the workers are closed")
        if self._process is None:
            try:
                self._process = _Process()
            except OSError as error:
                raise ResourceError(f"no process can be started to decode images: {error}") from error
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None


class _Process:
    """One server process: what it prints, and the socket on which it is asked."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        self._control.settimeout(START_S)
        self._is_ready = False
        self._printed = tempfile.TemporaryFile()
        package = str(Path(__file__).parents[3])  # an editable install may have it on no path
        code = (
            f"import sys; sys.path[:] = {[package, *sys.path]!r}; "
            f"from imgdl_pipeline.core.jpeg.worker import main; main({theirs.fileno()})"
        )
        environment = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        with theirs:
            self._popen = subprocess.Popen(  # noqa: S603 -- this program, with code of ours
                [sys.executable, "-I", "-S", "-c", code],
                env=environment | ONE_THREAD,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._printed,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def fork(self, shared_fd: int) -> tuple[int, socket.socket]:
        """Return the number of a new worker, and a socket to it; raises OSError where the server is gone."""
        if not self._is_ready:
            self._await_ready()
        socket.send_fds(self._control, [FORK], [shared_fd])
        answer, descriptors, _, _ = socket.recv_fds(self._control, 4, 1)
        if not descriptors:
            raise OSError("the process that forks decoders is gone")
        return int.from_bytes(answer, "big"), socket.socket(fileno=descriptors[0])

    def reap(self, pid: int) -> int:
        """Have the server kill a worker and return how it ended; raises OSError where the server is gone.

        Only the server, whose child the worker is, can know that the number is not another process's by now.
        """
        self._control.sendall(REAP + pid.to_bytes(4, "big"))
        status = self._control.recv(4)
        if not status:
            raise OSError("the process that forks decoders is gone")
        return int.from_bytes(status, "big")

    def stop(self) -> None:
        """End the server. Linux ends its workers then; elsewhere they end when their sockets are closed."""
        self._control.close()
        self._popen.kill()
        self._popen.wait()
        self._printed.close()

    def _await_ready(self) -> None:
        with suppress(OSError):
            self._is_ready = self._control.recv(1) == GO
        if not self._is_ready:
            self._printed.seek(0)
            lines = self._printed.read().decode(errors="replace").strip().splitlines()
            why = lines[-1] if lines else "it printed nothing"
            raise ResourceError(f"the process that decodes images does not start: {why}")


def _shared_memory() -> int:
    """Return a descriptor of `SHARED_BYTES` of memory that has no name."""
    if sys.platform != "linux":
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, SHARED_BYTES)
        return descriptor
    descriptor = os.memfd_create("image", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, SHARED_BYTES)
    # Were it cut by a worker, this process would be killed at its next write.
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor
