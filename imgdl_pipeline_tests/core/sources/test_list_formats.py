import io
import json
import tracemalloc
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgdl_pipeline.core.model.links import ATTRIBUTES_CHARS, BATCH_ROWS, attributes_json
from imgdl_pipeline.core.sources import list_formats, separated
from imgdl_pipeline.core.sources.client import SourceError
from imgdl_pipeline.core.sources.list_formats import (
    MAX_COLUMNS,
    READERS,
    ROWS_AT_A_TIME,
    ListFile,
    ListRow,
    Rows,
)

URL = "https://h.org/a.jpg"
OTHER = "https://h.org/b.jpg"


def rows(format_, data, url_column="url", **keys):
    data = data.encode() if isinstance(data, str) else data
    return list(READERS[format_](ListFile(io.BytesIO(data), "l", url_column, **keys)))


def read(format_, data, url_column="url", **keys):
    """Return the links of a list with their attributes, and what was counted."""
    found = Rows("l", url_column)
    return [each for row in rows(format_, data, url_column, **keys) for each in found.links_of(row)], found


def links(format_, data, url_column="url", **keys):
    return read(format_, data, url_column, **keys)[0]


def error(format_, data, url_column="url", **keys):
    with pytest.raises(SourceError) as caught:
        read(format_, data, url_column, **keys)[1].summary()
    return str(caught.value)


def parquet(columns, **keys):
    file = io.BytesIO()
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table, file, **keys)
    return file.getvalue()


# Tables of separated values


@pytest.mark.parametrize(
    "header", ["url,Title", "URL,Title", " Url , Title ", '"URL "," Title"', "uRL\t,Title"]
)
def test_the_url_column_may_be_in_another_case_and_among_blanks(header):
    assert links("csv", f"{header}\n{URL},x\n") == [(URL, {"Title": "x"})]


def test_a_url_column_with_dots_is_a_plain_column_of_a_table():
    assert links("csv", f"image.URL,t\n{URL},x\n", "image.url") == [(URL, {"t": "x"})]


def test_a_column_without_a_name_is_no_attribute():
    assert links("csv", f"url,, \n{URL},x,y\n") == [(URL, {})]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("url,cap,url", "columns 1 and 3 have the same name, 'url' and 'url'; rename one of them"),
        ("url,cap,URL", "columns 1 and 3 have the same name, 'url' and 'URL'; rename one of them"),
        ("cap, Cap ,url", "columns 1 and 2 have the same name, 'cap' and 'Cap'; rename one of them"),
        ("a,b,url,c,b", "columns 2 and 5 have the same name, 'b' and 'b'; rename one of them"),
    ],
)
def test_columns_of_the_same_name_are_an_error_that_names_both(header, words):
    assert error("csv", f"{header}\n{','.join('x' for _ in header.split(','))}\n") == f"l: {words}"


def test_a_missing_column_is_an_error_that_names_the_others():
    assert error("csv", "href,,t\nx,y,z\n") == (
        "l: there is no 'url', only 'href', 't'; name it in source.url_column"
    )


@pytest.mark.parametrize("columns", [MAX_COLUMNS, MAX_COLUMNS + 1])
def test_a_table_has_a_limited_number_of_columns(columns):
    text = ",".join(["url", *map(str, range(columns - 1))]) + f"\n{URL}" + "," * (columns - 1)
    if columns == MAX_COLUMNS:
        assert [url for url, _ in links("csv", text)] == [URL]
    else:
        assert error("csv", text) == f"l: there are more than {MAX_COLUMNS} columns (MAX_COLUMNS)"


@pytest.mark.parametrize("row", [2, 500, 999, 1_000, 1_001, 1_500, 2_000, 3_210])
@pytest.mark.parametrize(("cells", "count"), [("x", 1), ("x,y,z,", 4), ('x,"y, z",w', 3), ('"5" x,y,z', 3)])
def test_a_ragged_row_is_an_error_with_its_line(row, cells, count):
    lines = ["url,t"] + [f"https://h.org/{number},x" for number in range(4_000)]
    lines[0:2] = ["url,t", 'u,"two', 'lines"']
    lines[row + 3] = cells
    assert error("csv", "\n".join(lines)) == f"l:{row + 4}: {count} cells, and the header has 2"


