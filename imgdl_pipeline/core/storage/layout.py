"""The layout of the store: the contract's paths are made here and nowhere else, relative to its root.

Readers of Parquet folders skip names that begin with an underscore.
"""

import hashlib
import re
import unicodedata
from urllib.parse import unquote_to_bytes, urlsplit

STEM_CHARS = 80

HASH_DIGITS = 20
"""Of the link's SHA-256: 80 bits, so that even a billion links never meet."""


def image_path(gallery: str, url: str) -> str:
    """Where the image of a link lies, relative to the store's root.

    `images/<gallery>/<2 hex digits>/<stem>-<20 hex digits>.jpg`: the stem is the link's own, for a
    person's eyes; the digits are of the link's SHA-256 and alone make the name distinct, also where
    upper and lower case are the same. 256 folders keep a million files listable.
    """
    digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
    return f"images/{gallery}/{digest[:2]}/{_stem(url)}-{digest[:HASH_DIGITS]}.jpg"


_IMAGE_PATH = re.compile(rf"images/[^/]+/[0-9a-f]{{2}}/[^/]+-[0-9a-f]{{{HASH_DIGITS}}}\.jpg")


def is_image_path(path: str) -> bool:
    """Whether a path is such as `image_path` makes."""
    return _IMAGE_PATH.fullmatch(path) is not None


def _stem(url: str) -> str:
    """The last part of the link's path, as 1 to 80 of `A-Z a-z 0-9 _ . -`."""
    try:
        path = urlsplit(url).path
    except ValueError:  # a host like "[" is no URL at all, yet its row needs no name either
        path = ""
    name = unquote_to_bytes(path.rstrip("/").rpartition("/")[2]).decode("utf-8", "replace")
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    stem = re.sub(r"\.jpe?g$", "", ascii_name, flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", stem).strip("._-")[:STEM_CHARS].rstrip("._-") or "image"


def images_path(gallery: str) -> str:
    """The folder of a gallery's images."""
    return f"images/{gallery}"


def links_path(gallery: str) -> str:
    """Where a gallery's link list lies."""
    return f"links/gallery={gallery}/links.parquet"


def validators_path(gallery: str) -> str:
    """Where the ETags of a gallery's list lie; readers of Parquet folders skip names with an underscore."""
    return f"links/gallery={gallery}/_validators.json"


def downloads_path(gallery: str) -> str:
    """Where a gallery's ledger lies."""
    return f"downloads/gallery={gallery}/downloads.parquet"


def checkpoints_path(gallery: str) -> str:
    """The folder of the ledger's checkpoints; readers of Parquet folders skip names with an underscore."""
    return f"downloads/gallery={gallery}/_checkpoints"


def checked_path(gallery: str) -> str:
    """The folder of what the catalog has checked so far, until it is written."""
    return f"catalog/gallery={gallery}/_checkpoints"


def unseen_links_path(gallery: str) -> str:
    """The folder of links that left the list before a catalog had them."""
    return f"links/gallery={gallery}/_unseen"


def contact_sheets_path(gallery: str) -> str:
    """The folder of a gallery's contact sheet; readers of Parquet folders skip names with an underscore."""
    return f"catalog/gallery={gallery}/_contact_sheet"


def leases_path(gallery: str) -> str:
    """The folder of the leases of runs at work; see `lease.py`."""
    return f"downloads/gallery={gallery}/_leases"


def catalog_path(gallery: str) -> str:
    """Where a gallery's catalog lies."""
    return f"catalog/gallery={gallery}/catalog.parquet"
