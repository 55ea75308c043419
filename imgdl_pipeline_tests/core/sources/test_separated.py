import codecs
import csv
import io
from itertools import count

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from imgdl_pipeline.core.sources import separated
from imgdl_pipeline.core.sources.separated import (
    BATCH_LINES,
    DELIMITERS,
    NO_DELIMITER,
    SAMPLE_BYTES,
    LineError,
    delimiter_of,
    encoding_of,
    read_rows,
)

URL = "https://h.org/a.jpg"


def read(data, url_column="url", delimiter=None, encoding=None):
    data = data.encode() if isinstance(data, str) else data
    return list(read_rows(io.BytesIO(data), url_column, delimiter, encoding))


def cells(data, **keys):
    return [row.cells for row in read(data, **keys)]


def written(rows, **dialect):
    file = io.StringIO()
    csv.writer(file, **dialect).writerows(rows)
    return file.getvalue()


# Delimiters


@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_the_delimiter_that_sets_off_the_url_column_is_found(delimiter):
    text = f"t{delimiter}url\nx{delimiter}{URL}\n"
    assert cells(text) == [["t", "url"], ["x", URL]]


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("url;cap\nhttps://h.org/a.jpg;x\n", ";"),
        ("url;a, b, c\nhttps://h.org/1,2,3.jpg;x\n", ";"),
        ('"url"|"cap"\n"https://h.org/a.jpg"|"x, y; z"\n', "|"),
        (" URL ;cap\n", ";"),
        ("url\nhttps://h.org/1,2.jpg\nhttps://h.org/1,2.jpg\n", NO_DELIMITER),
        ("url", NO_DELIMITER),
        ("", NO_DELIMITER),
        ("\n\n \nurl;cap\n", ";"),
        ("link;cap\na,b;c\nd;e\n", ";"),
        ("link\ta,b\nc\td,e\nf\tg\n", "\t"),
        ("link\na b\n", NO_DELIMITER),
    ],
)
def test_a_delimiter_is_found_by_the_header_or_by_even_rows(text, delimiter):
    assert delimiter_of(text, "url") == delimiter


@pytest.mark.parametrize(
    "first_line",
    ["sep=;\n", "sep=;\r\n", "SEP=;\r", '"sep=;"\r\n', "sep=; \t\n"],
)
def test_a_line_that_names_the_delimiter_is_no_row(first_line):
    rows = read(f"{first_line}url;a,b\n{URL};x\n")
    assert rows == [(2, ["url", "a,b"]), (3, [URL, "x"])]


def test_a_line_that_names_an_unusual_delimiter_is_believed():
    assert cells(f"sep=^\nurl^t\n{URL}^x\n") == [["url", "t"], [URL, "x"]]


def test_a_setting_goes_before_the_line_that_names_a_delimiter():
    assert cells(f"sep=;\nurl^t;\n{URL}^x\n", delimiter="^") == [["url", "t;"], [URL, "x"]]


def test_a_setting_goes_before_what_the_header_shows():
    assert cells("url,a;b\nx,y;z\n", delimiter=";") == [["url,a", "b"], ["x,y", "z"]]


# Encodings


TEXT = f"url;t\r\n{URL};café € 1\r\n"

ENCODED = {
    "UTF-8": TEXT.encode(),
    "UTF-8 with a mark": codecs.BOM_UTF8 + TEXT.encode(),
    "UTF-16 with a mark, little-endian": codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
    "UTF-16 with a mark, big-endian": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    "UTF-16 without a mark, little-endian": TEXT.encode("utf-16-le"),
    "UTF-16 without a mark, big-endian": TEXT.encode("utf-16-be"),
    "cp1252": TEXT.encode("cp1252"),
}


