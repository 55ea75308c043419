"""Deprecated: import from `imgdl_pipeline.sources`."""

from imgdl_pipeline.core.deprecated import moved

__getattr__ = moved(__name__, {"Link": "imgdl_pipeline.core.model.links:Link"})
