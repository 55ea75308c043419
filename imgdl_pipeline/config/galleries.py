"""Define the settings of a galleries file: the galleries with their sources, and what they share.

This module combines the settings of built-in sources with the settings of sources from other packages.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args

import dagster as dg
from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import InitErrorDetails, PydanticCustomError, core_schema

from imgdl_pipeline.config.file_version import FileVersion
from imgdl_pipeline.config.galleries_from import GalleriesFrom
from imgdl_pipeline.core.dataset.where import WhereError, check_where
from imgdl_pipeline.core.listing.build import LIST_TIMEOUT_S
from imgdl_pipeline.core.model.dataset_settings import DatasetSettings, NearDuplicateSettings
from imgdl_pipeline.core.model.settings import (
    CheckSettings,
    DownloadSettings,
    MissingSecretError,
    Secret,
    Settings,
    SourceSettings,
)
from imgdl_pipeline.core.sources import source_types, type_name

STORE_SCHEMES = ("s3", "gs", "az", "file")
STORE_SCHEMES_TEXT = ", ".join(f"{scheme}://" for scheme in STORE_SCHEMES)

GALLERY_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"
NAME_RULE = "1 to 100 of A-Z a-z 0-9 _ . -, starting with a letter or digit"
NOT_IN_A_NAME = "..."
"""Text that Dagster does not allow in a partition key."""


def is_gallery_name(name: str) -> bool:
    """Return whether a gallery may have this name."""
    return re.fullmatch(GALLERY_NAME, name) is not None and "\n" not in name and NOT_IN_A_NAME not in name


def partition_of(name: str) -> str:
    """Return the key of the partition of a gallery, or of a shard such as `laion/0007`."""
    return name.rpartition("/")[2]


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


def secret_keys(source: SourceSettings) -> frozenset[str]:
    """Return the keys of a source that hold secrets."""
    return SECRET_KEYS[type_name(type(source))]


def unset_secrets(source: SourceSettings, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a message for each secret of a source that the environment lacks."""
    for key in sorted(secret_keys(source)):
        secret = getattr(source, key)
        try:
            if isinstance(secret, Secret):
                secret.reveal(key, environ)
        except MissingSecretError as error:
            yield str(error)


def _accepted_by_dagster(build: Callable[[Any], object], words: str) -> AfterValidator:
    """Return a validator that lets Dagster judge a value now, while its place in the file is known.

    Args:
        build: Makes a definition with the value, or raises one of Dagster's errors.
        words: The message, in which {error} is Dagster's own and {value} the value.
    """

    def judge(value: Any) -> Any:
        try:
            if value is not None:
                build(value)
        except (dg.DagsterInvalidDefinitionError, dg.DagsterInvariantViolationError) as error:
            context = {"error": str(error), "value": repr(value)}
            raise PydanticCustomError(NOT_ACCEPTED, words, context) from None
        return value

    return AfterValidator(judge)


NOT_ACCEPTED = "not_accepted"
"""The type of the validation error for a value that Dagster does not accept; its message has the value."""

Cron = Annotated[
    str | None,
    _accepted_by_dagster(
        lambda value: dg.ScheduleDefinition(name="checked", job_name="checked", cron_schedule=value),
        '{value} is no cron expression; give five fields, such as "0 6 * * *", or null',
    ),
]
_KEY_PART = r"^[A-Za-z0-9_]+$"
KEY_PART = re.compile(_KEY_PART)
_KIND = r"^[A-Za-z0-9_.-]{1,40}$"
_OWNER = r"^(team:[A-Za-z0-9_.-]+|[^@\s]+@[^@\s]+)$"

Owners = Annotated[
    tuple[Annotated[str, Field(pattern=_OWNER)], ...],
    _accepted_by_dagster(lambda value: dg.AssetSpec("checked", owners=list(value)), "{error}, not {value}"),
]
Tags = Annotated[
    dict[str, str],
    _accepted_by_dagster(lambda value: dg.AssetSpec("checked", tags=value), "{error}, not {value}"),
]


def _condition(value: Any) -> Any:
    if value is not None and not isinstance(value, dg.AutomationCondition):
        raise ValueError('must be a template, such as "{{ dg.AutomationCondition.eager() }}"')
    return value


Condition = Annotated[
    Any, PlainValidator(_condition), WithJsonSchema({"type": ["string", "null"]}), PlainSerializer(str)
]
"""A Dagster automation condition, made by a template."""


class OwnAssetSettings(Settings):
    """The group, owners, tags and automation of assets."""

    group_name: str = Field("galleries", pattern=_KEY_PART, description="the group that shows them")
    owners: Owners = Field((), description="e-mail addresses, or team:name")
    tags: Tags = Field({}, description="tags of the assets")
    automation_condition: Condition = Field(
        None,
        description="when Dagster runs them by itself, such as "
        "{{ dg.AutomationCondition.on_cron('0 6 * * *') }}",
    )