@pytest.mark.parametrize("named", ["", "sep=;\r\n"])
@pytest.mark.parametrize("name", ENCODED)
def test_every_common_encoding_is_found(name, named):
    data = ENCODED[name]
    if named:
        mark = next(
            (each for each in (codecs.BOM_UTF8, b"\xff\xfe", b"\xfe\xff") if data.startswith(each)), b""
        )
        encoding = encoding_of(data, is_whole=True)
        plain = {"utf-8-sig": "utf-8", "utf-16": "utf-16-le" if mark == b"\xff\xfe" else "utf-16-be"}
        data = mark + named.encode(plain.get(encoding, encoding)) + data[len(mark) :]
    assert cells(data) == [["url", "t"], [URL, "café € 1"]]


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
)
def test_a_setting_names_the_encoding(encoding):
    assert cells(TEXT.encode(encoding), encoding=encoding) == [["url", "t"], [URL, "café € 1"]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_a_byte_order_mark_is_no_text_even_if_a_setting_names_the_encoding(encoding):
    data = ("\ufeff" + TEXT).encode(encoding)
    assert cells(data, encoding=encoding) == [["url", "t"], [URL, "café € 1"]]


def test_a_setting_decides_where_bytes_are_ambiguous():
    data = f"url,t\n{URL},猫\n".encode("shift_jis")
    assert cells(data, encoding="shift_jis") == [["url", "t"], [URL, "猫"]]


def test_bytes_that_an_encoding_lacks_are_replaced():
    assert cells(b"url,t\nx,caf\xc3\xa9\n", encoding="ascii") == [["url", "t"], ["x", "caf\ufffd\ufffd"]]


def test_a_single_nul_does_not_make_a_text_utf_16():
    assert encoding_of(f"url,t\n{URL},a\0b\n".encode(), is_whole=True) == "utf-8"


def test_a_sample_that_ends_inside_a_character_is_utf_8():
    sample = "aé".encode()[:-1]
    assert encoding_of(sample, is_whole=False) == "utf-8"
    assert encoding_of(sample, is_whole=True) == "cp1252"


def test_an_accent_of_windows_beyond_the_sample_is_read():
    lines = (
        b"url,t\n" + f"{URL},plain\n".encode() * (SAMPLE_BYTES // 20) + b"https://h.org/b.jpg,caf\xe9 \x80\n"
    )
    assert lines.index(b"\xe9") > SAMPLE_BYTES
    assert cells(lines)[-1] == ["https://h.org/b.jpg", "café €"]


def test_bytes_that_windows_lacks_are_replaced():
    lines = b"url,t\n" + f"{URL},plain\n".encode() * (SAMPLE_BYTES // 20) + b"x,\x81\n"
    assert cells(lines)[-1] == ["x", "\ufffd"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("rows", [2, 20_000])
def test_every_end_of_line_is_one(end, rows):
    text = f"url,t{end}" + f"{URL},x{end}" * rows
    read_ = read(text)
    assert len(read_) == rows + 1
    assert read_[0] == (1, ["url", "t"])
    assert read_[-1] == (rows + 1, [URL, "x"])


def test_a_last_line_needs_no_end():
    assert cells(f"url,t\n{URL},x") == [["url", "t"], [URL, "x"]]


# Quotes

QUOTES = {
    "an inch sign inside": ('a 12" mat', 'a 12" mat'),
    "an inch sign at the end": ('12"', '12"'),
    "a quote at the start that closes early": ('"5" nail', '"5" nail'),
    "quotes around one word": ('a "big" cat', 'a "big" cat'),
    "doubled quotes in a cell without quotes": ('say ""hi""', 'say ""hi""'),
    "a well-quoted cell": ('"a big cat"', "a big cat"),
    "doubled quotes in a well-quoted cell": ('"say ""hi"""', 'say "hi"'),
    "a quoted cell with a delimiter": ('"a{d} b"', "a{d} b"),
    "an empty quoted cell": ('""', ""),
    "an unclosed quote": ('"open', '"open'),
    "a lone quote": ('"', '"'),
    "three quotes": ('"""', '"""'),
    "text after the closing quote": ('"a" b', '"a" b'),
    "a blank before the quote": (' "a"', ' "a"'),
}


@pytest.mark.parametrize("delimiter", DELIMITERS)
@pytest.mark.parametrize("name", QUOTES)
def test_a_cell_is_unquoted_only_if_it_is_well_quoted(name, delimiter):
    """The row before spans two lines, so that the file as a whole counts as a quoted one."""
    cell, expected = (each.replace("{d}", delimiter) for each in QUOTES[name])
    lines = ["t{d}url", '"two\nlines"{d}u0', cell + "{d}u1", "plain{d}u2", '"last"{d}u3']
    text = "\n".join(lines).replace("{d}", delimiter)
    assert cells(text) == [
        ["t", "url"],
        ["two\nlines", "u0"],
        [expected, "u1"],
        ["plain", "u2"],
        ["last", "u3"],
    ]


def test_a_stray_quote_does_not_hide_a_delimiter():
    text = f'url,t\n{URL},"5" nail, long\nu,"two\nlines"\n'
    assert cells(text) == [["url", "t"], [URL, '"5" nail', " long"], ["u", "two\nlines"]]


@pytest.mark.parametrize("row", [50, BATCH_LINES - 2, BATCH_LINES - 1, BATCH_LINES, 1_500])
@pytest.mark.parametrize("cell", ['"open', '"5" nail', '12" mat', '"'])
def test_a_stray_quote_costs_no_other_row(cell, row):
    lines = ["url,t"] + [f"u{number},x" for number in range(2_500)]
    lines[row] = f"stray,{cell}"
    assert read("\n".join(lines)) == [(number, line.split(",")) for number, line in enumerate(lines, start=1)]


def test_quotes_in_tabs_are_as_written_if_the_lines_are_even_without_quoting():
    text = f'caption\turl\n"a" cat on a 12" mat\t{URL}\n"open\t{URL}\nplain\t{URL}\n'
    assert cells(text) == [
        ["caption", "url"],
        ['"a" cat on a 12" mat', URL],
        ['"open', URL],
        ["plain", URL],
    ]


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_quotes_of_a_well_quoted_file_are_no_part_of_its_cells(delimiter):
    rows = [["url", "t"], [URL, f'a{delimiter} "b"'], ["u", ""], ["v", "c\n\nd"]]
    assert cells(written(rows, delimiter=delimiter, quoting=csv.QUOTE_ALL)) == rows


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_well_quoted_file_is_read_as_such_though_its_lines_happen_to_be_even(delimiter):
    rows = [["url", "t"], [URL, f"a cat\nasleep{delimiter} curled up"]]
    assert cells(written(rows, delimiter=delimiter)) == rows


def test_a_record_may_have_as_many_lines_as_a_batch():
    rows = [["url", "t"], ["u", "\n" * (BATCH_LINES - 1)], ["v", "x"]]
    assert cells(written(rows, lineterminator="\n")) == rows


def test_a_cell_may_be_longer_than_pythons_limit():
    assert cells(f"url,t\n{URL},{'x' * 1_000_000}\n")[1] == [URL, "x" * 1_000_000]


@pytest.mark.parametrize("first_line", ["", "sep=,\n"])
@pytest.mark.parametrize("row", ["u,{x}", 'u,"{x}"', 'u,12" {x}', "{x}"])
def test_a_line_that_is_too_long_is_an_error_with_its_number(monkeypatch, row, first_line):
    monkeypatch.setattr(separated, "LONGEST_LINE", 1_000)
    assert cells(f"url,t\nu,{'x' * 990}\n") == [["url", "t"], ["u", "x" * 990]]
    text = f'{first_line}url,t\nu,"a, b"\n{row.format(x="x" * 1_000)}\nv,\n'
    with pytest.raises(LineError) as caught:
        cells(text)
    number = 4 if first_line else 3
    assert str(caught.value) == f"{number}: the line has 1000 characters or more (LONGEST_LINE)"


def test_a_line_of_too_many_cells_is_an_error_with_its_number(monkeypatch):
    monkeypatch.setattr(separated, "MOST_CELLS", 10)
    assert len(cells("url" + "," * 10)[0]) == 11
    with pytest.raises(LineError, match=r"^2: the line has more than 10 cells \(MOST_CELLS\)$"):
        cells("url,t\nu" + "," * 11)


@pytest.mark.parametrize("lines", [BATCH_LINES + 1, 5 * BATCH_LINES])
def test_a_quote_that_is_never_closed_costs_no_row_however_many_follow(lines):
    text = 'url,t\nu,"two\nlines"\nv,"open\n' + f"{URL},x\n" * lines
    assert cells(text) == [["url", "t"], ["u", "two\nlines"], ["v", '"open'], *[[URL, "x"]] * lines]


def test_batches_are_small_if_lines_are_long(monkeypatch):
    monkeypatch.setattr(separated, "BATCH_CHARS", 50)
    rows = [["url", "t"], *([f"u{number}", "x\ny" * (number % 30)] for number in range(100))]
    assert cells(written(rows, lineterminator="\n")) == rows


# Rows and their lines


@pytest.mark.parametrize("blank", ["", " ", ",", " , ", '"",""', "\t"])
def test_rows_without_any_text_are_passed_over(blank):
    assert read(f"{blank}\nurl,t\n{blank}\n{blank}\n{URL},x\n{blank}") == [(2, ["url", "t"]), (5, [URL, "x"])]


def test_an_empty_file_has_no_rows():
    assert read(b"") == read(b"\n\n") == read(codecs.BOM_UTF8) == []


@pytest.mark.parametrize("first_line", ["", "sep=,\n"])
def test_every_row_knows_the_line_at_which_it_ends(first_line):
    """Quoted cells of several lines and stray quotes, around the ends of many batches."""
    kinds = ["{},x\n", '{},"a\nb"\n', '{},12" mat\n', '{},"c, d"\n', '{},"5" nail\n', "\n", '{},"\n\n\n"\n']
    text, line = first_line + "url,t\n", 2 if first_line else 1
    expected = [line]
    for number in range(4 * BATCH_LINES):
        row = kinds[(number * number + number // 7) % len(kinds)].format(number)
        text += row
        line += row.count("\n")
        if row.strip():
            expected.append(line)
    rows = read(text)
    assert [row.line for row in rows] == expected
    assert all(len(row.cells) == 2 for row in rows)


def test_lines_are_counted_if_quotes_are_plain_text():
    rows = read(f'sep=;\nurl;t\n\n{URL};12" mat\n{URL};"5" nail\n')
    assert [row.line for row in rows] == [2, 4, 5]


# What was written is read

PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), max_size=12)
AWKWARD = st.text(st.sampled_from("a\"' ,;\t|\\#é"), max_size=8)
ANY_LINES = st.text(st.sampled_from("ab\"' ,;\t|\r\n"), max_size=8)


def table(cell):
    return st.lists(st.tuples(cell, cell), max_size=10).map(
        lambda rows: [["t", "url", "u"], *([t, f"{URL}?{n}", u] for n, (t, u) in zip(count(), rows))]
    )


@given(
    table(PLAIN | AWKWARD),
    st.sampled_from(DELIMITERS),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["\r\n", "\n", "\r"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_what_a_csv_writer_wrote_is_read(rows, delimiter, quoting, lineterminator, encoding):
    text = written(rows, delimiter=delimiter, quoting=quoting, lineterminator=lineterminator)
    assert cells(text.encode(encoding)) == rows


@given(table(ANY_LINES), st.sampled_from(DELIMITERS), st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_cells_of_several_lines_are_read_in_batches_of_any_size(rows, delimiter, quoting):
    """The first row's lines are uneven without quoting, so that the file counts as a quoted one."""
    rows = [rows[0], ["uneven\n", URL, "\n"], *rows[1:]]
    text = written(rows, delimiter=delimiter, quoting=quoting, lineterminator="\r\n")
    expected = [(len(text_to.splitlines()), row) for text_to, row in _with_text(rows, delimiter, quoting)]
    for batch_lines in (20, 33, BATCH_LINES):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(separated, "BATCH_LINES", batch_lines)
            assert read(text) == expected


def _with_text(rows, delimiter, quoting):
    for number, row in enumerate(rows, start=1):
        dialect = {"delimiter": delimiter, "quoting": quoting, "lineterminator": "\r\n"}
        yield written(rows[:number], **dialect), row


@given(table(ANY_LINES), st.sampled_from(DELIMITERS))
@example([["t", "url", "u"], ["a,b,c\nd", URL, "u"]], ",")
def test_cells_of_several_lines_are_read_whatever_is_in_them(rows, delimiter):
    assert cells(written(rows, delimiter=delimiter, lineterminator="\r\n")) == rows


@given(st.binary(max_size=200) | st.text(st.sampled_from('a",;\t|\r\n'), max_size=60).map(str.encode))
def test_any_bytes_are_rows_in_the_order_of_their_lines(data):
    lines = [row.line for row in read(data)]
    assert lines == sorted(set(lines))
