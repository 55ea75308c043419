"""Tell one version of a galleries file from another, so that no process works from an old one."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ATTRIBUTES = "attributes"
DIGITS = 16
"""Hex digits of a digest that people see: 64 bits."""


@dataclass(frozen=True, slots=True, eq=False)
class FileVersion:
    """What a galleries file said when it was loaded.

    Templates count as they are written: what they render to belongs to each process's environment, and may be
    secret. So comments and layout do not count.

    Args:
        digest: Of the attributes, and of the rows that `galleries_from` made galleries of.
        attributes: Of the attributes alone.
        file: The file; None where nobody knows it.
        content: Of the file's bytes; None where it cannot be read.
    """

    digest: str
    attributes: str
    file: Path | None = None
    content: str | None = None

    @staticmethod
    def of(attributes: Any, rows: Sequence[Any], file: Path | None) -> "FileVersion":
        """Return the version of a file that is being loaded.

        Args:
            attributes: Its attributes as parsed from YAML, before templates are rendered.
            rows: The rows of `galleries_from`.
            file: The file.
        """
        content = _content(file)
        return FileVersion(_digest([attributes, list(rows)]), _digest(attributes), file, content)

    def is_old(self) -> bool:
        """Return whether the file says something else by now; False where it cannot be read any more."""
        if self.content is None or _content(self.file) in (self.content, None):
            return False
        return self.attributes not in _versions(self.file)


def _digest(content: Any) -> str:
    text = json.dumps(_in_order(content), default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:DIGITS]


def _in_order(content: Any) -> Any:
    """Return what YAML may hold with the keys of its mappings in order, as their order says nothing."""
    if isinstance(content, dict):
        return {key: _in_order(content[key]) for key in sorted(content, key=str)}
    return [_in_order(each) for each in content] if isinstance(content, list) else content


def _content(file: Path | None) -> str | None:
    try:
        return None if file is None else hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return None


def _versions(file: Path | None) -> list[str]:
    """Return the digests of the attributes in a file, which may have several documents."""
    try:
        documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8"))) if file else []
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return []
    return [_digest(each.get(ATTRIBUTES)) for each in documents if isinstance(each, dict)]
