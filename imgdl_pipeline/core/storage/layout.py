"""Build the paths of the store, relative to its root; no other module builds the contract's paths.

Readers of Parquet folders skip names that begin with an underscore.

A shard of a very large gallery has a name like a gallery's: `laion/0007` (see `shard_name`). No gallery's own
name has a slash, so every function takes either, and gives a shard files of its own beside the other shards'.
What belongs to a gallery as a whole, such as its folders, is the same for all of its shards.
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


SHARD_DIGITS = 4
MOST_SHARDS = 10**SHARD_DIGITS

_SHARD = re.compile(rf"(?P<gallery>[^/]+)(?:/(?P<number>[0-9]{{{SHARD_DIGITS}}}))?")


def shard_name(gallery: str, number: int) -> str:
    """Return the name of a gallery's shard, such as `laion/0007`."""
    return f"{gallery}/{number:0{SHARD_DIGITS}d}"


def whole_gallery(name: str) -> str:
    """Return the gallery's own name of a gallery or shard."""
    return name.partition("/")[0]


def shard_mark(name: str) -> str:
    """Return what only the paths of a shard's own files contain, such as `.0007`; empty for a gallery."""
    found = _SHARD.fullmatch(name)
    return f".{found['number']}" if found and found["number"] else ""


def is_shard(name: str) -> bool:
    """Return whether a name is that of a shard."""
    return shard_mark(name) != ""


def _folder(stage: str, name: str) -> str:
    return f"{stage}/gallery={whole_gallery(name)}"


_IMAGE_PATH = re.compile(
    rf"images/[^/]+/(?:[0-9]{{{SHARD_DIGITS}}}/)?[0-9a-f]{{2}}/[^/]+-[0-9a-f]{{{HASH_DIGITS}}}\.jpg"
)


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


def host_leases_path(host: str) -> str:
    """Return the folder of the files of all runs that ask a host for many links; see `host_leases.py`."""
    return f"hosts/{hashlib.sha256(host.encode()).hexdigest()[:HASH_DIGITS]}/_leases"


ROBOTS_DAYS = "hosts/_robots"
"""The folder with a folder for each day, of the robots.txt files that were fetched on that day."""


def robots_path(day: str, origin: str) -> str:
    """Return the path of what a host answered when it was asked for its robots.txt on a day."""
    digest = hashlib.sha256(origin.encode()).hexdigest()[:HASH_DIGITS]
    return f"{ROBOTS_DAYS}/{day}/{digest[:2]}/{digest}.txt"


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
    return f"{_folder('catalog', gallery)}/_dataset_leases{shard_mark(gallery)}"


def gallery_folders(gallery: str) -> tuple[str, ...]:
    """Return the folders that have a gallery's files and no others, its images first.

    A shard has none of its own: its gallery's folders have the files of all shards.
    """
    gallery = whole_gallery(gallery)
    files = (catalog_path(gallery), downloads_path(gallery), links_path(gallery))
    datasets = (dataset_path(gallery), dataset_draft_path(gallery), replaced_dataset_path(gallery))
    return (images_path(gallery), *(file.rpartition("/")[0] for file in files), *datasets)


def gallery_of(folder: str) -> str | None:
    """Return the gallery that a folder belongs to, or None: the inverse of `gallery_folders`."""
    name = folder.rpartition("/")[2].removeprefix("gallery=")
    return name if folder in gallery_folders(name) and not name.startswith("_") else None


TABLE_FOLDERS = ("links", "downloads", "catalog")
"""The folders with the tables of all galleries, and what is made for these."""

_OWNED = re.compile(
    rf"(?:{'|'.join(TABLE_FOLDERS)})/gallery=(?P<gallery>[^/]+)/"
    "(?:links|downloads|catalog|_validators|_checkpoints|_unseen|_contact_sheet|_renamed_from)"
    rf"(?:\.(?P<number>[0-9]{{{SHARD_DIGITS}}}))?(?:\.parquet|\.json|/.*)?"
)
_OWNED_DATASET = re.compile(
    rf"{DATASETS}/(?:_drafts/|_replaced/)?(?P<gallery>[^_/][^/]*)/(?P<number>[0-9]{{{SHARD_DIGITS}}})(?:/.*)?"
)


