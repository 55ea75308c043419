"""Every setting a user can give, declared once.

These models are the galleries file's schema, its validation, the launchpad's fields and the core's
arguments. They are strict about unknown keys, and frozen.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from imgdl_pipeline.version import HOME_PAGE, __version__

STORE_SCHEMES = ("s3", "gs", "az", "file")
STORE_SCHEMES_TEXT = ", ".join(f"{scheme}://" for scheme in STORE_SCHEMES)

GALLERY_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
NOT_IN_A_NAME = "..."
"""What Dagster does not take in a partition's key."""


UNKNOWN_KEY = "unknown_key"
"""The type of the error for a key that no setting has; its context names the key."""


class Settings(BaseModel):
    """What all settings have in common: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _knows_all_keys(cls, data: Any) -> Any:
        """Name what is allowed, which pydantic's own error for an unknown key does not."""
        unknown = [key for key in data if key not in cls.model_fields] if isinstance(data, dict) else []
        if unknown:
            allowed = ", ".join(sorted(cls.model_fields))
            raise PydanticCustomError(
                UNKNOWN_KEY,
                "unknown key '{key}'; allowed are {allowed}",
                {"key": unknown[0], "allowed": allowed},
            )
        return data


class MissingSecretError(Exception):
    """A secret is needed now, and the environment variable that should hold it is not set."""


class Secret:
    """A text that may name environment variables, as in `{{ env.IMGUR_CLIENT_ID }}`.

    The variables are looked up when the secret is used, not when the file is read: an unset one
    stops only the gallery that needs it, and no value is kept where it could be printed.
    """

    _VARIABLE = re.compile(r"\{\{\s*env(?:\.|\(\s*['\"])(\w+)(?:['\"]\s*\))?\s*\}\}")

    def __init__(self, template: str) -> None:
        self._template = template

    def reveal(self, key: str, environ: Mapping[str, str]) -> str:
        """The secret itself.

        Args:
            key: The setting's name, for the error.
            environ: Where the variables are looked up.

        Raises:
            MissingSecretError: A variable is unset or empty; names it and the key.
        """

        def value(match: re.Match[str]) -> str:
            found = environ.get(match[1], "").strip()  # what comes from a file ends in a newline
            if not found:
                raise MissingSecretError(f"{key} needs the environment variable {match[1]}, which is not set")
            if not (found.isascii() and found.isprintable()):
                raise MissingSecretError(
                    f"{key} needs printable ASCII in the environment variable {match[1]}"
                )
            return found

        return self._VARIABLE.sub(value, self._template)

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._template == other._template

    def __hash__(self) -> int:
        return hash(self._template)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        """Accept a text or a Secret; show neither when it is dumped."""
        return core_schema.no_info_plain_validator_function(
            cls._from_yaml,
            serialization=core_schema.plain_serializer_function_ser_schema(repr),
        )

    @classmethod
    def _from_yaml(cls, value: Any) -> "Secret":
        if isinstance(value, cls):
            return value
        if not isinstance(value, (str, int)) or not str(value):  # YAML makes an int of digits
            raise ValueError("must be a text, such as {{ env.NAME }}")
        if "{{" in cls._VARIABLE.sub("", str(value)):
            raise ValueError("may use no other template than {{ env.NAME }}")
        return cls(str(value))

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """To an editor a secret is a text."""
        return {"type": ["string", "integer"], "minLength": 1}