def test_empty_cells_beyond_the_header_are_passed_over():
    assert links("csv", f"url,t\n{URL},x,, \n") == [(URL, {"t": "x"})]


def test_empty_rows_are_no_rows():
    found, counted = read("csv", f"\n\nurl,t\n\n,\n{URL},x\n , \n")
    assert found == [(URL, {"t": "x"})]
    assert (counted.read, counted.without_link) == (1, 0)


def test_a_line_that_is_too_long_is_an_error_in_every_format_of_lines(monkeypatch):
    monkeypatch.setattr(separated, "LONGEST_LINE", 100)
    for format_, header in {"csv": "url", "txt": "# links", "jsonl": '"x"'}.items():
        words = error(format_, f"{header}\n{URL}{'x' * 100}\n")
        assert words == "l:2: the line has 100 characters or more (LONGEST_LINE)"


# Text


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"n01440764_36 {URL}", (URL, {"id": "n01440764_36"})),
        (f"n01440764_36\t{URL}", (URL, {"id": "n01440764_36"})),
        (f"  7 \t  {URL}  ", (URL, {"id": "7"})),
        (f"猫 {URL}?q=a b", (f"{URL}?q=a b", {"id": "猫"})),
        ("7 HTTP://H.org/", ("HTTP://H.org/", {"id": "7"})),
        (f"{URL} {OTHER}", (f"{URL} {OTHER}", {})),
        (f"a b {URL}", (f"a b {URL}", {})),
        ("7 ftp://h.org/", ("7 ftp://h.org/", {})),
        ("7", ("7", {})),
        (f"{URL},x", (f"{URL},x", {})),
    ],
)
def test_a_line_of_text_is_a_link_or_an_id_and_a_link(line, expected):
    [(url, attributes)] = links("txt", f"\n# no link\n{line}\n", "image.url")
    assert (url.strip(), attributes) == expected


@pytest.mark.parametrize(
    "line", [" " * 200_000 + "x", "x" + " " * 200_000 + "y", "x " * 100_000, "x" * 200_000]
)
def test_a_line_of_many_odd_characters_is_a_link(line):
    [(url, attributes)] = links("txt", line)
    assert (url, attributes) == (line, {})


