"""Look for what is still stored of images that were removed for good."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from imgdl_pipeline.core.catalog.removal import SEEN, Found, find, found_in, ledgers_of
from imgdl_pipeline.core.model.schemas import DOWNLOADS, columns
from imgdl_pipeline.core.storage.layout import images_path, resharded_folders
from imgdl_pipeline.core.storage.object_store import CHUNK_BYTES
from imgdl_pipeline.core.storage.parts import stored_parts
from imgdl_pipeline.core.storage.removed import Removed
from imgdl_pipeline.core.storage.store import Store


def left_over(store: Store) -> Iterator[Found]:
    """Yield what is still stored of what the list names, though it was removed; nothing if all is gone.

    Raises:
        StoreError: The store failed.
    """
    removed = Removed.read(store)
    if not removed:
        return
    yield from find(store, removed)
    for gallery, parts in stored_parts(store).items():
        yield from _left_of_resharding(store, gallery, removed)
        strays = _stray_images(store, gallery, parts).to_pylist()
        bad = tuple(path for path in strays if removed.names("", _sha256(store, path)))
        if bad:
            yield Found(gallery, (), bad)


def _left_of_resharding(store: Store, gallery: str, removed: Removed) -> Iterator[Found]:
    """Yield what an interrupted call for another number of shards has in its new tables."""
    of_kind = {"downloads": DOWNLOADS, "catalog": SEEN}
    for folder in resharded_folders(gallery):
        schema = of_kind.get(folder.partition("/")[0])
        for file in store.list(folder) if schema else ():
            table = store.read_table(file.path, schema)
            for found in found_in(gallery, removed, [] if table is None else [table]):
                yield replace(found, paths=(file.path,))


def _stray_images(store: Store, gallery: str, parts: Sequence[str]) -> pa.ChunkedArray:
    """Return the paths of stored images that no ledger has.

    After another number of shards, an image may be in the folder of any shard, also of one that is gone.
    """
    folder, owners = images_path(gallery), {images_path(part): part for part in parts}
    unknown = [pa.chunked_array([], pa.string())]
    for each in (folder,) if folder in owners else sorted(store.folders(folder)):
        paths = store.files(each)["path"]
        unknown.append(_without_known(store, owners[each], paths) if each in owners else paths)
    strays = pa.chunked_array([chunk for each in unknown for chunk in each.chunks], pa.string())
    for part in parts if len(owners) > 1 else ():
        strays = _without_known(store, part, strays)
    return strays


def _without_known(store: Store, part: str, paths: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the paths that the ledger of a gallery or shard does not have."""
    for ledger in ledgers_of(store, part, columns(DOWNLOADS, "path")) if len(paths) else ():
        paths = paths.filter(pc.invert(pc.is_in(paths, value_set=ledger["path"])))
    return paths


def _sha256(store: Store, path: str) -> str:
    """Return the SHA-256 of a stored file, in hex digits; of no bytes if it is gone."""
    digest, file = hashlib.sha256(), store.open(path)
    if file is not None:
        with file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()
