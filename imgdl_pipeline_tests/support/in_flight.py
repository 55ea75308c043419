"""Count the requests that a server is answering at the same time."""

import threading

from imgdl_pipeline_tests.support.server import Route, WebHandler

ANSWER_S = 0.03
"""Seconds that an answer takes: a host without any delay would never have two requests in flight."""


class InFlight:
    """Counts requests in flight: `now`, `most` at any time, and `total`; one lock guards them."""

    def __init__(self) -> None:
        self.now = self.most = self.total = 0
        self._lock = threading.Lock()
        self._never = threading.Event()

    def route(self, picture: bytes) -> Route:
        """Return a route that answers with a picture, slowly."""

        def answer(handler: WebHandler) -> None:
            with self._lock:
                self.now, self.total = self.now + 1, self.total + 1
                self.most = max(self.most, self.now)
            self._never.wait(ANSWER_S)
            with self._lock:
                self.now -= 1
            handler.answer(200, picture, Content_Type="image/jpeg")

        return answer
