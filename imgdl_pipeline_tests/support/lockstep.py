"""Threads that wait at every call of a store, so that a test decides in which order everything happens."""

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone

from imgdl_pipeline.core.storage.object_store import StoredFile, StoreError


class Ended(BaseException):
    """Ends a thread whose process was killed."""


class Lockstep:
    """One process: `step` lets it go on to its next call of the store, or has it begin its work anew."""

    def __init__(self) -> None:
        self._may_go, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        self._thread: threading.Thread | None = None
        self._is_killed = False
        self.error: BaseException | None = None

    @property
    def is_at_work(self) -> bool:
        return self._thread is not None

    def step(self, work: Callable[[], None]) -> None:
        """Go on to before or after the next call of the store."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
            self._thread.start()
        else:
            self._may_go.release()
        assert self._waits.acquire(timeout=10)
        if self.error is not None:
            raise self.error

    def finish(self, work: Callable[[], None]) -> None:
        """Work until it is done."""
        self.step(work)
        while self.is_at_work:
            self.step(work)

    def kill(self) -> None:
        """End the process where it is."""
        self._is_killed = True
        if self._thread is not None:
            thread = self._thread
            self._may_go.release()
            thread.join(10)
            assert not thread.is_alive()

    def wait(self) -> None:
        """Wait in the process's thread for the next step."""
        self._waits.release()
        self._may_go.acquire()
        if self._is_killed:
            raise Ended

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Ended:
            pass
        except BaseException as error:  # noqa: BLE001 -- raised in the test's own thread
            self.error = error
        finally:
            self._thread = None
            self._waits.release()


class SteppedStore:
    """A process's view of files that all processes share, with a step before and after each call.

    Args:
        files: The files.
        process: The process that calls.
    """

    def __init__(self, files: dict[str, bytes], process: Lockstep) -> None:
        self._files, self._process = files, process
        self.is_failing = self.is_losing_answers = False

    def _call(self, call: Callable[[], bytes | None]) -> bytes | None:
        self._process.wait()
        if self.is_failing:
            raise StoreError("the network is gone")
        answer = call()
        self._process.wait()
        if self.is_losing_answers:
            raise StoreError("the answer was lost")
        return answer

    def list(self, folder: str) -> Iterator[StoredFile]:
        paths: list[str] = []

        def look() -> None:
            paths.extend(path for path in self._files if path.startswith(f"{folder}/"))

        self._call(look)
        return iter([StoredFile(path, 1, datetime.now(timezone.utc)) for path in paths])

    def get(self, path: str) -> bytes | None:
        return self._call(lambda: self._files.get(path))

    def put(self, path: str, data: bytes) -> None:
        self._call(lambda: self._files.update({path: data}))

    def delete(self, paths: "list[str]") -> None:
        self._call(lambda: [self._files.pop(path, None) for path in paths] and None)
