"""Deprecated: import from `imgdl_pipeline.sources`."""

from imgdl_pipeline.core.deprecated import moved

NAMES = ("HttpUrl", "MaxImages", "MissingSecretError", "Secret", "SourceSettings")

__getattr__ = moved(__name__, {name: f"imgdl_pipeline.core.model.settings:{name}" for name in NAMES})