def test_a_row_knows_its_line():
    assert [row.place for row in rows("txt", "\n# a\nb\r\n\rc")] == ["l:3", "l:5"]
    assert [row.place for row in rows("jsonl", '\n"b"\n\n"c"')] == ["l:2", "l:4"]
    assert [row.place for row in rows("csv", 'url\n"b"\n\n"c"')] == ["l:2", "l:4"]
    assert [row.place for row in rows("json", '["b",\n"c"]')] == ["l: item 0", "l: item 1"]
    assert [row.place for row in rows("parquet", parquet({"url": ["b", "c"]}))] == ["l: row 1", "l: row 2"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("format_", ["txt", "csv", "tsv", "json", "jsonl"])
def test_every_text_may_be_in_any_common_encoding(format_, encoding):
    text = {
        "txt": "é https://h.org/a",
        "csv": "id,url\r\né,https://h.org/a\r\n",
        "tsv": "id\turl\r\né\thttps://h.org/a\r\n",
        "json": '[{"id": "é", "url": "https://h.org/a"}]',
        "jsonl": '{"id": "é", "url": "https://h.org/a"}\n',
    }[format_]
    for named in (None, encoding):
        assert links(format_, text.encode(encoding), encoding=named) == [("https://h.org/a", {"id": "é"})]


@pytest.mark.parametrize("format_", ["txt", "csv", "json", "jsonl"])
def test_a_byte_order_mark_is_passed_over_even_if_the_encoding_is_named(format_):
    text = {"txt": "# links\nu", "csv": "url\nu", "json": '["u"]', "jsonl": '"u"'}[format_]
    assert links(format_, f"\ufeff{text}", encoding="utf-8") == [("u", {})]


# JSON


@pytest.mark.parametrize("format_", ["json", "jsonl"])
@pytest.mark.parametrize(
    ("item", "url_column", "expected"),
    [
        ({"url": [URL, OTHER], "t": 1}, "url", [(URL, {"t": 1}), (OTHER, {"t": 1})]),
        ({"url": [[URL], [OTHER]]}, "url", [(URL, {}), (OTHER, {})]),
        ({"url": [URL, None, " "]}, "url", [(URL, {})]),
        ({"image": {"url": URL, "w": 1}, "t": 1}, "image.url", [(URL, {"image": {"w": 1}, "t": 1})]),
        ({"image": {"url": URL}, "t": 1}, "image.url", [(URL, {"t": 1})]),
        ({"a": {"b": {"c": URL}, "d": 1}}, "a.b.c", [(URL, {"a": {"d": 1}})]),
        (
            {"images": [{"url": URL}, {"url": OTHER}], "t": 1},
            "images.url",
            [(URL, {"t": 1}), (OTHER, {"t": 1})],
        ),
        ({"images": [{"url": URL}, {"w": 1}, "x", None]}, "images.url", [(URL, {})]),
        ({"images": [{"urls": [URL, OTHER]}]}, "images.urls", [(URL, {}), (OTHER, {})]),
        ({"image.url": URL, "image": {"url": OTHER}}, "image.url", [(URL, {"image": {"url": OTHER}})]),
        ({"image": {"a.b": URL}}, "image.a.b", [(URL, {})]),
        (URL, "image.url", [(URL, {})]),
    ],
)
def test_a_link_may_be_deep_in_an_item_and_in_lists(format_, item, url_column, expected):
    text = json.dumps(item)
    assert links(format_, text if format_ == "jsonl" else f"[{text}]", url_column) == expected


@pytest.mark.parametrize(
    ("item", "url_column", "words"),
    [
        ({"url": 5}, "url", "'url' is a number, not a link"),
        ({"url": [1.5]}, "url", "'url' is a number, not a link"),
        ({"url": True}, "url", "'url' is a truth value, not a link"),
        (
            {"url": {"a": URL, "b": 1}},
            "url",
            "'url' is an object; name the part that holds the link, one of 'url.a', 'url.b'",
        ),
        ({"url": {}}, "url", "'url' is an object; name the part that holds the link, one of none"),
        (
            {"url": [{"a": URL}]},
            "url",
            "'url' is an object; name the part that holds the link, one of 'url.a'",
        ),
        ({"a": {"b": False}}, "a.b", "'a.b' is a truth value, not a link"),
        (5, "url", "a link or an object is expected, not a number"),
        (None, "url", "a link or an object is expected, not null"),
        (True, "url", "a link or an object is expected, not a truth value"),
        ([URL], "url", "a link or an object is expected, not a list"),
    ],
)
def test_what_is_no_link_is_an_error_with_its_place(item, url_column, words):
    assert error("jsonl", f'"x"\n\n{json.dumps(item)}', url_column) == f"l:3: {words}"
    assert error("json", f'["x", {json.dumps(item)}]', url_column) == f"l: item 1: {words}"


def test_rows_without_the_key_are_passed_over_and_counted():
    found, counted = read(
        "jsonl", f'{{"url": null}}\n{{"cap": "x"}}\n\n{{"url": "{URL}"}}\n{{"url": []}}\n{{}}\n'
    )
    assert found == [(URL, {})]
    assert (counted.read, counted.without_link) == (5, 4)
    assert counted.summary() == "l: 4 of 5 rows have no url"


def test_a_key_that_no_row_has_is_an_error_that_names_the_others():
    text = '{"href": "x"}\n' * 100 + '{"t": 1}\n{"href": "y", "u": 1}'
    assert error("jsonl", text) == "l: there is no 'url', only 'href', 't', 'u'; name it in source.url_column"
    assert error("jsonl", text, "a.b") == (
        "l: there is no 'a.b', only 'href', 't', 'u'; name it in source.url_column"
    )


def test_a_key_that_is_always_null_is_there():
    assert read("jsonl", '{"url": null}\n' * 2)[1].summary() == "l: 2 of 2 rows have no url"
    assert read("jsonl", '{"a": {"c": 1}}\n' * 2, "a.b")[1].summary() == "l: 2 of 2 rows have no a.b"


def test_the_columns_that_an_error_names_are_few():
    row = json.dumps({str(number): 1 for number in range(40)})
    other = json.dumps({str(number): 1 for number in range(40, 3_000)})
    assert len(error("jsonl", f"{row}\n" + '{"x": 1}\n' * 1_000 + f"{other}\n")) <= 1_000


def test_the_list_of_links_may_be_in_an_object():
    wrapped = {"took": 3, "errors": [], "data": [{"url": URL}, OTHER], "next": None, "facets": {"a": [1]}}
    assert links("json", json.dumps(wrapped)) == [(URL, {}), (OTHER, {})]


def test_a_list_without_links_beside_the_links_is_passed_over():
    text = json.dumps({"users": [{"name": "a"}], "data": [{"url": URL}]})
    found, counted = read("json", text)
    assert found == [(URL, {})]
    assert (counted.read, counted.without_link) == (2, 1)


@pytest.mark.parametrize(
    ("wrapped", "url_column", "place"),
    [
        ({"a": [{"url": "x"}], "b": [{"url": "y"}]}, "url", 1),
        ({"b": ["http://x", "http://z"], "a": [{"url": "y"}]}, "url", 2),
        ({"a": [{"i": {"u": "x"}}], "b": [{"i": {"u": "y"}}]}, "i.u", 1),
        ({"a": [{"i": [{"u": "x"}]}], "b": [{"i": [{"u": "y"}]}]}, "i.u", 1),
    ],
)
def test_two_lists_with_links_are_an_error(wrapped, url_column, place):
    assert error("json", json.dumps(wrapped), url_column) == (
        f"l: item {place}: both 'a' and 'b' are lists with {url_column!r}"
    )


@pytest.mark.parametrize("depth", [400, 900, 980, 3_000, 5_000, 8_000, 9_990, 200_000])
def test_deep_nesting_is_attributes_or_an_error(depth):
    """How deep Python's own reader goes depends on its version."""
    item = f'{{"url": "{URL}", "deep": {"[" * depth}{"]" * depth}}}'
    for format_, text, words in (
        ("json", f"[{item}]", "l:1: nested too deeply"),
        ("jsonl", f"\n{item}", "l:2: not valid JSON"),
    ):
        try:
            [(_, attributes)] = links(format_, text)
        except SourceError as caught:
            assert depth > 500
            assert str(caught) == words
        else:
            assert depth < 200_000
            assert attributes_json(attributes).count("[") == depth


def test_a_number_of_very_many_digits_is_an_error_with_its_line():
    item = f'{{"url": "{URL}", "n": {"1" * 5_000}}}'
    assert error("jsonl", f"\n{item}").startswith("l:2: ")
    assert error("json", f"[\n{item}]").startswith("l:2: ")


def test_numbers_that_json_lacks_become_null():
    [(_, attributes)] = links("jsonl", f'{{"url": "{URL}", "a": NaN, "b": [Infinity], "c": 1e999}}')
    assert json.loads(attributes_json(attributes)) == {"a": None, "b": [None], "c": None}


# Parquet

TEXTS = [URL, OTHER]


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (pa.string(), URL),
        (pa.large_string(), URL),
        (pa.binary(), URL.encode()),
        (pa.large_binary(), URL.encode()),
        (pa.dictionary(pa.int8(), pa.string()), URL),
        (pa.list_(pa.string()), [URL]),
        (pa.large_list(pa.large_string()), [URL]),
        (pa.list_(pa.binary()), [URL.encode()]),
        (pa.list_(pa.list_(pa.string())), [[URL], [], None]),
        (pa.list_(pa.string()), [None, URL, " "]),
    ],
    ids=str,
)
def test_a_url_column_may_be_text_bytes_or_lists(type_, value):
    data = parquet({"t": ["x", "y"], "url": pa.array([value, None], type_)})
    found, counted = read("parquet", data)
    assert found == [(URL, {"t": "x"})]
    assert counted.summary() == "l: 1 of 2 rows have no url"


