"""Define the job that removes images for good."""

import dagster as dg
from pydantic import Field

from imgdl_pipeline.assets import open_store, store_root
from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.core.catalog.removal import Found, removals, would_remove
from imgdl_pipeline.core.dataset.removal import remove_everywhere
from imgdl_pipeline.core.model.counted import amount
from imgdl_pipeline.core.model.outcome import ResourceError
from imgdl_pipeline.core.model.shown import hide_secrets
from imgdl_pipeline.core.storage.lease import GalleryBusyError
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.metadata import markdown_table
from imgdl_pipeline.same_file import make_sure_of_file, version_tags

SHOWN = 100
"""The most links in the table of a run."""


class RemovalConfig(dg.Config):
    """What to remove for good."""

    urls: list[str] = Field([], description="links; their images are removed wherever their bytes are")
    sha256s: list[str] = Field([], description="SHA-256s of files, 64 hex digits each")
    phashes: list[str] = Field([], description="perceptual hashes of pictures, 16 hex digits each")
    distance: int = Field(0, ge=0, le=64, description="bits by which a picture's hash may differ")
    reason: str = Field(description="why, for whoever asks later")
    dry_run: bool = Field(True, description="only name what would be removed")


def build_remove_job(galleries: Galleries, name: str) -> dg.JobDefinition:
    """Return the job that removes images from every gallery of the store.

    Args:
        galleries: The settings of the galleries file.
        name: The job's name.
    """

    @dg.op(
        name=f"{name}_step",
        description="Removes images for good, or names them.",
        tags=version_tags(galleries),
    )
    def remove_step(context: dg.OpExecutionContext, config: RemovalConfig) -> None:
        make_sure_of_file(context, galleries, store_root(galleries))
        try:
            asked = removals(
                config.urls, config.sha256s, config.phashes, config.distance, reason=config.reason
            )
            store = open_store(galleries)
            found, datasets = (
                (would_remove(store, asked), []) if config.dry_run else remove_everywhere(store, asked)
            )
        except (ValueError, StoreError, ResourceError, GalleryBusyError) as error:
            raise dg.Failure(hide_secrets(str(error)), allow_retries=False) from None
        files = sum(len(each.paths) for each in found)
        verb = "would be" if config.dry_run else "was" if files == 1 else "were"
        context.log.info("%s %s removed", amount(files, "file"), verb)
        context.add_output_metadata({"files": files, "links": _links(found), "datasets": datasets})

    @dg.job(
        name=name,
        tags=version_tags(galleries),
        executor_def=dg.in_process_executor,
        description="Removes images for good, from every gallery of the store; at first, only names them.",
    )
    def remove_images() -> None:
        remove_step()

    return remove_images


def _links(found: list[Found]) -> dg.MarkdownMetadataValue:
    rows = [[each.gallery, hide_secrets(url)] for each in found for url in each.urls]
    return markdown_table(["gallery", "link"], rows[:SHOWN])
