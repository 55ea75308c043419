"""Define the settings of a very large gallery, whose links are divided into shards."""

from collections.abc import Iterator

from pydantic import Field, field_validator

from imgdl_pipeline.config.galleries import (
    KEY_PART,
    AssetSettings,
    Dataset,
    Galleries,
    Gallery,
    InAFile,
    condition_over_the_catalog,
)
from imgdl_pipeline.core.storage.layout import MOST_SHARDS, shard_name


class Shards(Galleries):
    """The shards of a very large gallery, as galleries that have its source and settings in common.

    Args:
        whole: The gallery itself.
    """

    whole: Gallery

    @property
    def written(self) -> tuple[Gallery, ...]:
        """The very large gallery."""
        return (self.whole,)


class Sharded(InAFile, Gallery):
    """The attributes of a very large gallery."""

    shards: int = Field(
        ge=1,
        le=MOST_SHARDS,
        description="how many shards its links are divided into; imgdl reshard changes it later",
    )
    assets: AssetSettings = Field(
        AssetSettings(),
        description="keys, group, owners and tags of the assets; the gallery's name ends the key prefix",
    )

    @field_validator("name")
    @classmethod
    def _is_part_of_keys(cls, value: str) -> str:
        if not KEY_PART.fullmatch(value):
            raise ValueError("must be of A-Z a-z 0-9 _ only, because it is part of the assets' keys")
        return value

    @field_validator("dataset")
    @classmethod
    def _chooses_without_groups(cls, value: Dataset | None) -> Dataset | None:
        condition_over_the_catalog(value.where if value else None, with_groups=False)
        return value

    def as_shards(self) -> Shards:
        """Return its shards as the galleries of a file, which no file names."""
        own = {key: getattr(self, key) for key in self._own_keys()}
        whole = Gallery.model_validate(own)
        prefix = (*self.assets.key_prefix, self.name)
        names = (shard_name(self.name, number) for number in range(self.shards))
        return Shards(
            **{key: getattr(self, key) for key in InAFile.model_fields},
            assets=self.assets.model_copy(update={"key_prefix": prefix}),
            galleries=(whole,),
            whole=whole,
        ).model_copy(update={"galleries": tuple(whole.model_copy(update={"name": name}) for name in names)})

    def _own_keys(self) -> Iterator[str]:
        """Yield the keys of a gallery that are set here."""
        for key in Gallery.model_fields:
            if key in self.model_fields_set and key not in ("assets", "schedule"):
                yield key
