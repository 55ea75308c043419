import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.sources import json_items as module
from imgdl_pipeline.core.sources.json_items import CHUNK_CHARS, SHOWN_NAMES, JsonItemsError, json_items


class Slow(io.TextIOBase):
    """A text that comes in pieces of a few characters, whatever is asked for."""

    def __init__(self, text, sizes=(1,)):
        self._text = text
        self._sizes = sizes
        self._reads = 0

    def read(self, size=-1):
        length = self._sizes[self._reads % len(self._sizes)]
        self._reads += 1
        piece, self._text = self._text[:length], self._text[length:]
        return piece


def items(text, sizes=None):
    return list(json_items(Slow(text, sizes) if sizes else io.StringIO(text)))


def values(text, sizes=None):
    return [value for _, value in items(text, sizes)]


SIZES = st.lists(st.integers(1, 3), min_size=1, max_size=5)
SCALAR = st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=8)
JSON = st.recursive(
    SCALAR | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
BESIDE = SCALAR | st.dictionaries(st.text(max_size=3), JSON.filter(lambda each: not isinstance(each, list)))
ITEM = SCALAR | st.lists(JSON, max_size=2) | st.dictionaries(st.text(max_size=3), JSON, max_size=2)
INDENT = st.sampled_from([None, 0, 1, "\t"])


@given(st.lists(ITEM, max_size=4), SIZES, INDENT, st.booleans())
def test_a_list_is_read_in_pieces_of_any_size(listed, sizes, indent, ascii_only):
    text = json.dumps(listed, indent=indent, ensure_ascii=ascii_only)
    assert items(f"\r\n {text}\n\t", sizes) == [("", each) for each in listed]


@given(
    st.dictionaries(
        st.text(max_size=3), st.tuples(st.just(True), st.lists(ITEM, max_size=3)) | BESIDE, max_size=3
    ),
    SIZES,
    INDENT,
)
def test_the_lists_of_an_object_are_read_with_their_names(fields, sizes, indent):
    wrapped = {name: value[1] if isinstance(value, tuple) else value for name, value in fields.items()}
    wrapped["last"] = ["x"]
    lists = {name: value for name, value in wrapped.items() if isinstance(value, list)}
    expected = [(name, each) for name, value in lists.items() for each in value]
    assert items(json.dumps(wrapped, indent=indent), sizes) == expected


@given(
    st.binary(max_size=40) | st.text(st.sampled_from('[]{},:"\\1.e- truefalsn'), max_size=25).map(str.encode)
)
def test_any_text_is_items_or_an_error(data):
    try:
        items(data.decode(errors="replace"))
    except JsonItemsError as error:
        assert str(error)[0].isdigit()


NUMBERS = ["1.5", "-1.5", "12.75", "1e5", "1E+5", "1.5e-3", "-0.0", "10", "-7"]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_may_be_cut_at_the_end_of_a_piece(number):
    for size in range(1, 12):
        assert values(f"[{number}, {number}]", (size,)) == [float(number)] * 2
        assert values(f'{{"n": {number}, "data": ["x"], "m": {number}}}', (size,)) == ["x"]


@pytest.mark.parametrize("text", ['["a"]', '{"a": ["a"]}'])
@pytest.mark.parametrize("blanks", [CHUNK_CHARS - 3, CHUNK_CHARS, 3 * CHUNK_CHARS])
def test_blanks_may_fill_whole_pieces(text, blanks):
    assert values("\n" * blanks + text + "\n" * blanks) == ["a"]


@pytest.mark.parametrize("before", range(-6, 2))
def test_an_item_may_lie_across_the_end_of_a_piece(before):
    long = "x" * (CHUNK_CHARS - len('["", "\\u00e9"') + before)
    assert values(f'["{long}", "\\u00e9", {{"a": "\\\\"}}, true]') == [long, "é", {"a": "\\"}, True]


def test_an_item_may_be_longer_than_a_piece():
    long = "x" * (3 * CHUNK_CHARS)
    assert values(json.dumps([long, {"a": long}, 1])) == [long, {"a": long}, 1]


def test_a_huge_item_is_an_error_with_its_line(monkeypatch):
    monkeypatch.setattr(module, "CHUNK_CHARS", 100)
    monkeypatch.setattr(module, "LONGEST_ITEM", 1_000)
    assert values(json.dumps(["x" * 900])) == ["x" * 900]
    with pytest.raises(JsonItemsError, match=r"^2: an item has more than 1000 characters$"):
        items('["a",\n"' + "x" * 100_000)


def test_an_item_that_is_no_json_is_not_called_huge(monkeypatch):
    """The rest of the file is not read in the hope that it makes an item whole."""
    monkeypatch.setattr(module, "CHUNK_CHARS", 100)
    monkeypatch.setattr(module, "LONGEST_ITEM", 1_000)
    with pytest.raises(JsonItemsError, match=r"^2: Expecting value"):
        items('["a",\n{"b": c},\n' + '"x",\n' * 1_000 + '"z"]')


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, '[{"a":' * 100_000])
def test_deep_nesting_is_an_error(text):
    with pytest.raises(JsonItemsError, match=r"^1: nested too deeply$"):
        items(text)


def test_a_number_of_very_many_digits_is_an_error():
    with pytest.raises(JsonItemsError, match=r"^2: "):
        items('["a",\n{"n": ' + "1" * 5_000 + "}]")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "1: a list of links is expected"),
        ("\n\n 5", "3: a list of links is expected"),
        ('"https://h.org/a"', "1: a list of links is expected"),
        ("[", "1: Expecting value"),
        ('["a"', "1: , is expected, not the end"),
        ('["a"\n"b"]', '2: , is expected, not "'),
        ('["a",\n\n{"b": }]', "3: Expecting value"),
        ('["a"]\n["b"]', "2: there is something after the end"),
        ('{"a": ["b"]} x', "1: there is something after the end"),
        ('{"a" ["b"]}', "1: : is expected, not ["),
        ('{"a": ["b"] "c"}', '1: , is expected, not "'),
        ('{"a": ["b"],\n', "2: Expecting"),
        ("{}", "1: a list of links is expected, and the object holds none"),
        ('{"a": 1, "b": "x"}', "1: a list of links is expected, and the object holds none"),
        (
            '{"a": {"b": [1], "c": [2]},\n"d": {"e": []}}',
            "2: a list of links is expected, and the object holds none; there are lists deeper, "
            "at a.b, a.c, d.e",
        ),
    ],
)
@pytest.mark.parametrize("sizes", [None, (1,), (2, 3)])
def test_a_text_that_holds_no_list_is_an_error_with_its_line(text, words, sizes):
    with pytest.raises(JsonItemsError) as caught:
        items(text, sizes)
    assert str(caught.value).startswith(words)


def test_the_lists_that_an_error_names_are_few():
    deeper = json.dumps({"a": {str(number): [] for number in range(1_000)}})
    with pytest.raises(JsonItemsError) as caught:
        items(deeper)
    assert str(caught.value).endswith(f"a.{SHOWN_NAMES - 1}")


def test_an_empty_list_has_no_items():
    assert items("[]") == items('{"a": [], "b": {"c": [1]}}') == []


def test_items_come_before_the_rest_is_read():
    file = Slow('["a", "b"' + " " * 100)
    assert next(json_items(file)) == ("", "a")
    assert file.read() != ""
