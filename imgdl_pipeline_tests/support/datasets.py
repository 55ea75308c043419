"""Galleries with a catalog, without network and decoder, and what tests ask of the datasets made of them."""

import hashlib
import io
import json
import tarfile
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from imgdl_pipeline.core.dataset.draft import Draft
from imgdl_pipeline.core.dataset.export import export_dataset
from imgdl_pipeline.core.dataset.manifest import Manifest
from imgdl_pipeline.core.dataset.parts import read_index, there_of
from imgdl_pipeline.core.dataset.rows import CatalogRows, key_of
from imgdl_pipeline.core.model.dataset_settings import DatasetSettings
from imgdl_pipeline.core.model.schemas import CATALOG
from imgdl_pipeline.core.storage.layout import catalog_path, dataset_path, image_path
from imgdl_pipeline.core.storage.lease import dataset_lease
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline_tests.support.rows import NOW, catalog_of, file_of


def url_of(number):
    return f"https://example.org/{number}.jpg"


def picture_of(number, version=0):
    """Bytes that no export looks into, of another length for each number."""
    return f"picture {number} as of {version} ".encode() * (number % 7 + 40)


class Gallery:
    """A gallery as runs leave it: files, and a catalog with a row for each, and for a link that is dead.

    Args:
        store: The store.
        name: The gallery's name.
        picture: Makes a picture's bytes from its number and version.
    """

    def __init__(self, store, name="g", picture=picture_of):
        self.store, self.name, self.rows, self.picture = store, name, {}, picture

    def put(self, *numbers, version=0, **facts):
        """Store pictures, write their rows, and return the gallery."""
        for number in numbers:
            self._put(number, version, facts)
        return self.write()

    def _put(self, number, version, facts):
        url, data = url_of(number), self.picture(number, version)
        path, sha256 = image_path(self.name, url), hashlib.sha256(data).hexdigest()
        self.store.put(path, data)
        self.rows[number] = {
            "url": url,
            "path": path,
            "sha256": sha256,
            "bytes": len(data),
            "width": 100 + number,
            "height": 75,
            "mode": "RGB",
            "progressive": False,
            "orientation": 1,
            "phash": sha256[:16],
            "http_status": 200,
            "attempts": 1,
            "elapsed_s": 0.25,
            "exif": "{}",
            "fetched_at": NOW + timedelta(hours=number),
            "first_seen": NOW,
            "last_seen": NOW,
            "opt_outs": "[]",
            "embedded": "{}",
            "attributes": json.dumps({"title": f"Title {number}", "author": f"Author {number}"}),
            **facts,
        }

    def drop(self, *numbers):
        """Take links out of the catalog, as if they had never been listed; return the gallery."""
        for number in numbers:
            del self.rows[number]
        return self.write()

    def write(self):
        dead = {"url": "https://example.org/dead.jpg", "status": "failed", "reason": "http_404"}
        self.store.write_table(catalog_path(self.name), catalog_of(*self.rows.values(), dead))
        return self

    def catalog(self):
        return self.store.read_table(catalog_path(self.name), CATALOG)

    def lose(self, number):
        """Delete a picture's file behind the catalog's back."""
        self.store.delete([self.rows[number]["path"]])

    def export(self, on_progress=lambda _: None, **settings):
        return export_dataset(self.store, self.name, settings_of(**settings), on_progress=on_progress)


def rows_in(table):
    """A catalog's rows, all of them, as an export reads them."""
    return CatalogRows(file_of(table), np.ones(table.num_rows, bool))


@contextmanager
def drafted(store, gallery="g"):
    """A draft of a dataset, whose writer has the lease."""
    with dataset_lease(store, gallery) as lease, Draft.of(store, gallery, lease) as draft:
        yield draft


def settings_of(**settings):
    return DatasetSettings(**{"format": "webdataset", "shard_images": 2, **settings})


