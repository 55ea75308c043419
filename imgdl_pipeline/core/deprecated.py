"""Keeps the import paths that sources of other packages have used, and says where their names are now."""

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any


def moved(module: str, names: dict[str, str]) -> Callable[[str], Any]:
    """Return a module's `__getattr__` for names that have moved.

    Args:
        module: The module's own name.
        names: The module in which each name is now defined, as `package.module:name`.
    """

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(
            f"import {names[name].partition(':')[2]} from imgdl_pipeline.sources: "
            f"{module}.{name} is deprecated, and goes with the next major version",
            DeprecationWarning,
            stacklevel=2,
        )
        place, _, attribute = names[name].partition(":")
        return getattr(import_module(place), attribute)

    return find