def test_every_element_of_a_list_is_a_link():
    data = parquet({"url": [[URL, OTHER], [], [OTHER]], "n": [1, 2, 3]})
    assert links("parquet", data) == [(URL, {"n": 1}), (OTHER, {"n": 1}), (OTHER, {"n": 3})]


IMAGE = pa.struct([("url", pa.string()), ("w", pa.int64())])


@pytest.mark.parametrize(
    ("type_", "value", "url_column", "expected"),
    [
        (IMAGE, {"url": URL, "w": 3}, "i.url", [(URL, {"i": {"w": 3}, "t": "x"})]),
        (IMAGE, {"url": None, "w": 3}, "i.url", []),
        (IMAGE, None, "i.url", []),
        (pa.struct([("url", pa.binary())]), {"url": URL.encode()}, "i.url", [(URL, {"t": "x"})]),
        (
            pa.struct([("a", IMAGE)]),
            {"a": {"url": URL, "w": 3}},
            "i.a.url",
            [(URL, {"i": {"a": {"w": 3}}, "t": "x"})],
        ),
        (
            pa.list_(IMAGE),
            [{"url": URL, "w": 3}, None, {"url": OTHER}],
            "i.url",
            [(URL, {"t": "x"}), (OTHER, {"t": "x"})],
        ),
        (pa.list_(pa.struct([("url", pa.binary())])), [{"url": URL.encode()}], "i.url", [(URL, {"t": "x"})]),
        (
            pa.struct([("urls", pa.list_(pa.string()))]),
            {"urls": TEXTS},
            "i.urls",
            [(URL, {"t": "x"}), (OTHER, {"t": "x"})],
        ),
    ],
    ids=str,
)
def test_a_link_may_be_deep_in_a_column(type_, value, url_column, expected):
    assert links("parquet", parquet({"i": pa.array([value], type_), "t": ["x"]}), url_column) == expected


