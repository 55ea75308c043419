"""Read the items of a JSON list one at a time, so that a file of any length takes little memory."""

import json
from collections.abc import Generator, Iterator
from itertools import islice
from typing import Any, TextIO

CHUNK_CHARS = 1 << 20
LONGEST_ITEM = 10_000_000
"""The most characters of one item."""

LONGEST_NUMBER = 5_000
LONGEST_WORD = 10
SHOWN_NAMES = 20
_BLANKS = " \t\r\n"


class JsonItemsError(Exception):
    """Raised if a text is no JSON list, with its place and what is wrong."""


class _Text:
    """A text that is read in pieces, with a place in it."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._ended = False
        self._text = ""
        self._place = 0
        self._line = 1
        self._decoder = json.JSONDecoder()

    def peek(self) -> str:
        """Return the next character that is not blank, or an empty text at the end."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in _BLANKS:
                self._place += 1
            if self._place < len(self._text):
                return self._text[self._place]
            if not self._more():
                return ""

    def take(self, expected: str) -> None:
        """Pass over one of some characters."""
        found = self.peek()
        if not found or found not in expected:
            raise self.error(f"{' or '.join(expected)} is expected, not {found or 'the end'}")
        self._place += 1

    def value(self) -> Any:
        """Return the next value, reading on until it is whole."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                if not self._may_be_cut(error):
                    raise self.error(error.msg, error.pos) from None
                if len(self._text) - self._place > LONGEST_ITEM:
                    raise self.error(f"an item has more than {LONGEST_ITEM} characters") from None
                if not self._more():
                    raise self.error(error.msg) from None
                continue
            except ValueError:
                raise self.error("a number has too many digits") from None
            except RecursionError:
                raise self.error("nested too deeply") from None
            if self._text[end : end + LONGEST_NUMBER].strip("0123456789.eE+-") or not self._more():
                self._place = end
                return value

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        """Return whether an error may come from the end of the piece, in a text or a word such as null."""
        return error.msg.startswith("Unterminated") or error.pos >= len(self._text) - LONGEST_WORD

    def error(self, words: str, place: int | None = None) -> JsonItemsError:
        line = self._line + self._text.count("\n", 0, self._place if place is None else place)
        return JsonItemsError(f"{line}: {words}")

    def _more(self) -> bool:
        piece = "" if self._ended else self._file.read(max(CHUNK_CHARS, len(self._text) - self._place))
        self._ended = not piece
        self._line += self._text.count("\n", 0, self._place)
        self._text = self._text[self._place :] + piece
        self._place = 0
        return bool(piece)


def json_items(file: TextIO) -> Generator[tuple[str, Any], None, None]:
    """Yield the items of a JSON list, or of the lists that an object holds, as in `{"data": […]}`.

    Each comes with the name of its list, which is empty for the outermost one.

    Raises:
        JsonItemsError: The text is not JSON, or holds no list; the message says where.
    """
    text = _Text(file)
    if text.peek() == "{":
        yield from _wrapped(text)
    elif text.peek() == "[":
        yield from _list(text, "")
    else:
        raise text.error("a list of links is expected")
    if text.peek():
        raise text.error("there is something after the end")


def _list(text: _Text, name: str) -> Iterator[tuple[str, Any]]:
    text.take("[")
    while text.peek() != "]":
        yield name, text.value()
        if text.peek() != "]":
            text.take(",")
    text.take("]")


def _wrapped(text: _Text) -> Iterator[tuple[str, Any]]:
    """Yield the items of an object's lists."""
    text.take("{")
    has_list = False
    inner: list[str] = []
    while text.peek() != "}":
        name = str(text.value())
        text.take(":")
        if text.peek() == "[":
            has_list = True
            yield from _list(text, name)
        else:
            value = text.value()
            fields = value.items() if isinstance(value, dict) else ()
            lists = (f"{name}.{key}" for key, each in fields if isinstance(each, list))
            inner += islice(lists, SHOWN_NAMES - len(inner))
        if text.peek() != "}":
            text.take(",")
    text.take("}")
    if not has_list:
        where = f"; there are lists deeper, at {', '.join(inner)}" if inner else ""
        raise text.error(f"a list of links is expected, and the object holds none{where}")
