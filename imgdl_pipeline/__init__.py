"""Image galleries as Dagster assets: listed, downloaded, validated and cataloged.

The component stands on the package's root, where galleries files look for it, but is imported only when it is
asked for, so that `imgdl_pipeline.core` can be used without Dagster.
"""

from typing import TYPE_CHECKING, Any

from imgdl_pipeline.version import __version__

if TYPE_CHECKING:
    from imgdl_pipeline.component import ImageGalleries

__all__ = ["ImageGalleries", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "ImageGalleries":
        from imgdl_pipeline.component import ImageGalleries

        return ImageGalleries
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Discovery of components walks this."""
    return __all__
