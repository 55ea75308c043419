"""What a run and its download processes say to each other.

```
run ─→ process    Start, then Jobs, Slots, Checked, and End when all links are done
process ─→ run    Row, Moved, Dropped, Waits, Wanted, SlotsInUse, Check, Logged; Ended or Failed as the last
```
"""

from dataclasses import dataclass

from imgdl_pipeline.core.download.crew import Task
from imgdl_pipeline.core.download.host_queue import Requeue
from imgdl_pipeline.core.download.plan import Job
from imgdl_pipeline.core.download.shares import HostShares
from imgdl_pipeline.core.http.robots_rules import RobotsRules
from imgdl_pipeline.core.storage.host_leases import Part
from imgdl_pipeline.core.storage.ledger import Download


@dataclass(frozen=True, slots=True)
class Start:
    """The first message to a process.

    Args:
        task: What the run is about.
        shares: Which process works on which hosts.
        number: The process's own number.
        checks_early: Whether the run validates images during the downloads.
        log_level: The lowest level of what the process reports to the log.
    """

    task: Task
    shares: HostShares
    number: int
    checks_early: bool
    log_level: int


@dataclass(frozen=True, slots=True)
class Jobs:
    """Links to work on, some of them after a delay."""

    items: list[Requeue[Job]]


@dataclass(frozen=True, slots=True)
class Slots:
    """The slots that the run has of a host that it shares with other runs.

    Args:
        host: The host.
        part: How many requests may be in flight to it, and the limits of all runs.
        until: The time since this machine's start after which there are none, unless a new message says so.
        question: The number of the `SlotsInUse` that is wanted in return; None for none.
    """

    host: str
    part: Part
    until: float
    question: int | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """The process wants to ask a host that is shared with other runs, or is to be from now on."""

    host: str


@dataclass(frozen=True, slots=True)
class SlotsInUse:
    """How many requests to a host may be in flight, after the slots of the question were set."""

    question: int
    busy: int


@dataclass(frozen=True, slots=True)
class Check:
    """An image to validate, whose file comes with the message.

    Args:
        question: The number of the answer.
        url: The link.
        sha256: The digest of the bytes, for whoever keeps the result; None if only the answer is wanted.
    """

    question: int
    url: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Checked:
    """The answer to a `Check`, with the error that says why the image is not valid, or was not validated."""

    question: int
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class End:
    """All links are done: the process ends."""


@dataclass(frozen=True, slots=True)
class Row:
    """The row of a link that is done."""

    row: Download


@dataclass(frozen=True, slots=True)
class Moved:
    """A link that goes on at a host of another process, after a delay."""

    job: Job
    seconds: float


@dataclass(frozen=True, slots=True)
class Dropped:
    """A link that the time limit leaves to the next run."""

    job: Job


@dataclass(frozen=True, slots=True)
class Waits:
    """No link was done for a while; so many are in progress."""

    busy: int


@dataclass(frozen=True, slots=True)
class Logged:
    """A line for the log, with the traceback if there is one."""

    name: str
    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The process ends as it should; with what robots.txt files say about the use of images, by origin."""

    usage: dict[str, RobotsRules]


@dataclass(frozen=True, slots=True)
class Failed:
    """The process ends with an error that ends the run."""

    error: Exception
