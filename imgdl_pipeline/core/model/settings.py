"""Declare every setting of downloads and sources once.

These models are the galleries file's schema and validation, the launchpad's fields and the core's
arguments. They are frozen and reject unknown keys. `galleries.py` combines them.
"""

import difflib
import ipaddress
import re
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Annotated, Any, ClassVar, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, InitErrorDetails, PydanticCustomError, core_schema

from imgdl_pipeline.version import __version__

UNKNOWN_KEY = "unknown_key"
"""The type of the validation error for an unknown key; its context names the key."""


class Settings(BaseModel):
    """Base class of all settings: instances are frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="wrap")
    @classmethod
    def _knows_all_keys(cls, data: Any, handler: ModelWrapValidatorHandler[Any]) -> Any:
        """Report unknown keys together with the allowed keys, and the errors of the other keys, too.

        Pydantic's own error for an unknown key does not name the allowed ones.
        """
        unknown = [key for key in data if key not in cls.model_fields] if isinstance(data, dict) else []
        if not unknown:
            return handler(data)
        errors = [InitErrorDetails(type=_unknown_key(key, cls.model_fields), input=key) for key in unknown]
        try:
            handler({key: value for key, value in data.items() if key not in unknown})
        except ValidationError as error:
            errors += [_again(each) for each in error.errors(include_url=False)]
        raise ValidationError.from_exception_data(cls.__name__, errors, hide_input=True)


def _unknown_key(key: object, allowed: Collection[str]) -> PydanticCustomError:
    words = unknown_key(key, allowed)
    return PydanticCustomError(UNKNOWN_KEY, "{words}", {"key": str(key), "words": words})


def unknown_key(key: object, allowed: Collection[str]) -> str:
    """Return a message about an unknown key: what is allowed, and what may have been meant."""
    return f"unknown key '{key}'; allowed are {', '.join(sorted(allowed))}" + did_you_mean(key, allowed)


def did_you_mean(name: object, known: Collection[str]) -> str:
    """Return the end of a message about an unknown name: the known one that looks most like it, if any."""
    close = difflib.get_close_matches(str(name).lower(), known, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def _again(error: ErrorDetails) -> InitErrorDetails:
    """Return an error in the form in which it can be raised again."""
    context = error.get("ctx", {})
    known = error["type"] in get_args(core_schema.ErrorType)
    return InitErrorDetails(
        type=error["type"] if known else PydanticCustomError(error["type"], error["msg"], context),
        loc=error["loc"],
        input=error["input"],
        ctx=context,
    )


class MissingSecretError(Exception):
    """Raised if a secret is needed, but its environment variable is not set or is unusable."""


class Secret:
    """A text that may name environment variables, as in `{{ env.IMGUR_CLIENT_ID }}`.

    The variables are looked up when the secret is used, not when the file is read. So an unset variable
    stops only the gallery that needs it, and no value is stored where it could be printed.
    """

    _VARIABLE = re.compile(r"\{\{\s*env(?:\.|\(\s*['\"])(\w+)(?:['\"]\s*\))?\s*\}\}")

    def __init__(self, template: str) -> None:
        self._template = template

    def reveal(self, key: str, environ: Mapping[str, str]) -> str:
        """Return the secret's value.

        Args:
            key: The setting's name, for the error message.
            environ: The environment in which the variables are looked up.

        Raises:
            MissingSecretError: A variable is unset, empty or not printable ASCII. The message names the
                variable and the key.
        """

        def value(match: re.Match[str]) -> str:
            found = environ.get(match[1], "").strip()  # a value that was read from a file ends in a newline
            if not found:
                raise MissingSecretError(f"{key} needs the environment variable {match[1]}, which is not set")
            if not (found.isascii() and found.isprintable()):
                raise MissingSecretError(
                    f"{key} needs printable ASCII in the environment variable {match[1]}"
                )
            return found

        return self._VARIABLE.sub(value, self._template).strip()

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._template == other._template

    def __hash__(self) -> int:
        return hash(self._template)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        """Accept a text or a Secret, and hide its value when the model is dumped."""
        return core_schema.no_info_plain_validator_function(
            cls._from_yaml,
            serialization=core_schema.plain_serializer_function_ser_schema(repr),
        )

    @classmethod
    def _from_yaml(cls, value: Any) -> "Secret":
        if isinstance(value, cls):
            return value
        if not isinstance(value, (str, int)) or not str(value):  # YAML parses digits as an int
            raise ValueError("must be text, such as {{ env.NAME }}")
        if "{{" in cls._VARIABLE.sub("", str(value)):
            raise ValueError("may use no other template than {{ env.NAME }}")
        return cls(str(value))

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Return the JSON schema of a secret, which editors treat as a text."""
        return {"type": ["string", "integer"], "minLength": 1}


