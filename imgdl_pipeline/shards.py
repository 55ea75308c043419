"""What programs import that run the shards of a very large gallery by another engine than Dagster.

Nothing here imports Dagster. The documentation has recipes: "Run shards with Ray, Spark or processes".
"""

from imgdl_pipeline.core.dataset.where import WhereError
from imgdl_pipeline.core.jpeg.workers import JpegWorkers
from imgdl_pipeline.core.listing.shards import ShardsListed, list_shards, shards_with_work
from imgdl_pipeline.core.model.dataset_settings import DatasetSettings
from imgdl_pipeline.core.model.outcome import ResourceError
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.run_shard import ShardRun, run_shard
from imgdl_pipeline.core.sources import source_of
from imgdl_pipeline.core.storage.lease import GalleryBusyError
from imgdl_pipeline.core.storage.object_store import StoreError
from imgdl_pipeline.core.storage.parts import ReshardError
from imgdl_pipeline.core.storage.store import Store

__all__ = [
    "DatasetSettings",
    "DownloadSettings",
    "GalleryBusyError",
    "JpegWorkers",
    "ReshardError",
    "ResourceError",
    "ShardRun",
    "ShardsListed",
    "Store",
    "StoreError",
    "WhereError",
    "list_shards",
    "run_shard",
    "shards_with_work",
    "source_of",
]
