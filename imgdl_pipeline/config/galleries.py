"""Define the settings of a galleries file: the galleries with their sources, and what they share.

This module combines the settings of built-in sources with the settings of sources from other packages.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args

from pydantic import Field, field_validator
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from imgdl_pipeline.core.listing.build import LIST_TIMEOUT_S
from imgdl_pipeline.core.model.settings import (
    CheckSettings,
    DownloadSettings,
    Secret,
    Settings,
    SourceSettings,
)
from imgdl_pipeline.core.sources import source_types, type_name

STORE_SCHEMES = ("s3", "gs", "az", "file")
STORE_SCHEMES_TEXT = ", ".join(f"{scheme}://" for scheme in STORE_SCHEMES)

GALLERY_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
NOT_IN_A_NAME = "..."
"""Text that Dagster does not allow in a partition key."""


if TYPE_CHECKING:
    Source = SourceSettings
else:
    Source = Annotated[Union[source_types()], Field(discriminator="type")]  # noqa: UP007 -- built at run time


def _is_secret(annotation: Any) -> bool:
    return annotation is Secret or Secret in get_args(annotation)


SECRET_KEYS = {
    type_name(source): frozenset(
        key for key, field in source.model_fields.items() if _is_secret(field.annotation)
    )
    for source in source_types()
}
"""The secret keys by type of source: their values are rendered only when they are used, and never shown."""


class Gallery(Settings):
    """One gallery: a partition, a source, and overrides of the file's defaults."""

    name: str = Field(
        pattern=GALLERY_NAME,
        description="1 to 100 of A-Z a-z 0-9 _ . -, starting with a letter or digit",
    )
    source: Source
    allow_empty: bool = Field(
        False, description="let the source list nothing where it listed links before; else that is an error"
    )
    list_timeout: float = Field(
        LIST_TIMEOUT_S,
        gt=0,
        le=604_800,
        description="seconds that listing may take, whatever the source does",
    )
    download: DownloadSettings = Field(
        DownloadSettings(), description="overrides of the file's download settings"
    )
    checks: CheckSettings = Field(CheckSettings(), description="overrides of the file's check settings")

    @field_validator("name")
    @classmethod
    def _is_a_partition_key(cls, value: str) -> str:
        if NOT_IN_A_NAME in value:
            raise ValueError(f"must not contain {NOT_IN_A_NAME}, which Dagster reserves")
        return value


class _EditorSchema(GenerateJsonSchema):
    """A JSON schema generator whose schemas let a validator point at the exact key that is wrong.

    Pydantic's own generator writes `anyOf` and `oneOf`, for which a validator can only report that no branch
    matches.
    """

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """Return the schema of a nullable type, as one list of types if the inner schema has a type."""
        inner = self.generate_inner(schema["schema"])
        if "type" not in inner or "enum" in inner:
            return super().nullable_schema(schema)
        return {**inner, "type": [inner["type"], "null"]}

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """Return a union's schema that checks the tag first, then only the schema that belongs to it."""
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


_KEY_PART = r"^[A-Za-z0-9_]+$"
_KIND = r"^[A-Za-z0-9_.-]{1,40}$"
_OWNER = r"^(team:[A-Za-z0-9_.-]+|[^@\s]+@[^@\s]+)$"


class AssetSettings(Settings):
    """The keys, group, owners and tags of the three assets, for a graph that has other assets."""

    key_prefix: tuple[Annotated[str, Field(pattern=_KEY_PART)], ...] = Field(
        (), description="before each asset's name, e.g. [media]"
    )
    group_name: str = Field("galleries", pattern=_KEY_PART, description="the group that shows them")
    descriptions: dict[Literal["gallery_links", "gallery_images", "gallery_catalog"], str] = Field(
        {}, description="descriptions that replace the default ones, by the asset's name"
    )
    owners: tuple[Annotated[str, Field(pattern=_OWNER)], ...] = Field(
        (), description="e-mail addresses, or team:name"
    )
    tags: dict[str, str] = Field({}, description="tags of the assets")
    kinds: tuple[Annotated[str, Field(pattern=_KIND)], ...] = Field(
        (), max_length=2, description="kinds to show besides jpeg and parquet"
    )
    code_references: tuple[str, ...] = Field(
        (), description="files and URLs to link to from the assets, besides this file and our own code"
    )
    pool: str | None = Field(
        "gallery_downloads",
        pattern=_KEY_PART,
        description="Dagster's concurrency pool that gallery_images runs in; null for none",
    )

    def named(self, name: str) -> str:
        """Return a name that must be unique in a code location, with the key prefix if there is one."""
        return "_".join([*self.key_prefix, name])


class Galleries(Settings):
    """The attributes of a galleries file."""

    store: str = Field("data", min_length=1, description="a folder, or s3://bucket/prefix, gs://…, az://…")
    schedule: str | None = Field(
        "0 6 * * *", description="cron expression of the daily runs, one per gallery; null for none"
    )
    schedule_status: Literal["RUNNING", "STOPPED"] = Field(
        "STOPPED", description="whether the schedule runs before anyone switches it on or off in the UI"
    )
    download: DownloadSettings = Field(DownloadSettings(), description="defaults for every gallery")
    checks: CheckSettings = Field(CheckSettings(), description="what the asset checks allow")
    assets: AssetSettings = Field(AssetSettings(), description="keys, group, owners and tags of the assets")
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
                    f"the name {gallery.name!r} is used twice, whatever its case: also as {earlier!r}"
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
        """Return the gallery with that name.

        Raises:
            KeyError: There is no such gallery.
        """
        for gallery in self.galleries:
            if gallery.name == name:
                return gallery
        raise KeyError(name)

    def download_settings(
        self, gallery: Gallery, overrides: Mapping[str, Any] | None = None
    ) -> DownloadSettings:
        """Return the file's defaults, overridden by the gallery, then by one run's own settings."""
        own = gallery.download.model_dump(exclude_unset=True)
        settings = self.download.overridden_by({**own, **(overrides or {})})
        allowed = settings.allow_addresses + gallery.source.own_addresses
        return settings.overridden_by({"allow_addresses": allowed})

    def check_settings(self, gallery: Gallery) -> CheckSettings:
        """Return the file's check settings, overridden by the gallery's."""
        return self.checks.overridden_by(gallery.checks.model_dump(exclude_unset=True))

    @classmethod
    def editor_schema(cls) -> dict[str, Any]:
        """Return the JSON schema that editors and `dg check yaml` use."""
        return cls.model_json_schema(schema_generator=_EditorSchema)