class Dataset(DatasetSettings):
    """A gallery's dataset, whose condition is known to be one."""

    @field_validator("where")
    @classmethod
    def _is_a_condition(cls, value: str | None) -> str | None:
        return condition_over_the_catalog(value, with_groups=True)


def condition_over_the_catalog(where: str | None, *, with_groups: bool) -> str | None:
    """Return a dataset's condition, which DuckDB must be able to use; raise PydanticCustomError if not."""
    problem = where and _problem_with(where, with_groups=with_groups)
    if problem:
        raise PydanticCustomError(NOT_ACCEPTED, "{words}", {"words": f"{where!r} {problem}"})
    return where


@functools.lru_cache(maxsize=1_000)  # galleries often have the same condition, and DuckDB takes its time
def _problem_with(where: str, *, with_groups: bool) -> str | None:
    try:
        check_where(where, with_groups=with_groups)
    except WhereError as error:
        return str(error)
    return None


class Gallery(Settings):
    """One gallery: a partition, a source, and overrides of the file's defaults.

    A shard of a very large gallery is one, too, with a name such as `laion/0007`; no file names it.
    """

    name: str = Field(pattern=GALLERY_NAME, description=NAME_RULE)
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
    trusted: bool = Field(
        True,
        description="let the source be at a private address or on this disk; default: false for galleries "
        "whose row or collection was fetched",
    )
    download: DownloadSettings = Field(
        DownloadSettings(), description="overrides of the file's download settings"
    )
    checks: CheckSettings = Field(CheckSettings(), description="overrides of the file's check settings")
    schedule: Cron = Field(
        None, description="cron expression of its own runs, null for none; default: as the file has it"
    )
    assets: OwnAssetSettings = Field(
        OwnAssetSettings(), description="overrides of the file's, for a gallery with assets of its own"
    )
    dataset: Dataset | None = Field(
        None,
        description="a dataset to make of its images, for training jobs and other readers; null for none",
    )

    @field_validator("name")
    @classmethod
    def _is_a_partition_key(cls, value: str) -> str:
        if NOT_IN_A_NAME in value:
            raise ValueError(f"must not contain {NOT_IN_A_NAME}, which Dagster reserves")
        return value

    @property
    def partition(self) -> str:
        """The key of its partition: its name, or a shard's number."""
        return partition_of(self.name)


def _or_template(schema: JsonSchemaValue) -> JsonSchemaValue:
    """Return a schema that takes a template, too; of all else, a validator reports the schema's error."""
    return {"if": {"type": "string", "pattern": r"\{\{"}, "else": schema}


class _EditorSchema(GenerateJsonSchema):
    """A JSON schema generator whose schemas let a validator point at the exact key that is wrong.

    Pydantic's own generator writes `anyOf` and `oneOf`, for which a validator can only report that no branch
    matches.
    """

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        """Return the schema of an integer, or of a template that makes one."""
        return _or_template(super().int_schema(schema))

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        """Return the schema of a number, or of a template that makes one."""
        return _or_template(super().float_schema(schema))

    def bool_schema(self, schema: core_schema.BoolSchema) -> JsonSchemaValue:
        """Return the schema of a boolean, or of a template that makes one."""
        return _or_template(super().bool_schema(schema))

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        """Return the schema of a nullable type, as one list of types if the inner schema has a type."""
        inner = self.generate_inner(schema["schema"])
        if "$ref" in inner:
            return {"if": {"not": {"type": "null"}}, "then": inner}
        if "else" in inner:
            return {**inner, "else": {**inner["else"], "type": [inner["else"]["type"], "null"]}}
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


Described = Literal[
    "gallery_links", "gallery_list", "gallery_images", "gallery_catalog", "gallery_dataset", "near_duplicates"
]


class AssetSettings(OwnAssetSettings):
    """The keys, group, owners and tags of the assets, for a graph that has other assets."""

    key_prefix: tuple[Annotated[str, Field(pattern=_KEY_PART)], ...] = Field(
        (), description="before each asset's name, e.g. [media]"
    )
    descriptions: dict[Described, str] = Field(
        {}, description="descriptions that replace the default ones, by the asset's name"
    )
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

    def is_like(self, other: "AssetSettings") -> bool:
        """Return whether another file's assets or definitions would have the same names as this one's."""
        mine, theirs = self.key_prefix, other.key_prefix
        return any(joint.join(mine) == joint.join(theirs) for joint in ("_", "__"))

    def named(self, name: str) -> str:
        """Return a name that must be unique in a code location, with the key prefix if there is one."""
        return "_".join([*self.key_prefix, name])


