"""Make a contact sheet of near duplicates: one row for each of the largest groups."""

from imgdl_pipeline.core.catalog.contact_sheet import compressed, sheet_of_rows, thumbnails
from imgdl_pipeline.core.jpeg.workers import JpegWorkers, opened
from imgdl_pipeline.core.near_duplicates.groups import NearDuplicates
from imgdl_pipeline.core.storage.store import Store


def near_duplicates_sheet(
    found: NearDuplicates, store: Store, jpegs: JpegWorkers | None = None
) -> bytes | None:
    """Return a JPEG with a row of thumbnails for each of the largest groups; None if there is no group.

    Args:
        found: What was found.
        store: The store of the images.
        jpegs: The worker processes that decode images; if None, start workers for this call and end them.

    Raises:
        StoreError: The store failed.
    """
    members = [
        {"path": member.path, "bytes": member.bytes} for group in found.largest for member in group.members
    ]
    if not members:
        return None
    with opened(jpegs) as jpegs:
        pictures = iter(thumbnails(members, store, jpegs))
    rows = [[next(pictures) for _ in group.members] for group in found.largest]
    shown = [[picture for picture in row if picture is not None] for row in rows]
    return compressed(sheet_of_rows([row for row in shown if row])) if any(shown) else None
