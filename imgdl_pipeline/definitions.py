"""Define what Dagster loads: the galleries file that IMGDL_CONFIG names, or else the one in the package."""

import gc
import os
import warnings
from pathlib import Path

import dagster as dg

from imgdl_pipeline.component import ImageGalleries
from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.config.galleries_file import read_galleries_file
from imgdl_pipeline.config.sharded import Shards
from imgdl_pipeline.resources import RENAMED_DOWNLOADS
from imgdl_pipeline.sharded import ShardedGallery

CONFIG_VARIABLE = "IMGDL_CONFIG"
EMBEDDED_CONFIG = Path(__file__).with_name("galleries.yaml")


def galleries_file() -> Path:
    """Return the path of the galleries file to use."""
    return Path(os.environ.get(CONFIG_VARIABLE) or EMBEDDED_CONFIG)


def galleries() -> Galleries:
    """Return the settings in the galleries file.

    Raises:
        GalleriesFileError: The file cannot be used; the message says where and why.
    """
    return read_galleries_file(galleries_file())


def component() -> ImageGalleries:
    """Return the component of the galleries file.

    Raises:
        GalleriesFileError: The file cannot be used; the message says where and why.
    """
    known = galleries()
    kind = ShardedGallery if isinstance(known, Shards) else ImageGalleries
    return kind(known, galleries_file(), RENAMED_DOWNLOADS)


@dg.definitions
def defs() -> dg.Definitions:
    """Return the definitions of the galleries file.

    Steps run in this one process: a process per step would cost more than a small gallery's downloads. This
    assumes that the process belongs to this project alone, as `workspace.yaml` sets it up.

    Raises:
        GalleriesFileError: The file cannot be used; the message says where and why.
    """
    # The 150,000 objects loaded by now, most of them Dagster's, live as long as this process. Unfrozen, the
    # garbage collector would traverse them repeatedly, which took a quarter of a small gallery's run.
    gc.freeze()
    # Dagster's own command line triggers this warning: it parses --select '*' with a beta parameter.
    warnings.filterwarnings("ignore", "Parameter `include_sources` of", dg.BetaWarning)
    return dg.Definitions.merge(
        dg.build_defs_for_component(component()),
        dg.Definitions(executor=dg.in_process_executor),
    )
