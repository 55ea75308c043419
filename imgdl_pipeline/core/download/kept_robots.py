"""Keep the robots.txt of hosts in the store, so that all runs of a day ask each host for it once.

Each file has a line of JSON and then the text as the host sent it. A day is UTC's, and its files are in one
folder, so that nothing has to be found out to know what is out of date. The text is kept, not a verdict:
what it means for a run depends on the run's User-Agent and purpose.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import Any

from imgdl_pipeline.core.http.host_files import MAX_BYTES, Answer
from imgdl_pipeline.core.storage.layout import ROBOTS_DAYS, robots_path
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store

logger = logging.getLogger(__name__)

TROUBLE_KEPT_S = 600.0
"""Seconds for which it is kept that a host answered its robots.txt with 429 or 5xx three times."""

SKEW_S = 300.0
"""Seconds by which the clock of another machine may be ahead."""

FORGOTTEN_FILES = 10_000
"""The most files of past days that one run deletes."""


class KeptRobots:
    """The robots.txt of hosts that were fetched today, by any run. It can be used by any number of threads.

    A store that fails costs requests to the hosts, but no run: what cannot be read counts as not kept.

    Args:
        store: The store that all runs share.
        user_agent: The User-Agent that is sent. That a host has no file, or is in trouble, holds only for the
            one that was sent: some hosts refuse some agents.
        clock: Returns the time in seconds since 1970.
    """

    def __init__(self, store: Store, user_agent: str, clock: Callable[[], float] = time.time) -> None:
        self._store, self._user_agent, self._clock = store, user_agent, clock

    def get(self, origin: str) -> Answer | None:
        """Return what a host has answered today, or None if nothing is kept that still counts."""
        now = self._clock()
        try:
            text = self._store.get(robots_path(_day(now), origin))
        except StoreError as error:
            logger.warning("the kept robots.txt of %s is not used: %s", origin, error)
            return None
        if text is None:
            return None
        line, _, body = text.partition(b"\n")
        head = _parsed(line)
        answer = Answer(head["status"], body) if _is_sound(head, origin, body) else None
        if answer is None or not -SKEW_S <= now - head["fetched_at"] < 86_400:
            return None
        if answer.is_file:
            return answer
        is_old_trouble = answer.is_trouble and now - head["fetched_at"] >= TROUBLE_KEPT_S
        return None if is_old_trouble or head.get("user_agent") != self._user_agent else answer

    def put(self, origin: str, answer: Answer) -> None:
        """Keep what a host has answered."""
        now = self._clock()
        head = {
            "origin": origin,
            "status": answer.status,
            "fetched_at": now,
            "user_agent": self._user_agent,
            "sha256": hashlib.sha256(answer.body).hexdigest(),
        }
        try:
            self._store.put(robots_path(_day(now), origin), json.dumps(head).encode() + b"\n" + answer.body)
        except StoreError as error:
            logger.warning("the robots.txt of %s is not kept for other runs: %s", origin, error)

    def forget_past_days(self) -> None:
        """Delete files of past days, at most `FORGOTTEN_FILES`. Keep yesterday's: clocks differ."""
        yesterday = _day(self._clock() - 86_400)
        try:
            for folder in list(self._store.folders(ROBOTS_DAYS)):
                if _is_day(folder.rpartition("/")[2]) and folder.rpartition("/")[2] < yesterday:
                    self._forget(folder)
                    return
        except StoreError as error:
            logger.warning("the robots.txt files of past days are not deleted: %s", error)

    def _forget(self, folder: str) -> None:
        files = [file.path for file in islice(self._store.list(folder), FORGOTTEN_FILES)]
        self._store.delete(files)
        if len(files) < FORGOTTEN_FILES:
            self._store.delete_folder(folder)


def _day(seconds: float) -> str:
    """Return the day of a time, in UTC, such as `2026-11-27`."""
    return (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)).date().isoformat()


def _is_day(name: str) -> bool:
    try:
        return datetime.strptime(name, "%Y-%m-%d").replace(tzinfo=timezone.utc).date().isoformat() == name
    except ValueError:
        return False


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        head = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return head if isinstance(head, dict) else {}


def _is_sound(head: dict[str, Any], origin: str, body: bytes) -> bool:
    """Return whether a file is whole, and that of a host."""
    numbers = (head.get("status"), head.get("fetched_at"))
    return (
        all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in numbers)
        and head.get("origin") == origin
        and len(body) <= MAX_BYTES
        and head.get("sha256") == hashlib.sha256(body).hexdigest()
    )
