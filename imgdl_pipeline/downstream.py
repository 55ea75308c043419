"""What code downstream of the galleries imports: tables, partitions and asset keys."""

from pathlib import Path

import dagster as dg
import pyarrow as pa

from imgdl_pipeline.assets import AssetKeys, open_store, partitions_of
from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.config.galleries_file import read_galleries_file
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.definitions import galleries_file
from imgdl_pipeline.tables import table_of


def load_catalog(gallery: str, store: str | None = None, *, file: str | Path | None = None) -> pa.Table:
    """Return a gallery's catalog: one row per link, with the columns that the documentation lists.

    Args:
        gallery: The gallery's name.
        store: A folder, or `s3://bucket/prefix`, `gs://…`, `az://…`; None for the one that `IMGDL_STORE` or
            the galleries file names.
        file: The galleries file; None for the one that `IMGDL_CONFIG` names.

    Raises:
        StoreError: There is no catalog yet, or it cannot be read.
        GalleriesFileError: The store is to be taken from a galleries file that cannot be used.
    """
    return table_of("catalog", gallery, open_store(_galleries(file)) if store is None else Store(store))


def gallery_partitions(file: str | Path | None = None) -> dg.StaticPartitionsDefinition:
    """Return the partitions of a galleries file: one per gallery.

    Args:
        file: The galleries file; None for the one that `IMGDL_CONFIG` names.

    Raises:
        GalleriesFileError: The file cannot be used; says where and why.
    """
    return partitions_of(_galleries(file))


def asset_keys(gallery: str | None = None, *, file: str | Path | None = None) -> AssetKeys:
    """Return the keys of the assets: `links`, `images`, `catalog` and `dataset`, with their prefix.

    Args:
        gallery: The gallery whose own assets they are, in a file with `asset_per_gallery`.
        file: The galleries file; None for the one that `IMGDL_CONFIG` names.

    Raises:
        GalleriesFileError: The file cannot be used; says where and why.
    """
    return AssetKeys.of(_galleries(file), gallery)


def _galleries(file: str | Path | None) -> Galleries:
    return read_galleries_file(galleries_file() if file is None else Path(file))