def files_of(store, gallery="g"):
    """The bytes of a dataset's files, by their names."""
    folder = dataset_path(gallery)
    return {file.path.removeprefix(f"{folder}/"): store.get(file.path) for file in store.list(folder)}


def wrong_files(files, but=()):
    """What of a dataset's files differs from its manifest; nothing for a whole dataset.

    Args:
        files: Bytes by name.
        but: Names of files that are not looked at.
    """
    listed = json.loads(files["manifest.json"])["files"]
    named = {each["name"]: each["sha256"] for each in listed if each["name"] not in but}
    there = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return [name for name, sha256 in named.items() if there.get(name) != sha256]


def strays(files):
    """The files that a dataset's manifest does not name."""
    named = {each["name"] for each in json.loads(files["manifest.json"])["files"]}
    return sorted(set(files) - named - {"manifest.json"})


def assert_whole(store, gallery="g"):
    """Check that a dataset has the files that its manifest names, and no others; return them."""
    files = files_of(store, gallery)
    assert wrong_files(files) == []
    assert strays(files) == []
    return files


def parts_of(files):
    """A dataset's files as its manifest names them: what is stored, by the part that it is."""
    return {each["part"]: files[each["name"]] for each in json.loads(files["manifest.json"])["files"]}


def inodes(folder: Path):
    """The files of a folder, each with what changes when it is written anew."""
    return {
        str(file.relative_to(folder)): (file.stat().st_ino, file.stat().st_mtime_ns)
        for file in folder.rglob("*")
        if file.is_file()
    }


def folder_of(store, gallery="g") -> Path:
    return store.local_path(dataset_path(gallery))


def urls_in(store, gallery="g"):
    """The links of a dataset's images, in the catalog's order."""
    index = read_index(store, dataset_path(gallery), Manifest.read(store, gallery))
    return there_of(index)["url"].to_pylist()


def copy_of(store, root) -> Store:
    """Copy a store, whatever its kind, to another root."""
    other = Store(str(root))
    for file in store.list(""):
        other.put(file.path, store.get(file.path))
    return other


FORMATS = ("webdataset", "parquet", "imagefolder")


def samples_in(files, format_):
    """A dataset's pictures, captions and rows, by key and in the order of its parts."""
    return dict({"webdataset": _tars, "parquet": _parquets, "imagefolder": _images}[format_](parts_of(files)))


def _tars(parts):
    for part in sorted(each for each in parts if each.endswith(".tar")):
        with tarfile.open(fileobj=io.BytesIO(parts[part])) as tar:
            held = {each.name: tar.extractfile(each).read() for each in tar}
        for name in held:
            if name.endswith(".jpg"):
                key = name.removesuffix(".jpg")
                text = held.get(f"{key}.txt")
                yield (
                    key,
                    (
                        held[name],
                        None if text is None else text.decode(),
                        json.loads(held[f"{key}.json"])["url"],
                    ),
                )


def _parquets(parts):
    for part in sorted(each for each in parts if each.startswith("data/")):
        for row in pq.read_table(pa.BufferReader(parts[part])).to_pylist():
            yield (
                row["image"]["path"].removesuffix(".jpg"),
                (row["image"]["bytes"], row["caption"], row["url"]),
            )


def _images(parts):
    lines = parts["train/metadata.jsonl"].decode().split("\n")
    assert lines.pop() == ""
    for row in map(json.loads, lines):
        key = row["file_name"].partition(".")[0].partition("~")[0]
        yield key, (parts[f"train/{key}.jpg"], row["caption"], row["url"])


def numbers_in(files, format_):
    """The pictures of a dataset by their number, after checking that all is right with them."""
    samples = samples_in(files, format_)
    numbers = [int(url.rpartition("/")[2].partition(".")[0]) for _, _, url in samples.values()]
    assert list(samples) == [key_of(url_of(number)) for number in numbers]
    assert [jpeg for jpeg, _, _ in samples.values()] == [picture_of(number) for number in numbers]
    return numbers