def test_a_column_name_may_have_dots():
    data = parquet({"i.url": TEXTS, "i": pa.array([{"url": "x"}] * 2), "n": [1, 2]})
    assert links("parquet", data, "i.url") == [
        (URL, {"i": {"url": "x"}, "n": 1}),
        (OTHER, {"i": {"url": "x"}, "n": 2}),
    ]


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (pa.int64(), 5),
        (pa.bool_(), True),
        (pa.float64(), 1.5),
        (pa.timestamp("us"), datetime(2026, 1, 1)),
        (pa.list_(pa.int64()), [5]),
        (pa.decimal128(5, 2), Decimal("1.50")),
        (pa.struct([("a", pa.string())]), {"a": URL}),
    ],
    ids=str,
)
def test_a_column_that_holds_no_links_is_an_error_that_names_those_that_would_do(type_, value):
    columns = {"url": pa.array([value], type_), "n": [1], "t": ["x"], "b": [b"x"], "l": [["x"]]}
    shown = str(pq.read_schema(io.BytesIO(parquet(columns))).field("url").type)
    assert error("parquet", parquet(columns)) == (
        f"l: column 'url' is of type {shown}, which holds no links; these would do: 't', 'b', 'l'"
    )
    del columns["t"], columns["b"], columns["l"]
    assert error("parquet", parquet(columns)).endswith("these would do: none")


def test_a_list_of_structs_is_an_error_that_names_their_parts():
    assert error("parquet", parquet({"url": pa.array([[{"a": URL, "b": 1}]])})) == (
        "l: row 1: 'url' is an object; name the part that holds the link, one of 'url.a', 'url.b'"
    )


