"""Build the paths of the store, relative to its root; no other module builds the contract's paths.

Readers of Parquet folders skip names that begin with an underscore.
"""

import hashlib
import re
import unicodedata
from urllib.parse import unquote_to_bytes, urlsplit

STEM_CHARS = 80

HASH_DIGITS = 20
"""Hex digits of the link's SHA-256 in a file name: 80 bits, so that even a billion links do not collide."""


def image_path(gallery: str, url: str) -> str:
    """Return the path of a link's image, relative to the store's root.

    `images/<gallery>/<2 hex digits>/<stem>-<20 hex digits>.jpg`: the stem comes from the link, for human
    readers. The digits are from the link's SHA-256 and make the name unique by themselves, even on a
    case-insensitive file system. 256 folders keep a million files listable.
    """
    digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
    return f"images/{gallery}/{digest[:2]}/{_stem(url)}-{digest[:HASH_DIGITS]}.jpg"


_IMAGE_PATH = re.compile(rf"images/[^/]+/[0-9a-f]{{2}}/[^/]+-[0-9a-f]{{{HASH_DIGITS}}}\.jpg")


def is_image_path(path: str) -> bool:
    """Return whether a path has the form that `image_path` produces."""
    return _IMAGE_PATH.fullmatch(path) is not None


def _stem(url: str) -> str:
    """Return the last part of the link's path, as 1 to 80 characters of `A-Z a-z 0-9 _ . -`."""
    try:
        path = urlsplit(url).path
    except ValueError:  # not a valid URL, e.g. with the host "["; its row gets no file
        path = ""
    name = unquote_to_bytes(path.rstrip("/").rpartition("/")[2]).decode("utf-8", "replace")
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    stem = re.sub(r"\.jpe?g$", "", ascii_name, flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", stem).strip("._-")[:STEM_CHARS].rstrip("._-") or "image"


REMOVED_PATH = "removed/removed.parquet"
"""The list of what was removed for good, of all galleries."""

REMOVED_LEASES = "removed/_leases"
"""The folder of the leases of those who write the list."""


SIGNS_OF_LIFE = "_runs"
"""The folder of the signs of life of active runs, one folder per run; see `sign_of_life.py`."""


NEAR_DUPLICATES_PATH = "near_duplicates/near_duplicates.parquet"
"""The groups of images that look alike, of all galleries."""

GROUPED_HASHES_PATH = "near_duplicates/_hashes.parquet"
"""Every perceptual hash with its group, from which the next run goes on."""


DATASETS = "datasets"
"""The folder of all datasets."""


def dataset_path(gallery: str) -> str:
    """Return the folder of a gallery's dataset."""
    return f"{DATASETS}/{gallery}"


def dataset_draft_path(gallery: str) -> str:
    """Return the folder in which the next version of a gallery's dataset is written."""
    return f"{DATASETS}/_drafts/{gallery}"


def replaced_dataset_path(gallery: str) -> str:
    """Return the folder in which a gallery's dataset may be while a new version takes its place."""
    return f"{DATASETS}/_replaced/{gallery}"


def dataset_leases_path(gallery: str) -> str:
    """Return the folder of the leases of those who write a gallery's dataset."""
    return f"catalog/gallery={gallery}/_dataset_leases"


def gallery_folders(gallery: str) -> tuple[str, ...]:
    """Return the folders that have a gallery's files and no others, its images first."""
    files = (catalog_path(gallery), downloads_path(gallery), links_path(gallery))
    datasets = (dataset_path(gallery), dataset_draft_path(gallery), replaced_dataset_path(gallery))
    return (images_path(gallery), *(file.rpartition("/")[0] for file in files), *datasets)


def gallery_of(folder: str) -> str | None:
    """Return the gallery that a folder belongs to, or None: the inverse of `gallery_folders`."""
    name = folder.rpartition("/")[2].removeprefix("gallery=")
    return name if folder in gallery_folders(name) and not name.startswith("_") else None


def images_path(gallery: str) -> str:
    """Return the folder of a gallery's images."""
    return f"images/{gallery}"


def links_path(gallery: str) -> str:
    """Return the path of a gallery's link list."""
    return f"links/gallery={gallery}/links.parquet"


def validators_path(gallery: str) -> str:
    """Return the path of the ETags of a gallery's list."""
    return f"links/gallery={gallery}/_validators.json"


def downloads_path(gallery: str) -> str:
    """Return the path of a gallery's ledger."""
    return f"downloads/gallery={gallery}/downloads.parquet"


def checkpoints_path(gallery: str) -> str:
    """Return the folder of the ledger's checkpoints."""
    return f"downloads/gallery={gallery}/_checkpoints"


def checked_path(gallery: str) -> str:
    """Return the folder of the catalog's checkpoints: results of checks until the catalog is written."""
    return f"catalog/gallery={gallery}/_checkpoints"


def unseen_links_path(gallery: str) -> str:
    """Return the folder of links that left the list before a catalog included them."""
    return f"links/gallery={gallery}/_unseen"


def contact_sheets_path(gallery: str) -> str:
    """Return the folder of a gallery's contact sheet."""
    return f"catalog/gallery={gallery}/_contact_sheet"


def leases_path(gallery: str) -> str:
    """Return the folder of the leases of active runs; see `lease.py`."""
    return f"downloads/gallery={gallery}/_leases"


def renamed_from_path(gallery: str) -> str:
    """Return the path of the file that exists while another gallery's files become this one's."""
    return f"downloads/gallery={gallery}/_renamed_from"


def catalog_path(gallery: str) -> str:
    """Return the path of a gallery's catalog."""
    return f"catalog/gallery={gallery}/catalog.parquet"


_CATALOG = re.compile(r"catalog/gallery=[^/]+/catalog(\.\d+)?\.parquet")


def is_catalog_path(path: str) -> bool:
    """Return whether a path is that of a gallery's catalog, or of one shard of it."""
    return _CATALOG.fullmatch(path) is not None
