"""Write the next version of a dataset beside the current one, and put it in its place at once.

On a disk, the new version is a folder of its own, in which unchanged files are hard links, and the two
folders are exchanged. In an object store, no file is written over: a changed part gets a new name, and the
manifest, which is written last, names the files that count.
"""

import hashlib
import io
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, cast

from imgdl_pipeline.core.dataset.manifest import MANIFEST, DatasetFile, Manifest
from imgdl_pipeline.core.model.temporary import needing_room, opened_temporary
from imgdl_pipeline.core.storage.layout import dataset_draft_path, dataset_path, replaced_dataset_path
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.core.storage.swap import recover, swap


class Written(NamedTuple):
    """What a part that was written holds: how many images, and the digest of their rows."""

    images: int = 0
    rows: str = ""


Write = Callable[[IO[bytes]], Written | None]
"""A function that writes a part to a file; None stands for a part without images."""


class Draft(ABC):
    """The next version of a dataset, for the length of a `with` block; without `publish`, nothing changes.

    Args:
        store: The store of the dataset.
        gallery: The gallery's name.
    """

    def __init__(self, store: Store, gallery: str) -> None:
        self._store = store
        self._gallery = gallery
        self.files: dict[str, DatasetFile] = {}
        self.current: Manifest | None = None

    @staticmethod
    def of(store: Store, gallery: str) -> "Draft":
        """Return a draft for the kind of store."""
        return _FolderDraft(store, gallery) if store.is_local else _ObjectDraft(store, gallery)

    def __enter__(self) -> "Draft":
        self._clean()
        self.current = Manifest.read(self._store, self._gallery)
        return self

    def __exit__(self, *_: object) -> None:
        self._clean()

    def keep(self, file: DatasetFile) -> None:
        """Take a part over from the current version.

        Raises:
            StoreError: The store failed.
        """
        self.files[file.part] = file
        self._keep(file)

    def write(self, part: str, write: Write) -> DatasetFile:
        """Write a part anew.

        Raises:
            StoreError: The store failed.
            ResourceError: No temporary file could be written.
        """
        with self._opened(part) as (file, name):
            digesting = DigestingFile(file)
            written = write(cast("IO[bytes]", digesting)) or Written()
            self.files[part] = DatasetFile(
                name, part, digesting.tell(), digesting.digest.hexdigest(), *written
            )
        return self.files[part]

    def publish(self, manifest: Manifest) -> bool:
        """Put this version in the place of the current one, and return whether anything differs.

        Args:
            manifest: The version's manifest; its files are replaced by the draft's.

        Raises:
            StoreError: The store failed.
        """
        new = Manifest(manifest.settings, manifest.made_by, manifest.images, self.files)
        if self.current is not None and _content(new) == _content(self.current):
            return False
        self._publish(new)
        return True

    def _before(self, part: str) -> DatasetFile | None:
        return self.current.files.get(part) if self.current else None

    @abstractmethod
    def _clean(self) -> None:
        """Delete what an interrupted writer left behind."""

    @abstractmethod
    def _keep(self, file: DatasetFile) -> None:
        """Have a file of the current version in this one."""

    @abstractmethod
    def _opened(self, part: str) -> Any:
        """Open a new file for the length of a `with` block, and give it with its name in the folder."""

    @abstractmethod
    def _publish(self, manifest: Manifest) -> None:
        """Write the manifest, and let readers see this version."""


class _FolderDraft(Draft):
    """A draft on a disk: a folder that takes the place of the current one."""

    def __init__(self, store: Store, gallery: str) -> None:
        super().__init__(store, gallery)
        self._draft, self._folder, self._aside = (
            cast("Path", store.local_path(place(gallery)))
            for place in (dataset_draft_path, dataset_path, replaced_dataset_path)
        )

    def _clean(self) -> None:
        with self._storing():
            recover(self._folder, self._aside)
            shutil.rmtree(self._draft, ignore_errors=True)

    def _keep(self, file: DatasetFile) -> None:
        with self._storing():
            target = self._place(file.name)
            try:
                os.link(self._folder / file.name, target)
            except FileNotFoundError:
                raise
            except OSError:  # a file system without hard links
                shutil.copyfile(self._folder / file.name, target)

    @contextmanager
    def _opened(self, part: str) -> Iterator[tuple[IO[bytes], str]]:
        with self._storing(), self._place(part).open("wb") as file:
            yield file, part
            file.flush()
            os.fsync(file.fileno())

    def _publish(self, manifest: Manifest) -> None:
        with self._storing():
            with self._place(MANIFEST).open("wb") as file:
                file.write(manifest.json())
                file.flush()
                os.fsync(file.fileno())
            swap(self._draft, self._folder, self._aside)

    def _place(self, name: str) -> Path:
        target = self._draft / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    @contextmanager
    def _storing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            words = error.strerror or error
            raise StoreError(f"cannot write the dataset {self._folder}: {words}") from error


class _ObjectDraft(Draft):
    """A draft in an object store: files beside the current ones, which no manifest names yet."""

    def _clean(self) -> None:
        current = Manifest.read(self._store, self._gallery)
        named = {MANIFEST, *(each.name for each in current.files.values())} if current else set()
        folder = dataset_path(self._gallery)
        stored = (each.path for each in self._store.list(folder))
        self._store.delete([path for path in stored if path.removeprefix(f"{folder}/") not in named])

    def _keep(self, file: DatasetFile) -> None:
        """Do nothing: the file stays where it is."""

    @contextmanager
    def _opened(self, part: str) -> Iterator[tuple[IO[bytes], str]]:
        name = self._free_name(part)
        with opened_temporary() as file:
            with needing_room():
                yield file, name
            self._upload(part, file)

    def _upload(self, part: str, file: IO[bytes]) -> None:
        new, before = self.files[part], self._before(part)
        if before is not None and before.sha256 == new.sha256:  # written anew with the same bytes
            self.files[part] = DatasetFile(before.name, part, new.bytes, new.sha256, new.images, new.rows)
            return
        file.seek(0)
        self._store.put(f"{dataset_path(self._gallery)}/{new.name}", file)

    def _free_name(self, part: str) -> str:
        """Return a name that the current version does not use for this part."""
        before = self._before(part)
        if before is None:
            return part
        path = PurePosixPath(part)
        number = int(before.name.removesuffix(path.suffix).rpartition("~")[2]) if "~" in before.name else 1
        return str(path.with_name(f"{path.stem}~{number + 1}{path.suffix}"))

    def _publish(self, manifest: Manifest) -> None:
        self._store.put(f"{dataset_path(self._gallery)}/{MANIFEST}", manifest.json())
        self._clean()


def _content(manifest: Manifest) -> tuple[object, ...]:
    """Return what makes a version differ from another one; which program made it does not."""
    files = sorted((each.part, each.sha256, each.rows) for each in manifest.files.values())
    return (manifest.settings, manifest.images, files)


class DigestingFile(io.RawIOBase):
    """A file that is written from its start to its end, and digests what is written.

    Args:
        file: Where the bytes go.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self._written = 0
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        """Return that it can be written to."""
        return True

    def write(self, data: Any) -> int:
        """Write bytes."""
        self._file.write(data)
        self.digest.update(data)
        size = memoryview(data).nbytes
        self._written += size
        return size

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self._written