def test_a_column_that_is_not_there_is_an_error_that_names_the_others():
    words = "only 'href', 't'; name it in source.url_column"
    data = parquet({"href": [URL], "t": [1]})
    assert error("parquet", data) == f"l: there is no 'url', {words}"
    assert error("parquet", data, "image.url") == f"l: there is no 'image.url', {words}"


@pytest.mark.parametrize("names", [["url", "url"], ["url", "t", "t"]])
def test_parquet_columns_of_the_same_name_are_an_error(names):
    data = parquet(pa.table([pa.array([name + str(place)]) for place, name in enumerate(names)], names=names))
    assert "the same name" in error("parquet", data)


BINARY = {
    "bytes": pa.array([b"\xff\xd8", None]),
    "bytes of one length": pa.array([b"12", b"34"], pa.binary(2)),
    "large bytes": pa.array([b"\xff", b""], pa.large_binary()),
    "lists of bytes": pa.array([[b"\xff"], []]),
    "structs of bytes": pa.array([{"bytes": b"\xff"}] * 2),
    "lists of structs of bytes": pa.array([[{"bytes": b"\xff"}]] * 2),
}


@pytest.mark.parametrize("name", BINARY)
def test_binary_columns_are_no_attributes(name):
    data = parquet({"url": TEXTS, "image": BINARY[name], "n": [1, 2]})
    assert links("parquet", data) == [(URL, {"n": 1}), (OTHER, {"n": 2})]


def test_the_rest_of_a_struct_with_bytes_is_an_attribute():
    image = pa.array([{"bytes": b"\xff", "path": "a.jpg"}, None])
    data = parquet({"url": TEXTS, "image": image})
    assert links("parquet", data) == [(URL, {"image": {"path": "a.jpg"}}), (OTHER, {"image": None})]


def test_binary_columns_are_not_read():
    """Their pages are damaged, which nothing notices."""
    noise = b"\xaa\x55" * 5_000
    columns = {"url": [URL], "image": [noise]}
    data = parquet(columns, compression="none", use_dictionary=False, write_page_checksum=True)
    damaged = data.replace(noise, b"x" * len(noise), 1)
    assert damaged != data
    assert links("parquet", damaged) == [(URL, {})]


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        (pa.string(), "é", "é"),
        (pa.int64(), 2**62, 2**62),
        (pa.decimal128(10, 2), Decimal("1.50"), "1.50"),
        (pa.decimal256(60, 2), Decimal("1.50"), "1.50"),
        (pa.float64(), float("nan"), None),
        (pa.list_(pa.float64()), [float("inf"), 1.5], [None, 1.5]),
        (pa.date32(), date(2026, 1, 2), "2026-01-02"),
        (pa.time64("us"), time(1, 2, 3), "01:02:03"),
        (pa.timestamp("us"), datetime(2026, 1, 2), "2026-01-02 00:00:00"),
        (pa.timestamp("ns"), 1, "1970-01-01 00:00:00"),
        (pa.timestamp("ns"), 1_999, "1970-01-01 00:00:00.000001"),
        (pa.timestamp("us", "UTC"), 0, "1970-01-01 00:00:00+00:00"),
        (pa.duration("ms"), timedelta(hours=1), "1:00:00"),
        (pa.map_(pa.string(), pa.int64()), [("a", 1)], [["a", 1]]),
        (pa.list_(pa.string()), ["a", None], ["a", None]),
        (pa.struct([("a", pa.date32())]), {"a": date(2026, 1, 2)}, {"a": "2026-01-02"}),
        (pa.null(), None, None),
        (pa.bool_(), True, True),
        (pa.dictionary(pa.int8(), pa.string()), "x", "x"),
    ],
    ids=str,
)
def test_values_of_every_type_become_attributes(type_, value, expected):
    data = parquet({"url": TEXTS, "v": pa.array([value, None], type_)})
    assert [json.loads(attributes_json(attributes)) for _, attributes in links("parquet", data)] == [
        {"v": expected},
        {"v": None},
    ]