CONTACT_HOSTS = ("wikimedia.org", "wikipedia.org")
"""Hosts, with all below them, whose owners ask every program for a contact in its User-Agent.

https://foundation.wikimedia.org/wiki/Policy:Wikimedia_Foundation_User-Agent_Policy
"""

HOST_SLOTS = {"upload.wikimedia.org": 2}
"""Concurrent requests that the owners of some hosts allow, regardless of the settings.

https://wikitech.wikimedia.org/wiki/Robot_policy
"""


class Purpose(str, Enum):
    """What a gallery's images are for, which decides which of their owners' opt-outs refuse them."""

    ai_training = "ai_training"
    search = "search"
    preservation = "preservation"


class AgeGradedRecheck(Settings):
    """How stored images are asked for again the less often, the longer they have not changed."""

    new: float = Field(1, gt=0, le=36_500, description="days until a new image is asked for again")
    stable: float = Field(180, gt=0, le=36_500, description="days after which every image is asked for again")
    max_share: float = Field(0.01, gt=0, le=1, description="share of a gallery's links asked a day")

    @model_validator(mode="after")
    def _can_be_kept(self) -> "AgeGradedRecheck":
        if self.new > self.stable:
            raise ValueError(f"new {self.new:g} is more than stable {self.stable:g}")
        if self.max_share * self.stable < 1:
            raise ValueError(
                f"max_share {self.max_share:g} of the links a day does not reach each of them in "
                f"{self.stable:g} days: give at least {1 / self.stable:.4f}"
            )
        return self


