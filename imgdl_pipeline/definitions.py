"""What Dagster loads: the galleries file that IMGDL_CONFIG names, or else the one in the package."""

import os
from pathlib import Path

import dagster as dg

from imgdl_pipeline.component import ImageGalleries
from imgdl_pipeline.galleries_file import read_galleries_file

CONFIG_VARIABLE = "IMGDL_CONFIG"
EMBEDDED_CONFIG = Path(__file__).with_name("galleries.yaml")


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions of the galleries file.

    Steps run in this one process: a process for each would cost more than a small gallery's downloads.

    Raises:
        GalleriesFileError: The file cannot be used; says where and why.
    """
    galleries = read_galleries_file(Path(os.environ.get(CONFIG_VARIABLE) or EMBEDDED_CONFIG))
    return dg.Definitions.merge(
        dg.build_defs_for_component(ImageGalleries(galleries)),
        dg.Definitions(executor=dg.in_process_executor),
    )
