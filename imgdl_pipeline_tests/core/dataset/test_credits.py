import csv
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from imgdl_pipeline.core.dataset.credits import COLUMNS, escaped, write_attribution, write_credits
from imgdl_pipeline.core.dataset.rows import key_of
from imgdl_pipeline_tests.support.datasets import rows_in
from imgdl_pipeline_tests.support.rows import catalog_of

URL = "https://example.org/1.jpg"

WHOLE = {
    "title": "Sea",
    "author": "Ann",
    "author_url": "https://ann.example/",
    "credit": "Ann for X",
    "license": "CC BY 4.0",
    "license_url": "https://creativecommons.org/licenses/by/4.0/",
    "page": "https://example.org/page",
}


def rows_of(*attributes, url=URL, license_id="CC-BY-4.0", embedded=None):
    said = {"embedded": json.dumps(embedded or {}), "license_id": license_id, "url": url}
    return catalog_of(*({"attributes": json.dumps(each), **said} for each in attributes))


def table_of(rows):
    file = io.BytesIO()
    write_credits(file, rows_in(rows))
    return list(csv.DictReader(io.StringIO(file.getvalue().decode(), newline="")))


def page_of(rows, gallery="g"):
    file = io.BytesIO()
    write_attribution(file, rows_in(rows), gallery)
    return file.getvalue().decode()


def tokens_of(page):
    """What a browser is given: the page's blocks, and what is inside them."""
    blocks = MarkdownIt("commonmark").parse(page)
    return [*blocks, *(inner for block in blocks for inner in block.children or ())]


def text_of(page):
    """What a person reads, without the markup."""
    return "".join(each.content for each in tokens_of(page) if each.type in ("text", "code_inline"))


def links_of(page):
    return [str(each.attrs["href"]) for each in tokens_of(page) if each.type == "link_open"]


def test_the_table_has_a_line_for_each_image():
    [line] = table_of(rows_of(WHOLE))
    assert list(line) == list(COLUMNS)
    assert line == {**WHOLE, "key": key_of(URL), "license_id": "CC-BY-4.0", "url": URL}


def test_what_the_file_says_counts_where_the_source_says_nothing():
    embedded = {"author": "Bob", "title": "Land", "credit": ["X", "Y"]}
    [line] = table_of(rows_of({"title": "Sea", "author": ""}, embedded=embedded))
    assert (line["title"], line["author"], line["credit"]) == ("Sea", "Bob", "X, Y")


def test_nothing_known_is_an_empty_cell():
    [line] = table_of(catalog_of({"url": URL, "attributes": "{}"}))
    assert line == {**dict.fromkeys(COLUMNS, ""), "key": key_of(URL), "url": URL}


@pytest.mark.parametrize(
    "text",
    [
        "=HYPERLINK(1)",
        "+1",
        "-1+1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "  =1",
        "\0=1",
        "=cmd|'/c calc'!A0",
    ],
)
def test_no_cell_is_a_formula(text):
    [line] = table_of(rows_of(dict.fromkeys(WHOLE, text)))
    for name in WHOLE:
        assert not line[name].startswith(("=", "+", "-", "@", "\t", "\r", "\n", " "))
        assert line[name].strip("'") in text.replace("\0", " ").strip()


@given(st.text(max_size=80))
def test_every_text_is_one_cell_of_one_line(text):
    rows = rows_of({"title": text, "author": [text, text]}, {"title": "next"})
    lines = table_of(rows)
    assert [len(line) for line in lines] == [len(COLUMNS)] * 2
    assert all("\n" not in value and "\0" not in value for line in lines for value in line.values())
    assert lines[1]["title"] == "next"


def test_long_texts_are_cut():
    [line] = table_of(rows_of({"title": "x" * 100_000}))
    assert len(line["title"]) == 500


def test_a_lone_surrogate_does_no_harm():
    rows = catalog_of({"url": URL, "attributes": '{"title": "a\\ud800b", "author": "\\udfff"}'})
    assert table_of(rows)[0]["title"] == "a b"
    assert "a b" in page_of(rows)


