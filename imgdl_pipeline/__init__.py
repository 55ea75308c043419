"""Image galleries as Dagster assets: listed, downloaded, validated and cataloged.

What is exported here is imported only when it is first used, so that `imgdl_pipeline.core` can be used
without Dagster. Galleries files look for the component here; authors of sources import
`imgdl_pipeline.sources`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from imgdl_pipeline.version import __version__

if TYPE_CHECKING:
    from imgdl_pipeline.assets import AssetKeys, GalleryStage
    from imgdl_pipeline.component import ImageGalleries
    from imgdl_pipeline.downstream import asset_keys, gallery_partitions, load_catalog
    from imgdl_pipeline.resources import ImageDownloads
    from imgdl_pipeline.sharded import ShardedGallery
    from imgdl_pipeline.tables import GalleryTables

__all__ = [
    "AssetKeys",
    "GalleryStage",
    "GalleryTables",
    "ImageDownloads",
    "ImageGalleries",
    "ShardedGallery",
    "__version__",
    "asset_keys",
    "gallery_partitions",
    "load_catalog",
]

_MODULES = {
    "AssetKeys": "assets",
    "GalleryStage": "assets",
    "GalleryTables": "tables",
    "ImageDownloads": "resources",
    "ImageGalleries": "component",
    "ShardedGallery": "sharded",
    "asset_keys": "downstream",
    "gallery_partitions": "downstream",
    "load_catalog": "downstream",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """Return what Dagster's discovery of components walks."""
    return __all__