class DownloadSettings(Settings):
    """How images are downloaded: defaults for every gallery, and each may override any."""

    workers: int = Field(8, ge=1, le=1024, description="threads in the Queue/DownloadWorker pool")
    per_host: int = Field(8, ge=1, le=1024, description="requests in flight to one host at most")
    timeout: float = Field(
        30, gt=0, le=86_400, description="seconds for one whole attempt, however slowly it drips"
    )
    attempts: int = Field(4, ge=1, le=100, description="attempts at a download that passing trouble stops")
    max_bytes: int = Field(50_000_000, ge=1, description="a larger answer is refused")
    max_pixels: int = Field(180_000_000, ge=1, description="an image of more is not decoded")
    allow_addresses: tuple[str, ...] = Field(
        (), description="CIDRs of non-public addresses that may be fetched from, e.g. 127.0.0.0/8"
    )
    robots_txt: bool = Field(True, description="refuse a link that its host's robots.txt disallows")
    opt_out_headers: bool = Field(
        True,
        description="refuse an answer whose X-Robots-Tag has noai, noimageai, noindex or noimageindex",
    )
    recheck: Literal["never"] | Annotated[float, Field(gt=0, le=36_500)] = Field(
        "never", description="or a number of days: older images are asked for again, conditionally"
    )
    user_agent: str | None = Field(None, description=f"null: imgdl_pipeline/{__version__} (+{HOME_PAGE})")

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
        try:
            return handler(value)
        except ValidationError:
            raise ValueError("must be never, or a number of days above 0") from None

    @field_validator("user_agent")
    @classmethod
    def _is_a_header(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", value):
            raise ValueError("must be one line of printable ASCII, without spaces around it")
        return value

    @property
    def user_agent_header(self) -> str:
        """The User-Agent that is sent."""
        return self.user_agent or f"imgdl_pipeline/{__version__} (+{HOME_PAGE})"

    def overridden_by(self, overrides: Mapping[str, Any]) -> "DownloadSettings":
        """These settings, with some replaced; the new ones are validated as any other."""
        return DownloadSettings.model_validate({**self.model_dump(), **overrides})


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an http or https URL")
    return value


HttpUrl = Annotated[str, AfterValidator(_http_url)]


class SourceSettings(Settings):
    """What all sources have in common."""

    own_addresses: ClassVar[tuple[str, ...]] = ()
    """CIDRs of non-public addresses at which the source itself serves its images."""


class DemoSource(SourceSettings):
    """The embedded demo gallery: real HTTP on a loopback port, no network needed."""

    own_addresses: ClassVar[tuple[str, ...]] = ("127.0.0.1/32",)

    type: Literal["demo"]
    images: int = Field(40, ge=1, le=1_000_000, description="how many links it lists")


class UrlListSource(SourceSettings):
    """A file of links."""

    type: Literal["url_list"]
    path: str = Field(min_length=1, description="a path, a glob, or an http(s)/s3/gs/az URL")
    format: Literal["txt", "csv", "tsv", "json", "jsonl", "parquet"] | None = Field(
        None, description="null: by the path's ending, with or without .gz"
    )
    url_column: str = Field("url", min_length=1, description="the column or key that holds the link")


class ImgurSource(SourceSettings):
    """A gallery of Imgur's API v3."""

    type: Literal["imgur"]
    gallery: str = Field(
        pattern=r"^(hot|top|user|random|r/\w+|t/[\w-]+|a/\w+)$",
        description="hot, top, user, random, r/<subreddit>, t/<tag> or a/<album>",
    )
    client_id: Secret = Field(description="the API's Client-ID, e.g. {{ env.IMGUR_CLIENT_ID }}")
    api_url: HttpUrl = Field("https://api.imgur.com/3/", description="where the API answers")
    max_pages: int = Field(1, ge=1, le=1000, description="pages of the gallery to read")


class WikimediaCommonsSource(SourceSettings):
    """The JPEG files of a category of Wikimedia Commons."""

    type: Literal["wikimedia_commons"]
    category: str = Field(min_length=1, description="its name, with or without Category:")
    depth: int = Field(0, ge=0, le=20, description="levels of subcategories to follow")
    api_url: HttpUrl = Field(
        "https://commons.wikimedia.org/w/api.php", description="where the MediaWiki API answers"
    )
    max_images: Annotated[int, Field(ge=1)] | None = Field(None, description="null: all of them")


AnySource = DemoSource | UrlListSource | ImgurSource | WikimediaCommonsSource

Source = Annotated[AnySource, Field(discriminator="type")]


SECRET_KEYS = frozenset(
    key
    for source in get_args(AnySource)
    for key, field in source.model_fields.items()
    if field.annotation is Secret
)
"""Keys whose values are rendered when they are used, and never shown."""


class Gallery(Settings):
    """One gallery: a partition, a source, and what it overrides."""

    name: str = Field(
        pattern=GALLERY_NAME,
        description="1 to 100 of A-Z a-z 0-9 _ . -, starting with a letter or digit",
    )
    source: Source
    download: DownloadSettings = Field(
        DownloadSettings(), description="overrides of the file's download settings"
    )

    @field_validator("name")
    @classmethod
    def _is_a_partition_key(cls, value: str) -> str:
        if NOT_IN_A_NAME in value:
            raise ValueError(f"must not hold {NOT_IN_A_NAME}, which Dagster keeps to itself")
        return value


class _EditorSchema(GenerateJsonSchema):
    """JSON schema in which a validator can point at the very key that is wrong.

    Pydantic's own writes `anyOf` and `oneOf`, of which a validator can only say that nothing fits.
    """

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """A type or null, as one list of types where the inner schema has a type."""
        inner = self.generate_inner(schema["schema"])
        if "type" not in inner or "enum" in inner:
            return super().nullable_schema(schema)
        return {**inner, "type": [inner["type"], "null"]}

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """The tag first; then the schema that belongs to it, and only that."""
        union = super().tagged_union_schema(schema)
        key, by_tag = union["discriminator"]["propertyName"], union["discriminator"]["mapping"]
        return {
            "type": "object",
            "required": [key],
            "properties": {key: {"enum": list(by_tag)}},
            "allOf": [
                {"if": {"properties": {key: {"const": tag}}, "required": [key]}, "then": {"$ref": ref}}
                for tag, ref in by_tag.items()
            ],
        }


class Galleries(Settings):
    """The attributes of a galleries file."""

    store: str = Field("data", min_length=1, description="a folder, or s3://bucket/prefix, gs://…, az://…")
    schedule: str | None = Field(
        "0 6 * * *", description="cron expression of the daily run, one a gallery; null for none"
    )
    download: DownloadSettings = Field(DownloadSettings(), description="defaults for every gallery")
    galleries: tuple[Gallery, ...] = Field(
        description="one partition each", json_schema_extra={"minItems": 1}
    )

    @field_validator("galleries")
    @classmethod
    def _stand_once(cls, value: tuple[Gallery, ...]) -> tuple[Gallery, ...]:
        if not value:
            raise ValueError("name at least one gallery")
        seen: dict[str, str] = {}
        for gallery in value:
            earlier = seen.get(gallery.name.lower())
            if earlier is not None:
                raise ValueError(
                    f"the name {gallery.name!r} stands twice, whatever its case: also as {earlier!r}"
                )
            seen[gallery.name.lower()] = gallery.name
        return value

    @field_validator("store")
    @classmethod
    def _is_a_place(cls, value: str) -> str:
        scheme, separator, _ = value.partition("://")
        if separator and scheme not in STORE_SCHEMES:
            raise ValueError(f"{value!r} must be a folder, or start with {STORE_SCHEMES_TEXT}")
        return value

    def gallery(self, name: str) -> Gallery:
        """The gallery of that name.

        Raises:
            KeyError: There is none.
        """
        for gallery in self.galleries:
            if gallery.name == name:
                return gallery
        raise KeyError(name)

    def download_settings(
        self, gallery: Gallery, overrides: Mapping[str, Any] | None = None
    ) -> DownloadSettings:
        """The file's defaults, overridden by the gallery, overridden by one run's own settings."""
        own = gallery.download.model_dump(exclude_unset=True)
        settings = self.download.overridden_by({**own, **(overrides or {})})
        allowed = settings.allow_addresses + gallery.source.own_addresses
        return settings.overridden_by({"allow_addresses": allowed})

    @classmethod
    def editor_schema(cls) -> dict[str, Any]:
        """The JSON schema that editors and `dg check yaml` use."""
        return cls.model_json_schema(schema_generator=_EditorSchema)
