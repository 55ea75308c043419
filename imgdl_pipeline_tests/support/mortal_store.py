"""A store whose process dies before the n-th write: a quick `mortal.py` for what writes by the store only."""

import threading

from imgdl_pipeline.core.storage.store import Store


class Killed(BaseException):
    """The process is gone."""


class MortalStore(Store):
    """Writes so many times; then the process that uses it is dead, and does nothing any more."""

    def __init__(self, root, writes):
        super().__init__(root)
        self.left, self.lock = writes, threading.Lock()

    def _lives(self):
        with self.lock:
            self.left -= 1
            if self.left < 0:
                raise Killed

    def put(self, path, data):
        self._lives()
        super().put(path, data)

    def create(self, path, data):
        self._lives()
        return super().create(path, data)

    def move(self, path, to):
        self._lives()
        super().move(path, to)

    def delete(self, paths):
        for path in paths:  # a process can end between any two of them
            self._lives()
            super().delete([path])
