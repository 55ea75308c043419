"""What authors of sources import.

A source is a module with a subclass of `SourceSettings` and a function `list_links(source, client)`, named by
an entry point in the group `imgdl_pipeline.sources`. The documentation has an example: "Add a source".
"""

from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.settings import (
    HttpUrl,
    MaxImages,
    MissingSecretError,
    Secret,
    SourceSettings,
)
from imgdl_pipeline.core.sources.client import Answer, Document, SourceClient, SourceError, Unchanged

__all__ = [
    "Answer",
    "Document",
    "HttpUrl",
    "Link",
    "MaxImages",
    "MissingSecretError",
    "Secret",
    "SourceClient",
    "SourceError",
    "SourceSettings",
    "Unchanged",
]
