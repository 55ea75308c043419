"""Read a galleries file; an error names the place, the value and what is allowed."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import jinja2
import pydantic
import yaml

from imgdl_pipeline.config.galleries import SECRET_KEYS, AssetSettings, Galleries
from imgdl_pipeline.core.model.settings import UNKNOWN_KEY
from imgdl_pipeline.core.sources import BROKEN

COMPONENT_TYPE = "imgdl_pipeline.ImageGalleries"

KeyPath = tuple[str | int, ...]
Locate = Callable[[KeyPath], str]
"""A function that returns where in its file a value is, as `file:line`."""


class GalleriesFileError(Exception):
    """A galleries file cannot be used; the message names the place, the value and what is allowed."""


def read_galleries_file(file: Path) -> Galleries:
    """Return the settings in a galleries file.

    Raises:
        GalleriesFileError: The file cannot be read, is not YAML, or contains something that is not allowed.
    """
    try:
        text = file.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except OSError as error:
        raise GalleriesFileError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise GalleriesFileError(f"{file}: not UTF-8: {error.reason}") from error
    except yaml.reader.ReaderError as error:
        raise GalleriesFileError(f"{file}:1: not valid YAML: {error.reason}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise GalleriesFileError(f"{file}:{line}: not valid YAML: {error.problem}") from error

    def locate(path: KeyPath) -> str:
        return f"{file}:{_line(node, path)}"

    if not isinstance(content, dict) or content.get("type") != COMPONENT_TYPE:
        raise GalleriesFileError(f"{locate(('type',))}: type: must be {COMPONENT_TYPE}")
    for key in content:
        if key not in ("type", "attributes", "requirements", "template_vars_module", "post_processing"):
            raise GalleriesFileError(
                f"{locate((key,))}: {key}: unknown key {key!r}; allowed are attributes, type"
            )
    return parse_attributes(content.get("attributes"), locate, {})


def parse_attributes(attributes: Any, locate: Locate, scope: Mapping[str, Any]) -> Galleries:
    """Return the settings in the `attributes` of a component file.

    Args:
        attributes: The attributes as parsed from YAML.
        locate: Returns where in its file a value is.
        scope: Names that templates may use, besides `env`.

    Raises:
        GalleriesFileError: Something is not allowed; the message names every such place.
    """
    rendered = _rendered(attributes, ("attributes",), locate, {**scope, "env": _Environment()})
    try:
        galleries = Galleries.model_validate(rendered)
    except pydantic.ValidationError as error:
        lines = [_line_of(each, locate) for each in error.errors()]
        raise GalleriesFileError("\n".join(lines)) from None
    _check_cron(galleries.schedule, locate)
    _check_assets(galleries.assets, locate)
    return galleries


def _check_cron(schedule: str | None, locate: Locate) -> None:
    """Let Dagster validate the schedule now, while its place in the file is known."""
    try:
        if schedule is not None:
            dg.ScheduleDefinition(name="checked", job_name="checked", cron_schedule=schedule)
    except dg.DagsterInvalidDefinitionError as error:
        path = ("attributes", "schedule")
        raise GalleriesFileError(
            f"{locate(path)}: {'.'.join(path)}: {schedule!r} is no cron expression; "
            'give five fields, such as "0 6 * * *", or null'
        ) from error


def _check_assets(assets: AssetSettings, locate: Locate) -> None:
    """Let Dagster validate the assets' owners and tags now, while their place in the file is known."""
    given: dict[str, Any] = {"owners": list(assets.owners), "tags": dict(assets.tags)}
    for key, value in given.items():
        try:
            dg.AssetSpec("checked", **{key: value})
        except (dg.DagsterInvalidDefinitionError, dg.DagsterInvariantViolationError) as error:
            path = ("attributes", "assets", key)
            raise GalleriesFileError(f"{locate(path)}: {'.'.join(path)}: {error}, not {value!r}") from error


_ANY_SECRET_KEY = frozenset().union(*SECRET_KEYS.values())


def _line_of(error: Any, locate: Locate) -> str:
    path: KeyPath = ("attributes", *error["loc"])
    if error["type"] == UNKNOWN_KEY:
        path = (*path, error["ctx"]["key"])
    value = error.get("input")
    is_shown = (
        isinstance(value, (str, int, float))
        and path[-1] not in _ANY_SECRET_KEY
        and error["type"] != UNKNOWN_KEY
    )
    broken = BROKEN.get(str(value.get("type"))) if isinstance(value, dict) else None
    words = broken or error["msg"] + (f", not {value!r}" if is_shown else "")
    return f"{locate(path)}: {'.'.join(map(str, path))}: {words}"


def _line(node: yaml.Node | None, path: KeyPath) -> int:
    """Return the line of a value, or of the closest node around it that exists."""
    line = 1
    for part in path:
        child = _child(node, part)
        if child is not None:
            key, node = child
            line = key.start_mark.line + 1
    return line


def _child(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """Return a part of a mapping or sequence: the node that names it, and its value."""
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


class _Environment:
    """The `env` of templates: `{{ env.NAME }}` or `{{ env('NAME', 'default') }}`; unset is an error."""

    def __getattr__(self, name: str) -> str:
        if name.startswith("jinja"):
            raise AttributeError(name)
        return self(name)

    def __call__(self, name: str, default: str | None = None) -> str:
        value = os.environ.get(name, default)
        if value is None:
            raise jinja2.UndefinedError(f"the environment variable {name} is not set")
        return value


_JINJA = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 -- not HTML


def _rendered(value: Any, path: KeyPath, locate: Locate, scope: Mapping[str, Any]) -> Any:
    """Return the value with its templates rendered as text; secrets stay templates until they are used."""
    if isinstance(value, Mapping):
        secret_keys = SECRET_KEYS.get(str(value.get("type")), _ANY_SECRET_KEY)
        return {
            key: each if key in secret_keys else _rendered(each, (*path, key), locate, scope)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [_rendered(each, (*path, place), locate, scope) for place, each in enumerate(value)]
    if not isinstance(value, str) or "{" not in value:
        return value
    try:
        return _JINJA.from_string(value).render(scope)
    except Exception as error:
        raise GalleriesFileError(f"{locate(path)}: {'.'.join(map(str, path))}: {error}") from error
