"""What Dagster loads: the galleries file that IMGDL_CONFIG names, or else the one in the package."""

import gc
import os
import warnings
from pathlib import Path

import dagster as dg

from imgdl_pipeline.component import ImageGalleries
from imgdl_pipeline.config.galleries import Galleries
from imgdl_pipeline.config.galleries_file import read_galleries_file

CONFIG_VARIABLE = "IMGDL_CONFIG"
EMBEDDED_CONFIG = Path(__file__).with_name("galleries.yaml")


def galleries_file() -> Path:
    """The galleries file that is used."""
    return Path(os.environ.get(CONFIG_VARIABLE) or EMBEDDED_CONFIG)


def galleries() -> Galleries:
    """What stands in it.

    Raises:
        GalleriesFileError: The file cannot be used; says where and why.
    """
    return read_galleries_file(galleries_file())


@dg.definitions
def defs() -> dg.Definitions:
    """The definitions of the galleries file.

    Steps run in this one process: a process for each would cost more than a small gallery's downloads. The
    process is taken to be the project's own, as `workspace.yaml` makes it.

    Raises:
        GalleriesFileError: The file cannot be used; says where and why.
    """
    # What is loaded by now, most of it Dagster's, lives as long as this process. The garbage collector would
    # go through its 150,000 objects again and again, which was a quarter of a small gallery's run.
    gc.freeze()
    # Dagster warns its own command line, which parses --select '*' with a parameter that is in beta.
    warnings.filterwarnings("ignore", "Parameter `include_sources` of", dg.BetaWarning)
    return dg.Definitions.merge(
        dg.build_defs_for_component(ImageGalleries(galleries(), galleries_file())),
        dg.Definitions(executor=dg.in_process_executor),
    )
