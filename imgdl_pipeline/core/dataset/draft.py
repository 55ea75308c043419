"""Write the next version of a dataset beside the current one, and put it in its place at once.

On a disk, the new version is a folder of its own, in which unchanged files are hard links, and the two
folders are exchanged. In an object store, no file with images is written over: a changed one gets a new name,
and the manifest, which is written last, names the files that count. The texts beside them, which readers look
for by their names, are written over just before it.
"""

import hashlib
import io
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple, cast

from imgdl_pipeline.core.dataset.manifest import CARD, MANIFEST, TEXTS, DatasetFile, Manifest
from imgdl_pipeline.core.model.temporary import needing_room, opened_temporary
from imgdl_pipeline.core.storage.layout import dataset_draft_path, dataset_path, replaced_dataset_path
from imgdl_pipeline.core.storage.lease import GalleryBusyError, Lease
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
        lease: The right to write it, which is checked before every change.
    """

    def __init__(self, store: Store, gallery: str, lease: Lease) -> None:
        self._store = store
        self._gallery = gallery
        self._lease = lease
        self.files: dict[str, DatasetFile] = {}
        self.current: Manifest | None = None

    @staticmethod
    def of(store: Store, gallery: str, lease: Lease) -> "Draft":
        """Return a draft for the kind of store."""
        kind = _FolderDraft if store.is_local else _ObjectDraft
        return kind(store, gallery, lease)

    def __enter__(self) -> "Draft":
        self._clean()
        self.current = Manifest.read(self._store, self._gallery)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(GalleryBusyError):  # what is there then is another writer's
            self._lease.check()
            self._clean()

    def keep(self, file: DatasetFile) -> bool:
        """Take a part over from the current version, and return whether it is still there.

        Raises:
            GalleryBusyError: Another writer has taken over.
            StoreError: The store failed.
        """
        self._lease.check()
        if not self._has(file):
            return False
        self._keep(file)
        self.files[file.part] = file
        return True

    def write(self, part: str, write: Write) -> DatasetFile:
        """Write a part anew.

        Raises:
            GalleryBusyError: Another writer has taken over.
            StoreError: The store failed.
            ResourceError: No temporary file could be written.
        """
        self._lease.check()
        with self._opened(part) as (file, name):
            digesting = DigestingFile(file)
            written = write(cast("IO[bytes]", digesting)) or Written()
            self.files[part] = DatasetFile(
                name, part, digesting.tell(), digesting.digest.hexdigest(), *written
            )
        return self.files[part]

    def drop(self, part: str) -> None:
        """Leave a part out that was written, because it turned out to be empty."""
        del self.files[part]

    def publish(self, manifest: Manifest) -> bool:
        """Put this version in the place of the current one, and return whether anything differs.

        Args:
            manifest: The version's manifest; its files are replaced by the draft's.

        Raises:
            GalleryBusyError: Another writer has taken over.
            StoreError: The store failed.
        """
        new = Manifest(manifest.settings, manifest.made_by, manifest.images, self.files)
        self._lease.check()
        if self.current is not None and _content(new) == _content(self.current) and self._is_whole():
            return False
        self._publish(new)
        return True

    def _is_whole(self) -> bool:
        return self.current is not None and all(map(self._has, self.current.files.values()))

    @abstractmethod
    def _has(self, file: DatasetFile) -> bool:
        """Return whether a file of the current version is there, with its size."""

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

    def __init__(self, store: Store, gallery: str, lease: Lease) -> None:
        super().__init__(store, gallery, lease)
        self._draft, self._folder, self._aside = (
            cast("Path", store.local_path(place(gallery))).resolve()  # the dataset may be a link to a disk
            for place in (dataset_draft_path, dataset_path, replaced_dataset_path)
        )

    def _clean(self) -> None:
        with self._storing():
            recover(self._folder, self._aside)
            if self._draft.exists():
                shutil.rmtree(self._draft)

    def _has(self, file: DatasetFile) -> bool:
        try:
            return (self._folder / file.name).stat().st_size == file.bytes
        except FileNotFoundError:
            return False

    def _keep(self, file: DatasetFile) -> None:
        source, target = self._folder / file.name, self._place(file.name)
        with self._storing():
            try:
                os.link(source, target)
            except OSError:  # a file system without hard links
                shutil.copyfile(source, target)

    @contextmanager
    def _opened(self, part: str) -> Iterator[tuple[IO[bytes], str]]:
        with self._storing():
            target = self._place(part)
            target.unlink(missing_ok=True)  # never write into what may be a link to the current version
            with target.open("xb") as file:
                yield file, part
                file.flush()
                os.fsync(file.fileno())

    def drop(self, part: str) -> None:
        """Leave a part out that was written, because it turned out to be empty."""
        super().drop(part)
        with self._storing():
            self._place(part).unlink()

    def _publish(self, manifest: Manifest) -> None:
        with self._storing():
            with self._place(MANIFEST).open("xb") as file:
                file.write(manifest.json())
                file.flush()
                os.fsync(file.fileno())
            swap(self._draft, self._folder, self._aside)

    def _place(self, name: str) -> Path:
        with self._storing():
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

    def __init__(self, store: Store, gallery: str, lease: Lease) -> None:
        super().__init__(store, gallery, lease)
        self._sizes: dict[str, int] = {}
        self._texts: dict[str, bytes] = {}

    def _clean(self) -> None:
        current = Manifest.read(self._store, self._gallery)
        named = {MANIFEST, *(each.name for each in current.files.values())} if current else set()
        folder = f"{dataset_path(self._gallery)}/"
        self._sizes = {
            each.path.removeprefix(folder): each.bytes for each in self._store.list(folder.rstrip("/"))
        }
        self._store.delete([folder + name for name in self._sizes if name not in named])

    def _has(self, file: DatasetFile) -> bool:
        return self._sizes.get(file.name) == file.bytes

    def _keep(self, file: DatasetFile) -> None:
        """Do nothing: the file stays where it is."""

    @contextmanager
    def _opened(self, part: str) -> Iterator[tuple[IO[bytes], str]]:
        name = part if part in TEXTS else self._free_name(part)
        with opened_temporary() as file:
            with needing_room():
                yield file, name
            file.seek(0)
            if part in TEXTS:
                self._texts[part] = file.read()
            else:
                self._upload(part, file)

    def _upload(self, part: str, file: IO[bytes]) -> None:
        new, before = self.files[part], self.current.files.get(part) if self.current else None
        if before is not None and before.sha256 == new.sha256 and self._has(before):
            self.files[part] = replace(new, name=before.name)  # written anew with the same bytes
            return
        self._lease.check()  # writing it may have taken long
        self._store.put(f"{dataset_path(self._gallery)}/{new.name}", file)

    def _free_name(self, part: str) -> str:
        """Return a name that the current version does not use for this part."""
        before = self.current.files.get(part) if self.current else None
        if before is None:
            return part
        path = PurePosixPath(part)
        number = int(before.name.removesuffix(path.suffix).rpartition("~")[2]) if "~" in before.name else 1
        return str(path.with_name(f"{path.stem}~{number + 1}{path.suffix}"))

    def _publish(self, manifest: Manifest) -> None:
        folder = dataset_path(self._gallery)
        for name, text in self._texts.items():
            self._store.put(f"{folder}/{name}", text)
        self._store.put(f"{folder}/{MANIFEST}", manifest.json())
        self._clean()


def _content(manifest: Manifest) -> tuple[object, ...]:
    """Return what makes a version differ from another one; which program made it does not.

    The card names the program, and has nothing else that is not in the rest.
    """
    files = sorted(
        (each.part, each.sha256, each.rows) for each in manifest.files.values() if each.part != CARD
    )
    return (manifest.settings.model_dump(), manifest.images, files)


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
