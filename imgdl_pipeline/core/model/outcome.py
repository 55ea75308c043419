"""The one vocabulary for what became of a link.

```
    ok
    invalid   bytes came, but they are no whole JPEG
    ├── not_jpeg  truncated  corrupt  unsupported
    │   too_many_pixels  too_much_memory  hash_mismatch
    failed    the bytes could not be had
    ├── http_<status>  timeout  dns  connection  tls  redirects  incomplete  placeholder
    refused   a rule of ours forbade it
    └── private_address  too_large  robots  opt_out  scheme
"""

from enum import Enum


class Status(str, Enum):
    """What became of a link, in one word."""

    OK = "ok"
    INVALID = "invalid"
    FAILED = "failed"
    REFUSED = "refused"


class Reason(str, Enum):
    """Why a link has no image. Each reason belongs to one `Status`."""

    status: Status

    def __new__(cls, code: str, status: Status) -> "Reason":
        """Make a member that is its code and knows its status."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.status = status
        return member

    NOT_JPEG = "not_jpeg", Status.INVALID
    TRUNCATED = "truncated", Status.INVALID
    CORRUPT = "corrupt", Status.INVALID
    UNSUPPORTED = "unsupported", Status.INVALID
    TOO_MANY_PIXELS = "too_many_pixels", Status.INVALID
    TOO_MUCH_MEMORY = "too_much_memory", Status.INVALID
    HASH_MISMATCH = "hash_mismatch", Status.INVALID

    HTTP = "http", Status.FAILED
    TIMEOUT = "timeout", Status.FAILED
    DNS = "dns", Status.FAILED
    CONNECTION = "connection", Status.FAILED
    TLS = "tls", Status.FAILED
    REDIRECTS = "redirects", Status.FAILED
    INCOMPLETE = "incomplete", Status.FAILED
    PLACEHOLDER = "placeholder", Status.FAILED

    PRIVATE_ADDRESS = "private_address", Status.REFUSED
    TOO_LARGE = "too_large", Status.REFUSED
    ROBOTS = "robots", Status.REFUSED
    OPT_OUT = "opt_out", Status.REFUSED
    SCHEME = "scheme", Status.REFUSED


RETRYABLE_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP answers that another attempt may better; every other one is final."""

DETAIL_CHARS = 500
"""A longer detail is cut: servers write what they like into status lines."""


def printable(detail: str) -> str:
    """Return a text of a stranger on one line, cut to `DETAIL_CHARS`."""
    return "".join(each if each.isprintable() else " " for each in detail[:DETAIL_CHARS])


class FetchError(Exception):
    """A link's bytes could not be had, may not be had, or are not what was asked for.

    Args:
        reason: Why, as the catalog's `reason` column has it.
        detail: The same in words, for a person.
        http_status: The last answer's status, where there was an answer.
        retryable: Whether another attempt may succeed.

    Its `host`, once known, is the one that the last request went to, which a redirect may have changed.
    """

    def __init__(
        self, reason: Reason, detail: str, *, http_status: int | None = None, retryable: bool = False
    ) -> None:
        self.reason = reason
        self.detail = printable(detail)
        self.http_status = http_status
        self.retryable = retryable
        self.host = ""
        super().__init__(f"{reason.value}: {self.detail}")

    @property
    def code(self) -> str:
        """The catalog's code: the reason's own, or `http_<status>`."""
        if self.reason is Reason.HTTP:
            return f"http_{self.http_status}"
        return str(self.reason.value)


class UnreachableError(FetchError):
    """No connection to a host could be made: what is in the way concerns all of its links."""

    def __init__(self, detail: str, reason: Reason = Reason.CONNECTION) -> None:
        super().__init__(reason, detail, retryable=True)


class RetryAfter(FetchError):
    """The host asks everyone to wait before the next request.

    Args:
        detail: In words.
        seconds: How long, or None where it did not say.
        http_status: Of its answer.
    """

    def __init__(self, detail: str, seconds: float | None, *, http_status: int) -> None:
        super().__init__(Reason.HTTP, detail, http_status=http_status, retryable=True)
        self.seconds = seconds


class ResourceError(Exception):
    """This machine ran out of disk or of file descriptors: no link's fault, and no use in going on."""
