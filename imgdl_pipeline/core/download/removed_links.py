"""Recognise links that were removed for good by how they are sent, whatever their spelling."""

from collections.abc import Iterator

from imgdl_pipeline.core.http.spelling import spelled
from imgdl_pipeline.core.model.outcome import FetchError
from imgdl_pipeline.core.storage.removed import Removed, RemovedNow


class RemovedLinks:
    """The links on the list of removed images, as they would be sent.

    Args:
        now: The list.
    """

    def __init__(self, now: RemovedNow) -> None:
        self._now = now
        self._known: tuple[Removed, frozenset[str]] = (now.list(), frozenset(_sent(now.list())))

    def __contains__(self, url: object) -> bool:
        """Return whether a link was removed.

        Args:
            url: The link, spelled as it will be sent.
        """
        removed = self._now.list()
        if removed is not self._known[0]:
            self._known = (removed, frozenset(_sent(removed)))
        return url in self._known[1]


def _sent(removed: Removed) -> Iterator[str]:
    for url in removed.table["url"].drop_null().to_pylist():
        try:
            yield spelled(url)
        except FetchError:
            continue