ODD = {
    "a year beyond 9999": pa.array([2**60, 0], pa.timestamp("us")),
    "a year beyond 9999 in seconds": pa.array([2**40, 0], pa.timestamp("s")),
    "a year before 1": pa.array([-(2**60), 0], pa.timestamp("us")),
    "a year beyond 9999 in some zone": pa.array([2**60, 0], pa.timestamp("us", "Europe/Berlin")),
    "a day beyond 9999": pa.array([2**31 - 1, 0], pa.date32()),
    "a very long time": pa.array([2**62, 0], pa.duration("s")),
    "nanoseconds": pa.array([1, 0], pa.time64("ns")),
    "nanoseconds between times": pa.array([1, 0], pa.duration("ns")),
    "a zone that is unknown": pa.array([0, 0], pa.timestamp("us", "Mars/Olympus")),
    "a list of years beyond 9999": pa.array([[2**60], [0]], pa.list_(pa.timestamp("us"))),
    "a struct of years beyond 9999": pa.array(
        [{"a": 2**60}, {"a": 0}], pa.struct([("a", pa.timestamp("us"))])
    ),
    "a map with bytes": pa.array([[("a", b"\xff")], []], pa.map_(pa.string(), pa.binary())),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_value_becomes_text_or_null_and_costs_nothing_else(name):
    data = parquet({"url": TEXTS, "v": ODD[name], "t": ["x", "y"]})
    found = [(url, json.loads(attributes_json(attributes))) for url, attributes in links("parquet", data)]
    assert [(url, attributes["t"]) for url, attributes in found] == [(URL, "x"), (OTHER, "y")]
    assert all(
        attributes["v"] is None or attributes["v"] or name == "a map with bytes" for _, attributes in found
    )


def invalid(type_):
    """Texts of which the first is not UTF-8."""
    bytes_ = pa.large_binary() if type_ == pa.large_string() else pa.binary()
    return pa.array([b"caf\xe9", b"y"], bytes_).view(type_)


INVALID = {
    "text": (invalid(pa.string()), "caf\ufffd", "y"),
    "large text": (invalid(pa.large_string()), "caf\ufffd", "y"),
    "lists": (pa.ListArray.from_arrays([0, 1, 2], invalid(pa.string())), ["caf\ufffd"], ["y"]),
    "structs": (pa.StructArray.from_arrays([invalid(pa.string())], ["a"]), {"a": "caf\ufffd"}, {"a": "y"}),
}


@pytest.mark.parametrize("use_dictionary", [True, False])
@pytest.mark.parametrize("name", INVALID)
def test_text_that_is_not_utf_8_costs_nothing_else(name, use_dictionary):
    column, replaced, fine = INVALID[name]
    found = links("parquet", parquet({"url": TEXTS, "t": column}, use_dictionary=use_dictionary))
    assert [url for url, _ in found] == TEXTS
    assert found[0][1]["t"] in (replaced, None)
    assert found[1][1]["t"] == fine


def test_a_link_that_is_not_utf_8_is_a_link_still():
    assert [url for url, _ in links("parquet", parquet({"url": invalid(pa.string())}))] == ["caf\ufffd", "y"]
    assert [url for url, _ in links("parquet", parquet({"url": [b"caf\xe9", b"y"]}))] == ["caf\ufffd", "y"]


@pytest.mark.parametrize("count", [0, 1, ROWS_AT_A_TIME, ROWS_AT_A_TIME + 1, BATCH_ROWS + ROWS_AT_A_TIME + 1])
def test_rows_are_numbered_across_batches_and_row_groups(count):
    numbers = pa.array(range(count), pa.int64())
    data = parquet({"url": numbers.cast(pa.string()), "n": numbers}, row_group_size=7_000)
    assert rows("parquet", data) == [
        ListRow({"url": str(number), "n": number}, f"l: row {number + 1}") for number in range(count)
    ]


def test_a_parquet_file_has_a_limited_number_of_columns(monkeypatch):
    monkeypatch.setattr(list_formats, "MAX_COLUMNS", 2)
    assert links("parquet", parquet({"url": [URL], "t": [1]})) == [(URL, {"t": 1})]
    assert error("parquet", parquet({"url": [URL], "t": [1], "u": [1]})) == (
        "l: there are more than 2 columns (MAX_COLUMNS)"
    )


def test_a_column_of_very_long_lists_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setattr(list_formats, "LONGEST_LISTS", 10)
    assert links("parquet", parquet({"url": [URL], "n": [[0] * 10]})) == [(URL, {"n": [0] * 10})]
    assert "column 'n.list.element' holds 100 values" in error(
        "parquet", parquet({"url": [URL], "n": [[0] * 100]})
    )


def test_a_column_of_very_long_values_is_an_error_that_names_it(monkeypatch):
    monkeypatch.setattr(list_formats, "LARGEST_VALUES", 10)
    monkeypatch.setattr(list_formats, "MOST_BYTES", 1_000)
    assert "column 't' holds 1 values of" in error("parquet", parquet({"url": [URL], "t": ["x" * 5_000]}))
    assert links("parquet", parquet({"url": [URL], "image": [b"x" * 5_000]})) == [(URL, {})]


def test_a_column_name_that_is_not_utf_8_costs_nothing_or_is_an_error():
    data = parquet({"url": [URL], "caption": ["x"]}, store_schema=False, compression="none")
    try:
        found = links("parquet", data.replace(b"caption", b"capti\xe9n"))
    except SourceError as caught:
        assert str(caught).startswith("l: ")
    else:
        assert [url for url, _ in found] == [URL]


@given(st.data())
def test_a_damaged_parquet_file_is_rows_or_an_error(data):
    whole = bytearray(parquet({"url": TEXTS, "n": [1, 2], "t": [["x"], None]}, compression="none"))
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        whole[place] = data.draw(st.integers(0, 255))
    try:
        links("parquet", bytes(whole))
    except SourceError as caught:
        assert str(caught).startswith("l: ")


REPEATS = 10_000
LONG = "x" * 20_000
MOST_MB = 60

pools: list[pa.MemoryPool] = []
"""Pools that measured; what was allocated from one must never outlive it."""


@contextmanager
def measured_pool():
    before = pa.default_memory_pool()
    pools.append(pa.proxy_memory_pool(before))
    pa.set_memory_pool(pools[-1])
    try:
        yield pools[-1]
    finally:
        pa.set_memory_pool(before)


def repeated(type_):
    texts = pa.array([LONG], pa.large_string() if "large" in str(type_) else pa.string())
    column = pa.DictionaryArray.from_arrays(pa.array([0] * REPEATS, pa.int32()), texts)
    if not pa.types.is_dictionary(type_):
        column = column.cast(texts.type)
    if pa.types.is_struct(type_):
        column = pa.StructArray.from_arrays([column], ["s"])
    elif pa.types.is_list(type_):
        column = pa.ListArray.from_arrays(pa.array(range(REPEATS + 1), pa.int32()), column)
    return parquet({"url": [f"https://h.org/{number}" for number in range(REPEATS)], "t": column})


@pytest.mark.parametrize(
    "type_",
    [
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int32(), pa.large_string()),
        pa.string(),
        pa.large_string(),
        pa.struct([("s", pa.string())]),
        pa.list_(pa.string()),
    ],
    ids=str,
)
def test_a_long_text_that_a_small_file_repeats_takes_little_memory(type_):
    data = repeated(type_)
    assert len(data) < 200_000
    with measured_pool() as pool:
        tracemalloc.start()
        try:
            count = sum(1 for _ in READERS["parquet"](ListFile(io.BytesIO(data), "l", "url")))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert count == REPEATS
    assert peak < MOST_MB * 1_000_000
    assert pool.max_memory() < MOST_MB * 1_000_000


def test_a_very_long_text_is_cut_where_attributes_end():
    data = parquet({"url": [URL], "t": ["é" * 100_000]})
    assert links("parquet", data) == [(URL, {"t": "é" * (ATTRIBUTES_CHARS + 1)})]
