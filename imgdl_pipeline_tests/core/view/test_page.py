import base64
import hashlib
import json
import re

import pytest

from imgdl_pipeline.core.view.page import BEGINNING, block, page_around
from imgdl_pipeline_tests.support.view import HOSTILE, Page


@pytest.fixture
def page():
    before, after = page_around("g", {"name": HOSTILE})
    return Page(
        before + block(0, [{"url": text} for text in HOSTILE], [None, b"RIFF"], {1: HOSTILE[0]}) + after
    )


def test_a_page_begins_with_what_is_looked_for_before_it_is_replaced():
    assert page_around("g", {})[0].startswith(BEGINNING)


def test_only_the_pages_own_style_and_script_apply(page):
    for tag in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.texts[tag].encode()).digest()).decode()
        assert f"; {tag}-src 'sha256-{digest}';" in page.policy
    assert page.policy.startswith("default-src 'none'; ")
    assert "unsafe" not in page.policy
    assert "http" not in page.policy


def test_the_policy_comes_before_all_that_it_is_for(page):
    tags = [tag for tag, _ in page.tags]
    first = next(place for place, (_, known) in enumerate(page.tags) if known.get("http-equiv"))
    assert tags[:first] == ["html", "head", "meta"]


def test_a_page_loads_nothing_and_has_no_handlers_and_no_style_of_an_element(page):
    for tag, known in page.tags:
        assert not {"src", "style", "srcset", "action"} & set(known), tag
        assert not [name for name in known if name.startswith("on")], tag
        assert known.get("href", "data:,") == "data:,"
    script, style = page.texts["script"], page.texts["style"]
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|fetch\(|import\(", script
    )
    assert not re.search(r"url\(|@import", style)


def test_text_of_strangers_stays_text(page):
    assert page.index["name"] == HOSTILE
    assert [row["url"] for row in page.blocks[0]["rows"]] == HOSTILE
    assert page.blocks[0]["missing"] == {"1": HOSTILE[0]}
    assert {tag for tag, _ in page.tags if tag in ("img", "svg", "b")} == set()
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 3


@pytest.mark.parametrize("text", ["\ud800", "\udfff tail", *HOSTILE])
def test_data_is_ascii_without_what_html_or_a_script_reads(text):
    data = block(0, [{"text": text}], [None], {})
    inner = data.removeprefix(b'<script type="application/json" id="block-0">').removesuffix(b"</script>\n")
    assert inner.isascii()
    assert not set(b"<>&\n\x00") & set(inner)
    assert json.loads(inner)["rows"] == [{"text": text}]


def test_a_picture_is_in_base64(page):
    assert page.blocks[0]["pictures"] == [None, base64.b64encode(b"RIFF").decode()]


def test_a_gallerys_name_is_text_too():
    before, after = page_around("a<b>&$style", {})
    page = Page(before + after)
    assert page.texts["title"] == "a<b>&$style"
