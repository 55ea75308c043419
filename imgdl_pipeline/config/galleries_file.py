"""Read a galleries file; an error names the place, the value and what is allowed."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import dagster as dg
import jinja2
import pydantic
import yaml
from jinja2.nativetypes import NativeEnvironment

from imgdl_pipeline.config.file_version import FileVersion
from imgdl_pipeline.config.galleries import NOT_ACCEPTED, SECRET_KEYS, Galleries, Gallery
from imgdl_pipeline.config.galleries_from import GalleriesFrom
from imgdl_pipeline.config.sharded import Sharded
from imgdl_pipeline.core.model.settings import UNKNOWN_KEY, did_you_mean, unknown_key
from imgdl_pipeline.core.sources import BROKEN, SourceError

logger = logging.getLogger(__name__)

COMPONENT_TYPE = "imgdl_pipeline.ImageGalleries"
SHARDED_TYPE = "imgdl_pipeline.ShardedGallery"
_MODELS: dict[object, type[Galleries] | type[Sharded]] = {COMPONENT_TYPE: Galleries, SHARDED_TYPE: Sharded}

KeyPath = tuple[str | int, ...]
Locate = Callable[[KeyPath], str]
"""A function that returns where in its file a value is, as `file:line`."""


ATTRIBUTES, GALLERIES, FROM = "attributes", "galleries", "galleries_from"
KEYS = ("type", ATTRIBUTES)
KEYS_OF_DAGSTER = ("requirements", "template_vars_module", "post_processing")

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The loader in C, where PyYAML has it, is seven times as fast, which a file of many galleries shows."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a galleries file that is not allowed.

    Args:
        place: Where it stands, as `file:line`.
        words: The key, the value and what is allowed.
        path: The keys that lead to it.
    """

    place: str
    words: str
    path: KeyPath = ()

    @classmethod
    def at(cls, path: KeyPath, words: str, locate: Locate) -> "Problem":
        """Return the problem with the value at a path."""
        return cls(locate(path), f"{'.'.join(map(str, path))}: {words}", path)

    @property
    def line(self) -> int:
        """Return the line's number, or 0 where nobody knows it."""
        number = self.place.rpartition(":")[2]
        return int(number) if number.isdecimal() else 0

    def __str__(self) -> str:
        return f"{self.place}: {self.words}"