class InAFile(Settings):
    """The attributes that a galleries file and a very large gallery's file have in common."""

    store: str = Field("data", min_length=1, description="a folder, or s3://bucket/prefix, gs://…, az://…")
    schedule: Cron = Field("0 6 * * *", description="cron expression of the daily runs; null for none")
    schedule_status: Literal["RUNNING", "STOPPED"] = Field(
        "STOPPED", description="whether the schedule runs before anyone switches it on or off in the UI"
    )

    @field_validator("store")
    @classmethod
    def _is_a_place(cls, value: str) -> str:
        scheme, separator, _ = value.partition("://")
        if separator and scheme not in STORE_SCHEMES:
            raise ValueError(f"{value!r} must be a folder, or start with {STORE_SCHEMES_TEXT}")
        return value

    @classmethod
    def editor_schema(cls) -> dict[str, Any]:
        """Return the JSON schema that editors and `dg check yaml` use."""
        return cls.model_json_schema(schema_generator=_EditorSchema)


class Galleries(InAFile):
    """The attributes of a galleries file."""

    download: DownloadSettings = Field(DownloadSettings(), description="defaults for every gallery")
    checks: CheckSettings = Field(CheckSettings(), description="what the asset checks allow")
    assets: AssetSettings = Field(AssetSettings(), description="keys, group, owners and tags of the assets")
    asset_per_gallery: bool = Field(
        False,
        description="give each gallery assets of its own, gallery/<name>/links …, instead of a partition",
    )
    near_duplicates: NearDuplicateSettings | None = Field(
        None, description="look for images that look alike, over all galleries; null for none"
    )
    galleries: tuple[Gallery, ...] = Field((), description="one partition each")
    galleries_from: GalleriesFrom | None = Field(
        None, description="a table or a IIIF collection whose rows are galleries, too; null for none"
    )

    _version: FileVersion | None = PrivateAttr(None)

    @property
    def version(self) -> FileVersion | None:
        """The version of the file that they were loaded from; None for settings that come from no file."""
        return self._version

    def loaded_as(self, version: FileVersion) -> "Galleries":
        """Return these settings, as loaded from a version of a file."""
        self._version = version
        return self

    @field_validator("galleries")
    @classmethod
    def _stand_once(cls, value: tuple[Gallery, ...]) -> tuple[Gallery, ...]:
        seen: dict[str, str] = {}
        for gallery in value:
            earlier = seen.get(gallery.name.lower())
            if earlier is not None:
                raise ValueError(
                    f"the name {gallery.name!r} is used twice, whatever its case: also as {earlier!r}"
                )
            seen[gallery.name.lower()] = gallery.name
        return value

    @model_validator(mode="after")
    def _are_not_none(self) -> "Galleries":
        if not self.galleries and self.galleries_from is None:
            error = PydanticCustomError("value_error", "Value error, name at least one gallery")
            raise ValidationError.from_exception_data(
                type(self).__name__, [InitErrorDetails(type=error, loc=("galleries",), input=None)]
            )
        return self

    @model_validator(mode="after")
    def _choose_by_what_is_there(self) -> "Galleries":
        """Refuse conditions that choose by groups of near duplicates where nobody looks for them."""
        errors = []
        with_groups = self.near_duplicates is not None
        for place, gallery in enumerate(self.galleries):
            where = gallery.dataset.where if gallery.dataset else None
            try:
                condition_over_the_catalog(where, with_groups=with_groups)
            except PydanticCustomError as error:
                at = ("galleries", place, "dataset", "where")
                errors.append(InitErrorDetails(type=error, loc=at, input=None))
        if errors:
            raise ValidationError.from_exception_data(type(self).__name__, errors)
        return self

    @model_validator(mode="after")
    def _have_assets_of_their_own(self) -> "Galleries":
        """Refuse settings of a gallery's own assets where all galleries share them."""
        told = [place for place, each in enumerate(self.galleries) if "assets" in each.model_fields_set]
        if told and not self.asset_per_gallery:
            error = PydanticCustomError(NOT_ACCEPTED, "needs asset_per_gallery: true in the file")
            raise ValidationError.from_exception_data(
                type(self).__name__,
                [
                    InitErrorDetails(type=error, loc=("galleries", place, "assets"), input=None)
                    for place in told
                ],
            )
        return self

    @functools.cached_property
    def _by_partition(self) -> dict[str, Gallery]:
        return {gallery.partition: gallery for gallery in self.galleries}

    def gallery(self, name: str) -> Gallery:
        """Return the gallery with that name, or that of its partition.

        Raises:
            KeyError: There is no such gallery.
        """
        return self._by_partition[partition_of(name)]

    @property
    def written(self) -> tuple[Gallery, ...]:
        """The galleries that the file and its tables name: a very large one, and not its shards."""
        return self.galleries

    def schedule_of(self, gallery: Gallery) -> str | None:
        """Return the cron expression of a gallery's runs: its own, or else the file's."""
        return gallery.schedule if "schedule" in gallery.model_fields_set else self.schedule

    def asset_settings(self, gallery: Gallery) -> OwnAssetSettings:
        """Return the file's settings of assets, overridden by those of a gallery with assets of its own."""
        return self.assets.model_copy(
            update={key: getattr(gallery.assets, key) for key in gallery.assets.model_fields_set}
        )

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