def test_the_page_lists_images_by_licence():
    rows = catalog_of(
        *(
            {
                "url": f"https://e/{place}",
                "license_id": each,
                "attributes": json.dumps({"title": f"T{place}"}),
            }
            for place, each in enumerate(["CC0-1.0", None, "CC-BY-4.0", None, "CC0-1.0"])
        )
    )
    page = page_of(rows)
    assert page.startswith("# Who made the images of g\n")
    assert re.findall("^## .*$", page, re.MULTILINE) == [
        "## CC-BY-4.0: 1",
        "## CC0-1.0: 2",
        "## no known licence: 2",
    ]
    assert re.findall(r"T\d", page) == ["T2", "T0", "T4", "T1", "T3"]


def test_many_licences_have_a_section_each():
    names = [f"LicenseRef-{number:03}" for number in range(300)]
    rows = catalog_of(*({"url": f"https://e/{n}", "license_id": n, "attributes": "{}"} for n in names))
    assert re.findall("^## (.*): 1$", page_of(rows), re.MULTILINE) == names


def test_a_credit_names_title_author_licence_and_page():
    page = page_of(rows_of(WHOLE))
    assert text_of(page).endswith("Sea, by Ann, Ann for X, CC BY 4.0, source")
    assert links_of(page) == [WHOLE["author_url"], WHOLE["license_url"], WHOLE["page"]]


def test_an_image_of_which_nothing_is_known_has_its_key_and_its_link():
    page = page_of(catalog_of({"url": URL, "attributes": "{}"}))
    assert page.endswith(f"\n- `{key_of(URL)}`, [source](<{URL}>)\n")


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "JAVASCRIPT:alert(1)",
        " javascript:alert(1)",
        "java\nscript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "file:///etc/passwd",
        "//evil.example",
        "https://x/> [y](javascript:alert(1))",
        "https://x/\n\n# heading",
        "https://[",
        "http",
        "",
    ],
)
def test_a_link_leads_to_the_web_or_nowhere(url):
    named = {**WHOLE, "author_url": url, "license_url": url, "page": url}
    page = page_of(rows_of(named))
    assert all(each.startswith(("http://", "https://")) for each in links_of(page))
    assert not any("evil" in each or "javascript" in each for each in links_of(page))
    assert sum(each.type == "heading_open" for each in tokens_of(page)) == 2
    assert page.count("\n- ") == 1


HOSTILE = [
    "# heading",
    "**bold** _it_ ~~gone~~",
    "[x](javascript:alert(1))",
    "![x](https://evil.example/pixel.gif)",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<https://evil.example>",
    "`code`",
    "a\n\n# heading\n",
    "&lt;b&gt; &amp; &#35;",
    "\\[x](y)",
    "[x]: https://evil.example",
    "| a | b |",
    "> quoted",
    "a\r\n---\r\nb",
    "\u2028# heading",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_strangers_text_is_shown_as_it_is(text):
    page = page_of(rows_of({"title": text, "author": text, "credit": text, "license": text}))
    kinds = {each.type for each in tokens_of(page)}
    assert kinds <= {
        *("heading_open", "heading_close", "inline", "text", "bullet_list_open", "bullet_list_close"),
        *("list_item_open", "list_item_close", "paragraph_open", "paragraph_close"),
        *("link_open", "link_close"),
    }
    shown = "".join(each if each.isprintable() else " " for each in text).strip()
    assert text_of(page).endswith(f"{shown}, by {shown}, {shown}, {shown}, source")
    assert links_of(page) == [URL]


@given(st.text(alphabet="*_`[]()<>!#|~&\\ ab:/.", min_size=1, max_size=30))
def test_escaped_text_is_only_text(text):
    tokens = tokens_of(f"x{escaped(text)}x")
    assert {each.type for each in tokens} <= {"paragraph_open", "paragraph_close", "inline", "text"}
    assert "".join(each.content for each in tokens if each.type == "text") == f"x{text}x"


@pytest.mark.parametrize("text", ["- x", "+ x", "1. x", "2) x", "- - -"])
def test_a_title_that_looks_like_a_list_is_shown_as_it_is(text):
    """Once: the title begins its line's text, and a list marker there begins a list in the list."""
    page = page_of(rows_of({"title": text}))
    kinds = [each.type for each in tokens_of(page)]
    assert (kinds.count("bullet_list_open"), kinds.count("ordered_list_open")) == (1, 0)
    assert text_of(page).endswith(f"{text}, CC-BY-4.0, source")