class GalleriesFileError(Exception):
    """A galleries file cannot be used; the message has a line for each problem, in the file's order."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = sorted(problems, key=lambda problem: problem.line)
        super().__init__("\n".join(map(str, self.problems)))


def read_galleries_file(file: Path) -> Galleries:
    """Return the settings in a galleries file; those of a very large gallery's file are `Shards`.

    Raises:
        GalleriesFileError: The file cannot be read, is not YAML, or contains something that is not allowed.
    """
    node, content, repeated = _parsed(file)

    def locate(path: KeyPath) -> str:
        return f"{file}:{_line(node, path)}"

    content = content if isinstance(content, dict) else {}
    problems = [
        *_wrong_type(content, locate),
        *_top_level_keys(content, locate),
        *(Problem(f"{file}:{line}", f"{key}: stands twice in the same place") for key, line in repeated),
    ]
    key = _attributes_key(content)
    if key in content or not problems:
        try:
            model = _MODELS.get(content.get("type"), Galleries)
            galleries = parse_attributes(content.get(key), locate, {}, key, file, model)
        except GalleriesFileError as error:
            problems += error.problems
    if problems:
        raise GalleriesFileError(*problems)
    return galleries


def _parsed(file: Path) -> tuple[yaml.Node | None, Any, list[tuple[str, int]]]:
    """Return a YAML file's nodes, which know their lines, its content, and keys that stand twice."""
    try:
        loader = _Loader(file.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        repeated = list(_repeated(node, set()))  # beforehand: merging `<<` repeats keys, too
        return node, None if node is None else loader.construct_document(node), repeated
    except OSError as error:
        raise GalleriesFileError(Problem(str(file), f"cannot be read: {error.strerror}")) from error
    except UnicodeDecodeError as error:
        raise GalleriesFileError(Problem(str(file), f"not UTF-8: {error.reason}")) from error
    except yaml.reader.ReaderError as error:
        raise GalleriesFileError(Problem(f"{file}:1", f"not valid YAML: {error.reason}")) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        hint = '; quote a template, as in "{{ env.NAME }}"' if "unhashable" in str(error.problem) else ""
        raise GalleriesFileError(
            Problem(f"{file}:{line}", f"not valid YAML: {error.problem}{hint}")
        ) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise GalleriesFileError(Problem(f"{file}:1", f"not valid YAML: {error}")) from error


def _wrong_type(content: Mapping[str, Any], locate: Locate) -> list[Problem]:
    if content.get("type") in _MODELS:
        return []
    return [Problem(locate(("type",)), f"type: must be {' or '.join(map(str, _MODELS))}")]


def _top_level_keys(content: Mapping[str, Any], locate: Locate) -> Iterator[Problem]:
    for key in content:
        if key in KEYS_OF_DAGSTER:
            yield Problem(
                locate((key,)), f"{key}: works only in a file that Dagster itself loads, a defs.yaml"
            )
        elif key not in KEYS:
            yield Problem(locate((key,)), f"{key}: {unknown_key(key, KEYS)}")


def _attributes_key(content: Mapping[str, Any]) -> str:
    """Return the key of the attributes, however it is misspelled."""
    if ATTRIBUTES in content:
        return ATTRIBUTES
    return next((str(key) for key in content if did_you_mean(key, [ATTRIBUTES])), ATTRIBUTES)


def _repeated(node: yaml.Node | None, seen: set[int]) -> Iterator[tuple[str, int]]:
    """Yield the keys that stand twice in a mapping, with their lines: YAML itself takes the last one.

    Args:
        node: Where to look.
        seen: The nodes that were looked at, because a node can have several places, and contain itself.
    """
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # which no constructor takes
            if key.value in keys and key.value != "<<":
                yield key.value, key.start_mark.line + 1
            keys.add(str(key.value))
            yield from _repeated(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _repeated(value, seen)


def parse_attributes(
    attributes: Any,
    locate: Locate,
    scope: Mapping[str, Any],
    key: str = ATTRIBUTES,
    file: Path | None = None,
    model: type[Galleries] | type[Sharded] = Galleries,
) -> Galleries:
    """Return the settings in the `attributes` of a component file.

    Args:
        attributes: The attributes as parsed from YAML.
        locate: Returns where in its file a value is.
        scope: Names that templates may use, besides `env`.
        key: The key of the attributes in the file.
        file: The file, beside which fetched rows of `galleries_from` are kept.
        model: What the attributes are: those of galleries, or of one very large gallery.

    Raises:
        GalleriesFileError: Something is not allowed; the message names every such place.
    """
    problems: list[Problem] = []
    known = {"dg": dg, "automation_condition": dg.AutomationCondition, **scope, "env": _Environment()}
    template = _Templates(locate, known, problems)
    rendered = template.rendered(attributes, (key,))
    if model is Galleries and isinstance(rendered, dict) and isinstance(rendered.get(FROM), dict):
        written = [each for each in rendered.get(GALLERIES) or () if isinstance(each, dict)]
        taken = [str(each.get("name")) for each in written]
        made = template.galleries(rendered[FROM], (key, FROM), file or Path("galleries"), taken)
        rendered = {**rendered, GALLERIES: [*(rendered.get(GALLERIES) or ()), *made]}
    try:
        given = model.model_validate(rendered)
        galleries = given.as_shards() if isinstance(given, Sharded) else given
    except pydantic.ValidationError as error:
        unrendered = {problem.path for problem in problems}
        found = (_problem(each, key, locate) for each in error.errors())
        raise GalleriesFileError(
            *problems, *(each for each in found if each.path not in unrendered)
        ) from None
    if problems:
        raise GalleriesFileError(*problems)
    return galleries.loaded_as(FileVersion.of(attributes, template.rows, file))


_ANY_SECRET_KEY = frozenset().union(*SECRET_KEYS.values())


def _problem(error: Any, key: str, locate: Locate) -> Problem:
    """Return the problem that an error of validation tells; `key` is the key of the attributes."""
    path: KeyPath = (key, *error["loc"])
    if error["type"] == UNKNOWN_KEY:
        path = (*path, error["ctx"]["key"])
    return Problem.at(path, _words(error, path), locate)


def _words(error: Any, path: KeyPath) -> str:
    value, context = error.get("input"), error.get("ctx", {})
    if error["type"] == "union_tag_invalid":
        allowed = context["expected_tags"].replace("'", "").split(", ")
        broken = BROKEN.get(context["tag"])
        return broken or error["msg"] + did_you_mean(context["tag"], allowed)
    is_shown = (
        isinstance(value, (str, int, float))
        and path[-1] not in _ANY_SECRET_KEY
        and error["type"] not in (UNKNOWN_KEY, NOT_ACCEPTED)
    )
    return str(error["msg"]) + (f", not {value!r}" if is_shown else "")


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


_TEXT = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 -- not HTML


class _Objects(NativeEnvironment):
    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return an attribute; of a class never an item, as `AutomationCondition["eagre"]` would be."""
        if isinstance(obj, type) and not hasattr(obj, attribute):
            return self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)


_OBJECT = _Objects(undefined=jinja2.StrictUndefined, autoescape=False)
_OF_OBJECTS = ("automation_condition",)
"""The keys whose templates make an object; all others make text."""


@lru_cache(maxsize=1000)
def _compiled(templates: jinja2.Environment, text: str) -> jinja2.Template:
    return templates.from_string(text)


def _made(template: jinja2.Template, scope: Mapping[str, Any]) -> Any:
    """Return what a template makes; raise what is wrong with it."""
    made: Any = template.render(scope)
    if isinstance(made, jinja2.Undefined):
        str(made)  # which raises: an object's template gives the undefined name itself
    return made


class _Row(dict[str, Any]):
    """A row of a table, whose columns templates name as attributes."""

    def __missing__(self, name: str) -> Any:
        known = ", ".join(sorted(self))
        raise jinja2.UndefinedError(f"there is no column {name!r}; there are {known}")


SHOWN_ROWS = 20
"""The most errors in rows that are reported one by one."""


class _Templates:
    """Renders the templates in a file's values, as text.

    Args:
        locate: Returns where in its file a value is.
        scope: The names that templates may use.
        problems: The list that gets a problem for each template that cannot be rendered.
    """

    def __init__(self, locate: Locate, scope: Mapping[str, Any], problems: list[Problem]) -> None:
        self._locate, self._scope, self._problems = locate, scope, problems
        self._around: list[int] = []
        self.rows: list[dict[str, Any]] = []

    def galleries(
        self, given: dict[str, Any], path: KeyPath, file: Path, taken: Iterable[str]
    ) -> list[Gallery]:
        """Return the galleries that `galleries_from` makes; none if it is wrong, which is reported elsewhere.

        A row that makes no gallery is a problem. Of rows that were fetched, it is only passed over with a
        warning: a stranger's table must not keep the file from being loaded.

        Args:
            given: The value of `galleries_from`.
            path: Its place.
            file: The galleries file.
            taken: The names of the other galleries.
        """
        try:
            made_from = GalleriesFrom.model_validate(given)
            rows = made_from.rows(file)
        except pydantic.ValidationError:
            return []
        except SourceError as error:
            self._problems.append(Problem.at(path, str(error), self._locate))
            return []
        self.rows = rows
        names = {name.lower() for name in taken}
        made, wrong = [], []
        for number, row in enumerate(rows, start=1):
            problems: list[Problem] = []
            of_row = _Templates(self._locate, {**self._scope, "row": _Row(row)}, problems)
            gallery = of_row._gallery(row, made_from, (*path, f"row {number}"), names)
            made += [gallery] if gallery is not None else []
            wrong += problems
        shown = wrong[:SHOWN_ROWS]
        if len(wrong) > len(shown):
            shown.append(Problem.at(path, f"and {len(wrong) - len(shown)} more errors in rows", self._locate))
        if made_from.is_remote:
            for problem in shown:
                logger.warning("passed over: %s", problem)
        else:
            self._problems += shown
        return made

    def _gallery(
        self, row: dict[str, Any], made_from: GalleriesFrom, path: KeyPath, names: set[str]
    ) -> Gallery | None:
        """Return the gallery of one row, whose name joins `names`; None after noting what is wrong."""
        values = {"name": row["name"], "trusted": not made_from.is_remote}
        values |= self.rendered(made_from.template, path)
        if self._problems:
            return None
        if row["name"].lower() in names:
            words = f"the name {row['name']!r} is used twice, whatever its case"
            self._problems.append(Problem.at(path, words, self._locate))
            return None
        try:
            gallery = Gallery.model_validate(values)
        except pydantic.ValidationError as error:
            for each in error.errors():
                found = _problem(each, "", self._locate)
                self._problems.append(
                    Problem.at((*path, *found.path[1:]), _words(each, found.path), self._locate)
                )
            return None
        names.add(gallery.name.lower())
        return gallery

    def rendered(self, value: Any, path: KeyPath) -> Any:
        """Return the value with its templates rendered; secrets stay templates until they are used.

        The templates of `galleries_from` stay, too: they are rendered for each row.
        """
        if path[1:] == (FROM, "gallery") and "row" not in self._scope:
            return value
        if not isinstance(value, (Mapping, list)):
            return self._rendered_text(value, path)
        if id(value) in self._around:
            self._problems.append(Problem.at(path, "contains itself", self._locate))
            return None
        self._around.append(id(value))
        try:
            return self._rendered_parts(value, path)
        finally:
            self._around.pop()

    def _rendered_parts(self, value: Any, path: KeyPath) -> Any:
        if isinstance(value, Mapping):
            secret_keys = SECRET_KEYS.get(str(value.get("type")), _ANY_SECRET_KEY)
            return {
                key: each if key in secret_keys else self.rendered(each, (*path, key))
                for key, each in value.items()
            }
        return [self.rendered(each, (*path, place)) for place, each in enumerate(value)]

    def _rendered_text(self, value: Any, path: KeyPath) -> Any:
        if not isinstance(value, str) or "{" not in value:
            return value
        try:
            templates = _OBJECT if path[-1] in _OF_OBJECTS else _TEXT
            return _made(_compiled(templates, value), self._scope)
        except Exception as error:  # noqa: BLE001 -- a template may raise anything
            self._problems.append(Problem.at(path, str(error) or type(error).__name__, self._locate))
            return value