class DownloadSettings(Settings):
    """Settings for downloading images: defaults for all galleries, each of which may override them."""

    workers: int = Field(8, ge=1, le=1024, description="threads in the Queue/DownloadWorker pool")
    processes: Literal["auto"] | Annotated[int, Field(ge=1, le=64)] = Field(
        1,
        description="processes that share the workers, and each host is asked by one of them; auto: one for "
        "each core that the run may use",
    )
    per_host: int = Field(8, ge=1, le=1024, description="requests in flight to one host at most")
    timeout: float = Field(
        30, gt=0, le=86_400, description="seconds for one whole attempt, however slowly it drips"
    )
    attempts: int = Field(4, ge=1, le=100, description="attempts at a download that passing trouble stops")
    max_bytes: int = Field(50_000_000, ge=1, description="a larger answer is refused")
    max_pixels: int = Field(180_000_000, ge=1, description="an image of more is not decoded")
    max_decode_bytes: int = Field(
        300_000_000,
        ge=1,
        description="a progressive image that takes more memory to decode is not; 3 to 6 bytes a pixel",
    )
    host_patience: float = Field(
        300,
        gt=0,
        le=86_400,
        description="seconds that a host may be asked without giving one image or definite answer, before "
        "this run gives it up",
    )
    time_limit: float | None = Field(
        None,
        gt=0,
        le=31_536_000,
        description="seconds after which a run begins no new link; the next run takes the rest",
    )
    requests_per_second: float | None = Field(
        None, gt=0, le=10_000, description="to one host at most; null: as many as it answers well"
    )
    allow_addresses: tuple[str, ...] = Field(
        (), description="CIDRs of non-public addresses that may be fetched from, e.g. 127.0.0.0/8"
    )
    environment_proxies: bool = Field(
        False,
        description="use the proxies that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name; "
        "they must speak HTTP, not SOCKS",
    )
    robots_txt: bool = Field(True, description="refuse a link that its host's robots.txt disallows")
    opt_out_headers: bool = Field(
        True, description="heed what owners say against the use of their images; false: record it only"
    )
    purpose: Purpose = Field(
        Purpose.ai_training,
        description="ai_training, search or preservation: what the images are for decides which opt-outs "
        "refuse them",
    )
    recheck: Literal["never"] | Annotated[float, Field(gt=0, le=36_500)] | AgeGradedRecheck = Field(
        "never",
        description="or a number of days: older images are asked for again, conditionally; or "
        "{new: 1, stable: 180, max_share: 0.01}, days and a share of the links a day",
    )
    user_agent: str | None = Field(
        None,
        description=f"null: imgdl_pipeline/{__version__}; some hosts ask for a contact, as in "
        "my-gallery/1.0 (me@example.org)",
    )

    @field_validator("processes", mode="wrap")
    @classmethod
    def _is_auto_or_number(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        words = "must be auto, or a number of processes from 1 to 64"
        if isinstance(value, bool):  # which pydantic takes for 0 or 1
            raise ValueError(words)  # noqa: TRY004 -- pydantic takes no TypeError
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(words) from None

    @field_validator("allow_addresses")
    @classmethod
    def _are_cidrs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for cidr in value:
            try:
                ipaddress.ip_network(cidr)
            except ValueError as error:
                raise ValueError(f"{error}; give a CIDR such as 10.1.2.0/24") from error
        return value

    @field_validator("recheck", mode="wrap")
    @classmethod
    def _is_never_or_days(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        if isinstance(value, (dict, AgeGradedRecheck)):
            return AgeGradedRecheck.model_validate(value)
        words = "must be never, or a number of days above 0, or {new, stable, max_share}"
        if isinstance(value, bool):  # which pydantic takes for 0 or 1
            raise ValueError(words)  # noqa: TRY004 -- pydantic takes no TypeError
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(words) from None

    @field_validator("user_agent")
    @classmethod
    def _is_a_header(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", value):
            raise ValueError("must be one line of printable ASCII, without spaces around it")
        return value

    @property
    def user_agent_header(self) -> str:
        """Return the User-Agent that is sent."""
        return self.user_agent or f"imgdl_pipeline/{__version__}"

    def slots(self, host: str) -> int:
        """Return the maximum number of concurrent requests to a host, named as `host_of` names it."""
        return min(self.per_host, HOST_SLOTS.get(host, self.per_host))

    def overridden_by(self, overrides: Mapping[str, Any]) -> "DownloadSettings":
        """Return a copy of these settings with some replaced, after validating the new values."""
        return DownloadSettings.model_validate({**self.model_dump(), **overrides})


class CheckSettings(Settings):
    """Thresholds of the asset checks, none of which stops a run."""

    files: Literal["all"] | Annotated[int, Field(ge=1)] = Field(
        100, description="stored files that a run reads again to compare them; or all"
    )
    failed_warn: float = Field(0.1, ge=0, le=1, description="share of failed links above which to warn")
    failed_error: float = Field(0.5, ge=0, le=1, description="share of failed links that is an error")
    invalid_warn: float = Field(0.1, ge=0, le=1, description="share of invalid links above which to warn")
    invalid_error: float = Field(0.5, ge=0, le=1, description="share of invalid links that is an error")
    refused_warn: float = Field(0.1, ge=0, le=1, description="share of refused links above which to warn")
    refused_error: float = Field(0.5, ge=0, le=1, description="share of refused links that is an error")
    lost_warn: float = Field(
        0.5, ge=0, le=1, description="share by which a list may become shorter than the one before"
    )
    unlicensed_warn: float = Field(
        1.0, ge=0, le=1, description="share of images without a license_id above which to warn; 1 never does"
    )
    fresh_days: float | None = Field(
        None,
        gt=0,
        le=36_500,
        description="days after which a gallery is stale; null: after it missed two scheduled runs",
    )

    def overridden_by(self, overrides: Mapping[str, Any]) -> "CheckSettings":
        """Return a copy of these settings with some replaced, after validating the new values."""
        return CheckSettings.model_validate({**self.model_dump(), **overrides})


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http or https URL")
    return value


HttpUrl = Annotated[str, AfterValidator(_http_url)]


MaxImages = Annotated[
    Annotated[int, Field(ge=1)] | None, Field(description="null: all that the source gives")
]


class SourceSettings(Settings):
    """Base class of all sources' settings; each subclass adds `type`, a `Literal` of the source's name."""

    own_addresses: ClassVar[tuple[str, ...]] = ()
    """CIDRs of non-public addresses from which the source itself serves its images."""
