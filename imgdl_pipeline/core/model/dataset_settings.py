"""Declare the settings of datasets and near duplicates once, as `settings` does for downloads."""

from typing import Literal

from pydantic import Field, field_validator

from imgdl_pipeline.core.model.schemas import CATALOG
from imgdl_pipeline.core.model.settings import Settings, did_you_mean

JSON_COLUMNS = ("attributes", "embedded", "exif")
"""The catalog's columns that hold JSON objects: a caption may be one of their values."""


class ResizeSettings(Settings):
    """How a dataset's pictures are resized. What is set here, and the stored bytes, decide their bytes.

    Every picture is treated alike, also one that is small enough: it is turned upright as EXIF says, and
    encoded anew as a baseline JPEG in RGB or gray.
    """

    side: int = Field(ge=1, le=8192, description="pixels of the longer side (fit), or of both (fill, pad)")
    how: Literal["fit", "fill", "pad"] = Field(
        "fit",
        description="fit: the longer side, never enlarged; fill: a square, cropped around its middle, and "
        "enlarged where the shorter side is shorter; pad: as fit, with white around it to a square",
    )
    quality: int = Field(90, ge=1, le=100, description="of the JPEG, as libjpeg counts it")
    chroma: Literal["4:4:4", "4:2:2", "4:2:0"] = Field("4:2:0", description="how densely colour is sampled")
    color: Literal["srgb", "keep"] = Field(
        "srgb",
        description="srgb: converted with the file's ICC profile; keep: the profile is copied instead. CMYK "
        "always becomes sRGB; a profile that is broken or of another mode is as good as none",
    )
    metadata: Literal["drop", "keep"] = Field(
        "drop",
        description="keep: EXIF, with its orientation set to 1 and without thumbnail and maker's notes, and "
        "XMP; drop: neither",
    )


class DatasetSettings(Settings):
    """What of a gallery's catalog becomes a dataset, and in which form."""

    format: Literal["webdataset", "parquet", "imagefolder"] = Field(
        description="webdataset: tar files; parquet: Hugging Face's; imagefolder: files and metadata.jsonl"
    )
    where: str | None = Field(
        None,
        min_length=1,
        description="DuckDB SQL over the catalog's columns, such as width >= 256; null: all that are ok",
    )
    resize: ResizeSettings | None = Field(None, description="null: bytes as they are stored")
    shard_images: int = Field(10_000, ge=1, le=1_000_000, description="images in one file of the dataset")
    caption: str | None = Field(
        None, min_length=1, description="attributes.title, embedded.caption or a column; null: no captions"
    )

    @field_validator("caption")
    @classmethod
    def _is_in_the_catalog(cls, value: str | None) -> str | None:
        column, dot, name = (value or "").partition(".")
        if value is None or (column in JSON_COLUMNS and name) or (column in CATALOG.names and not dot):
            return value
        allowed = [f"{each}.<name>" for each in JSON_COLUMNS]
        words = f"must be a column of the catalog, or one of {', '.join(allowed)}"
        raise ValueError(words + did_you_mean(column, CATALOG.names))


class NearDuplicateSettings(Settings):
    """Which images look alike."""

    distance: int = Field(ge=0, le=16, description="bits of 64 by which the perceptual hashes may differ")