def owner_of(path: str) -> str | None:
    """Return the gallery or shard that has a table, or what is made for one; None for other files.

    Leases are nobody's, since they stay when a shard is gone, and so is what belongs to a gallery as a whole.
    """
    found = _OWNED.fullmatch(path)
    if found is None:
        return None
    return found["gallery"] if found["number"] is None else f"{found['gallery']}/{found['number']}"


def shard_of_dataset(path: str) -> str | None:
    """Return the shard that has a dataset, or a draft of one, in a folder; None if it is no shard's."""
    found = _OWNED_DATASET.fullmatch(path)
    return None if found is None else f"{found['gallery']}/{found['number']}"


def images_path(gallery: str) -> str:
    """Return the folder of a gallery's images."""
    return f"images/{gallery}"


def shards_path(gallery: str) -> str:
    """Return the path of the table of a sharded gallery's hosts; see `split.py`."""
    return f"{_folder('links', gallery)}/_shards.json"


def resharding_path(gallery: str) -> str:
    """Return the path of the file that exists while a gallery gets another number of shards."""
    return f"{_folder('links', gallery)}/_resharding"


_RESHARDED = "_resharded"


def resharded_path(path: str) -> str:
    """Return where a file of a shard is until all new ones are written."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{_RESHARDED}/{name}"


def resharded_folders(gallery: str) -> tuple[str, ...]:
    """Return the folders of the files of `resharded_path`."""
    return tuple(f"{_folder(stage, gallery)}/{_RESHARDED}" for stage in TABLE_FOLDERS)


def links_path(gallery: str) -> str:
    """Return the path of a gallery's link list."""
    return f"{_folder('links', gallery)}/links{shard_mark(gallery)}.parquet"


def validators_path(gallery: str) -> str:
    """Return the path of the ETags of a gallery's list."""
    return f"{_folder('links', gallery)}/_validators{shard_mark(gallery)}.json"


def downloads_path(gallery: str) -> str:
    """Return the path of a gallery's ledger."""
    return f"{_folder('downloads', gallery)}/downloads{shard_mark(gallery)}.parquet"


def checkpoints_path(gallery: str) -> str:
    """Return the folder of the ledger's checkpoints."""
    return f"{_folder('downloads', gallery)}/_checkpoints{shard_mark(gallery)}"


def checked_path(gallery: str) -> str:
    """Return the folder of the catalog's checkpoints: results of checks until the catalog is written."""
    return f"{_folder('catalog', gallery)}/_checkpoints{shard_mark(gallery)}"


def unseen_links_path(gallery: str) -> str:
    """Return the folder of links that left the list before a catalog included them."""
    return f"{_folder('links', gallery)}/_unseen{shard_mark(gallery)}"


def contact_sheets_path(gallery: str) -> str:
    """Return the folder of a gallery's contact sheet."""
    return f"{_folder('catalog', gallery)}/_contact_sheet{shard_mark(gallery)}"


def leases_path(gallery: str) -> str:
    """Return the folder of the leases of active runs; see `lease.py`."""
    return f"{_folder('downloads', gallery)}/_leases{shard_mark(gallery)}"


def renamed_from_path(gallery: str) -> str:
    """Return the path of the file that exists while another gallery's files become this one's."""
    return f"{_folder('downloads', gallery)}/_renamed_from{shard_mark(gallery)}"


def catalog_path(gallery: str) -> str:
    """Return the path of a gallery's catalog."""
    return f"{_folder('catalog', gallery)}/catalog{shard_mark(gallery)}.parquet"


_CATALOG = re.compile(r"catalog/gallery=[^/]+/catalog(\.\d+)?\.parquet")


def is_catalog_path(path: str) -> bool:
    """Return whether a path is that of a gallery's catalog, or of one shard of it."""
    return _CATALOG.fullmatch(path) is not None
