"""Keep the manifest of a dataset: what it was made with, and its files with their digests.

The manifest is the dataset's `manifest.json`. Whoever has a copy of the files can check them against it. In
an object store, it also tells which files are the dataset's: a file of an update that was interrupted is
there, too.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from imgdl_pipeline.core.model.dataset_settings import DatasetSettings
from imgdl_pipeline.core.model.digest import SHOWN_DIGITS
from imgdl_pipeline.core.storage.layout import dataset_path
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.store import Store

MANIFEST = "manifest.json"
CARD, CREDITS, ATTRIBUTION = "README.md", "CREDITS.csv", "ATTRIBUTION.md"
METADATA = "train/metadata.jsonl"
TEXTS = frozenset({CARD, CREDITS, ATTRIBUTION, METADATA})
"""The files of a dataset that readers look for by their names; METADATA has the rows of an imagefolder."""

INDEX = ".index"
"""The table of the images in a dataset, for the next update: Parquet that no reader takes for data."""


@dataclass(frozen=True, slots=True)
class DatasetFile:
    """A file of a dataset.

    Args:
        name: Its path in the dataset's folder.
        part: Its name as part of the dataset; in an object store, a new version of a part has a new name.
        bytes: Its size.
        sha256: Its SHA-256, 64 hex digits.
        images: How many images it holds.
        rows: A digest of what it was made of, to tell whether it must be made again; empty where that is not
            known.
    """

    name: str
    part: str
    bytes: int
    sha256: str
    images: int = 0
    rows: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a dataset was made with, and its files.

    Args:
        settings: The dataset's settings.
        made_by: The program and its version.
        images: How many images the dataset has.
        files: Its files by their part.
    """

    settings: DatasetSettings
    made_by: str
    images: int
    files: Mapping[str, DatasetFile] = field(default_factory=dict)

    @staticmethod
    def read(store: Store, gallery: str) -> "Manifest | None":
        """Return a dataset's manifest, or None if there is no dataset.

        Raises:
            StoreError: It could not be read, or makes no sense.
        """
        path = f"{dataset_path(gallery)}/{MANIFEST}"
        data = store.get(path)
        if data is None:
            return None
        try:
            fields = json.loads(data)
            files = [DatasetFile(**each) for each in fields["files"]]
            settings = DatasetSettings.model_validate(fields["settings"])
            return Manifest(
                settings, fields["made_by"], fields["images"], {each.part: each for each in files}
            )
        except (ValueError, KeyError, TypeError) as error:  # pydantic's are ValueErrors
            raise StoreError(
                f"{store.location(path)} is no manifest that this version reads ({type(error).__name__}): "
                "delete the folder, and the next run writes the dataset anew"
            ) from None

    @property
    def digest(self) -> str:
        """A digest of all files, the same for the same dataset."""
        files = sorted(f"{each.part} {each.sha256}" for each in self.files.values())
        return hashlib.sha256("\n".join(files).encode()).hexdigest()[:SHOWN_DIGITS]

    def json(self) -> bytes:
        """Return the manifest as the bytes of its file."""
        fields = {
            "made_by": self.made_by,
            "images": self.images,
            "settings": self.settings.model_dump(mode="json"),
            "files": [asdict(each) for each in sorted(self.files.values(), key=lambda each: each.part)],
        }
        return json.dumps(fields, indent=1, ensure_ascii=False).encode() + b"\n"
