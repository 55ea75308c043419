"""What code that stands downstream of the catalogs imports: tables, partitions and asset keys."""

import dagster as dg
import pyarrow as pa

from imgdl_pipeline.assets import AssetKeys, open_store, partitions_of
from imgdl_pipeline.core.model.schemas import CATALOG
from imgdl_pipeline.core.storage.layout import catalog_path
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.definitions import galleries


def load_catalog(gallery: str, store: str | None = None) -> pa.Table:
    """Return a gallery's catalog: one row per link, with the columns that the documentation lists.

    Args:
        gallery: The gallery's name.
        store: A folder, or `s3://bucket/prefix`, `gs://…`, `az://…`; None for the one that `IMGDL_STORE` or
            the galleries file (`IMGDL_CONFIG`) names.

    Raises:
        StoreError: There is no catalog yet, or it cannot be read.
        GalleriesFileError: The store is to be taken from a galleries file that cannot be used.
    """
    opened = open_store(galleries()) if store is None else Store(store)
    catalog = opened.read_table(catalog_path(gallery), CATALOG)
    if catalog is None:
        location = opened.location(catalog_path(gallery))
        raise StoreError(f"{location} does not exist: materialize gallery_catalog of {gallery} first")
    return catalog


def gallery_partitions() -> dg.StaticPartitionsDefinition:
    """Return the partitions of the galleries file that `IMGDL_CONFIG` names: one per gallery.

    Raises:
        GalleriesFileError: The file cannot be used; says where and why.
    """
    return partitions_of(galleries())


def asset_keys() -> AssetKeys:
    """Return the keys of the three assets, `links`, `images` and `catalog`, with the file's `key_prefix`.

    Raises:
        GalleriesFileError: The file cannot be used; says where and why.
    """
    return AssetKeys.of(galleries())
