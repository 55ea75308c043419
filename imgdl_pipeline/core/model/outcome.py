"""Define the only vocabulary for the outcome of a link.

```
ok
invalid   bytes were received, but are not a complete JPEG, or not the expected one
├── not_jpeg  truncated  corrupt  unsupported
│   too_many_pixels  too_much_memory  hash_mismatch
failed    the bytes could not be fetched
├── http_<status>  timeout  dns  connection  tls  redirects  incomplete  placeholder
refused   a rule of this pipeline forbids the link
└── private_address  too_large  robots  opt_out  removed  scheme
```
"""

from collections.abc import Sequence
from enum import Enum
from typing import Any

from imgdl_pipeline.core.model.shown import shown


class Status(str, Enum):
    """The outcome of a link, in one word."""

    OK = "ok"
    INVALID = "invalid"
    FAILED = "failed"
    REFUSED = "refused"


class Reason(str, Enum):
    """Why a link has no image. Each reason belongs to one `Status`."""

    status: Status

    def __new__(cls, code: str, status: Status) -> "Reason":
        """Create a member whose value is its code, with its status as an attribute."""
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
    REMOVED = "removed", Status.REFUSED
    SCHEME = "scheme", Status.REFUSED


RETRYABLE_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, *range(520, 528), 530})
"""HTTP statuses after which another attempt may succeed; every other status is final.

Those from 520 on are Cloudflare's for trouble of the server behind it:
https://developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors/.
"""


class FetchError(Exception):
    """Raised if a link's bytes could not be fetched, may not be fetched, or are not the expected ones.

    Args:
        reason: The reason, as in the catalog's `reason` column.
        detail: The reason in words, for a person.
        http_status: The last response's status, if there was a response.
        retryable: Whether another attempt may succeed.

    Once known, `host` is the host of the last request, which may differ from the link's after a redirect, and
    `opt_outs` are the opt-outs that were heard, and `places` those in which they could have been said.
    """

    def __init__(
        self, reason: Reason, detail: str, *, http_status: int | None = None, retryable: bool = False
    ) -> None:
        self.reason = reason
        self.detail = shown(detail)
        self.http_status = http_status
        self.retryable = retryable
        self.host = ""
        self.opt_outs: Sequence[Any] = ()
        self.places: frozenset[str] = frozenset()
        super().__init__(f"{reason.value}: {self.detail}")

    @property
    def code(self) -> str:
        """Return the code for the catalog: the reason's value, or `http_<status>`."""
        if self.reason is Reason.HTTP:
            return f"http_{self.http_status}"
        return str(self.reason.value)

    def __reduce__(self) -> tuple[Any, ...]:
        """Let errors be sent to another process, whatever arguments a subclass takes."""
        return _sent_error, (type(self), self.args, self.__dict__)


def _sent_error(kind: type[FetchError], args: tuple[Any, ...], fields: dict[str, Any]) -> FetchError:
    error: FetchError = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error


class UnreachableError(FetchError):
    """Raised if a host cannot be connected to, which affects all of its links."""

    def __init__(self, detail: str, reason: Reason = Reason.CONNECTION) -> None:
        super().__init__(reason, detail, retryable=True)


class RetryAfter(FetchError):
    """Raised if a host asks for a pause before the next request.

    Args:
        detail: The reason in words.
        seconds: The pause in seconds, or None if the host did not give one.
        http_status: The status of the response.
    """

    def __init__(self, detail: str, seconds: float | None, *, http_status: int) -> None:
        super().__init__(Reason.HTTP, detail, http_status=http_status, retryable=True)
        self.seconds = seconds


class ResourceError(Exception):
    """Raised if this machine has run out of disk space or file descriptors, so the run cannot continue."""
