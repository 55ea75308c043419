"""Send messages, and open files, between a run and its download processes.

Both ends are this program, started by the run itself, so messages are pickled. Nothing goes by a name or an
argument that others on the machine could read.
"""

import pickle
import socket
import threading
from typing import Any

LENGTH_BYTES = 4
"""Before each message, its length."""

_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class Channel:
    """One end of a pair of connected sockets. Any thread may send, one thread receives.

    Args:
        connection: The socket.
    """

    # Shared mutable state: what is being sent, under `_lock`.

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, message: object, descriptor: int | None = None) -> None:
        """Send a message, which may come with the descriptor of an open file.

        A message that is interrupted halfway is the last one, so that the other end cannot misread the next.

        Raises:
            OSError: The other end is gone.
        """
        body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        data = memoryview(len(body).to_bytes(LENGTH_BYTES, "big") + body)
        with self._lock:
            try:
                if descriptor is not None:
                    data = data[socket.send_fds(self._connection, [data], [descriptor]) :]
                self._connection.sendall(data)
            except BaseException:
                self.end()
                raise

    def receive(self) -> tuple[Any, int | None]:
        """Return the next message, and the descriptor that came with it, which is then the caller's.

        Raises:
            EOFError: The other end has ended the channel, or is gone.
        """
        head, descriptors, _, _ = self._part(LENGTH_BYTES)
        head += self._rest(LENGTH_BYTES - len(head))
        return pickle.loads(self._rest(int.from_bytes(head, "big"))), descriptors[0] if descriptors else None  # noqa: S301

    def end(self) -> None:
        """Send nothing more; the other end sees that, also if it is in the middle of a message."""
        try:
            self._connection.shutdown(socket.SHUT_WR)
        except OSError:  # the other end is gone
            return

    def close(self) -> None:
        """Close this end; only when no thread uses it any more."""
        self._connection.close()

    def _part(self, size: int) -> tuple[bytes, list[int], int, Any]:
        try:
            received = socket.recv_fds(self._connection, size, 1, _CLOSE_ON_EXEC)
        except OSError as error:
            raise EOFError(str(error)) from error
        if not received[0]:
            raise EOFError("the other end is gone")
        return received

    def _rest(self, size: int) -> bytearray:
        data = bytearray(size)
        view, done = memoryview(data), 0
        while done < size:
            try:
                received = self._connection.recv_into(view[done:])
            except OSError as error:
                raise EOFError(str(error)) from error
            if not received:
                raise EOFError("the other end is gone")
            done += received
        return data
