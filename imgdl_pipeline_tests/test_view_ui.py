"""A gallery's page in a real browser, opened from its file: what is seen, clicked and typed.

Pictures of it lie in build/screenshots afterwards.
"""

import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from imgdl_pipeline.core.model.schemas import NEAR_DUPLICATES
from imgdl_pipeline.core.sources.demo import picture
from imgdl_pipeline.core.storage.layout import NEAR_DUPLICATES_PATH, catalog_path
from imgdl_pipeline.core.storage.store import Store
from imgdl_pipeline.core.view.page import block, page_around
from imgdl_pipeline.core.view.rows import index_of, shown_row
from imgdl_pipeline.core.view.write import BLOCK_ROWS, save_view, webp
from imgdl_pipeline_tests.support.pictures import photo
from imgdl_pipeline_tests.support.rows import catalog_of
from imgdl_pipeline_tests.support.view import HOSTILE

ROOT = Path(__file__).parent.parent
SCREENSHOTS = ROOT / "build" / "screenshots"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NOON = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)

pytestmark = [
    pytest.mark.long,
    pytest.mark.xdist_group("ui"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium"),
]

SECONDS = 15_000
"""Of patience, in the browser's milliseconds."""

MANY = 10_000
NODES = 500
"""The most elements in the document, however many rows a page has."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


class Heard:
    """What a page asked for, and what its console shows: it should be nothing."""

    def __init__(self, page: Page) -> None:
        self.requests: list[str] = []
        self.messages: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url[:100]))
        page.on("console", lambda message: self.messages.append(message.text))
        page.on("pageerror", lambda error: self.messages.append(str(error)))
        page.on("dialog", lambda dialog: self.messages.append(dialog.message))
        page.on("popup", lambda popup: self.messages.append(f"popup {popup.url}"))

    def nothing_but(self, file: Path) -> bool:
        asked = [url for url in self.requests if not url.startswith("data:image/webp;base64,")]
        return asked == [file.as_uri()] and not self.messages


@pytest.fixture
def opened(browser):
    """Opens pages from their files, and sees to it that none asks for anything or has an error."""
    known: list[tuple[BrowserContext, Path, Heard]] = []

    def opened_(file: Path, width: int = 1280, height: int = 860, scheme: str = "light") -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        known.append((context, file, heard := Heard(page)))
        page.goto(file.as_uri())
        assert heard.requests
        return page

    yield opened_
    for context, file, heard in known:
        assert heard.nothing_but(file), (heard.requests, heard.messages)
        context.close()


def image(number: int) -> dict[str, object]:
    return {
        "url": f"https://{'a' if number % 3 else 'b'}.example.org/hills-{number}.jpg",
        "path": f"images/hills/{number}.jpg",
        "bytes": 9_000 + number,
        "sha256": f"{number:064}",
        "width": 480,
        "height": 320 if number % 5 else 200,
        "license_id": "CC0-1.0" if number % 2 else None,
        "fetched_at": NOON + timedelta(minutes=number),
        "last_seen": NOON,
        "attributes": json.dumps(
            {"title": f"Hills, number {number}", "tags": ["hills", "sky"], "id": number}
        ),
        "exif": json.dumps({"Make": "Demo", "GPS": {"Altitude": 12}}),
        "embedded": "{}",
    }


FAILURES = [
    {"status": "failed", "reason": "http_404", "detail": "the host answered 404 Not Found"},
    {"status": "failed", "reason": "timeout", "detail": "no byte came for 30 s"},
    {"status": "invalid", "reason": "truncated", "detail": "the file ends inside its picture"},
    {"status": "refused", "reason": "robots", "detail": "robots.txt forbids it"},
]


@pytest.fixture(scope="module")
def hills(tmp_path_factory, jpegs) -> Path:
    """The page of 40 pictures of hills, three of which look alike, and of four links that failed."""
    folder = tmp_path_factory.mktemp("hills")
    store = Store(str(folder / "store"))
    rows = [image(number) for number in range(40)]
    for number in range(40):
        store.put(f"images/hills/{number}.jpg", picture(number))
    failed = [
        {"url": f"https://c.example.org/x-{place}.jpg", "first_seen": NOON + timedelta(minutes=36), **each}
        for place, each in enumerate(FAILURES)
    ]
    store.write_table(catalog_path("hills"), catalog_of(*rows, *failed))
    groups = [(36, 4, 0), (37, 4, 1), (38, 4, 2), (10, 9, 3)]  # the others of group 9 are in another gallery
    alike = [
        {"gallery": "hills", "url": rows[number]["url"], "sha256": rows[number]["sha256"]}
        | {"phash": "0" * 16, "group": group, "distance": distance, "representative": not distance}
        for number, group, distance in groups
    ]
    store.write_table(NEAR_DUPLICATES_PATH, pa.Table.from_pylist(alike, schema=NEAR_DUPLICATES))
    save_view(store, "hills", folder / "hills.html", jpegs=jpegs)
    return folder / "hills.html"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, jpegs) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    store = Store(str(folder / "store"))
    rows = [
        {"url": f"https://h.org/{place}?{text}", "status": "failed", "reason": text, "detail": text}
        | {
            "license_id": text,
            "attributes": json.dumps({"title": f"{text} \ud800", text: [text, {text: text}]}),
        }
        for place, text in enumerate(HOSTILE)
    ]
    rows += [
        {"url": url, "status": "refused", "reason": "scheme"}
        for url in (
            "javascript:alert(1)",
            "data:text/html,<script>alert(1)</script>",
            "http://[",
            " file:///etc",
        )
    ]
    store.write_table(catalog_path("g"), catalog_of(*rows))
    save_view(store, "g", folder / "g.html", jpegs=jpegs)
    return folder / "g.html"


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """The page of 10,000 rows, with 60 pictures over and over."""
    rows = catalog_of(*({**image(number), "url": f"https://h.org/{number}.jpg"} for number in range(MANY)))
    pictures = [webp(photo(seed, (160, 120)).effect_spread(3)) for seed in range(60)]
    before, after = page_around("many", index_of(rows, {}, links=MANY, block_rows=BLOCK_ROWS))
    file = tmp_path_factory.mktemp("many") / "many.html"
    with file.open("wb") as written:
        written.write(before)
        for start in range(0, MANY, BLOCK_ROWS):
            details = [shown_row(row, {}) for row in rows.slice(start, BLOCK_ROWS).to_pylist()]
            shown = [pictures[(start + place) % 60] for place in range(len(details))]
            written.write(block(start // BLOCK_ROWS, details, shown, {}))
        written.write(after)
    return file


def tiles(page: Page) -> Locator:
    return page.locator("#grid").get_by_role("option")


def names(page: Page) -> list[str]:
    return page.locator(".tile .name").all_inner_texts()


def test_a_page_shows_the_newest_pictures_and_the_links_that_failed(opened, hills):
    page = opened(hills)
    expect(page.locator("h1")).to_have_text("hills")
    expect(page.locator("#about")).to_have_text("44 links, last listed 2026-11-22")
    assert names(page)[:3] == ["Hills, number 39", "Hills, number 38", "Hills, number 37"]
    first = tiles(page).first.get_by_role("img", name="Hills, number 39")
    assert first.evaluate("image => image.decode().then(() => image.naturalWidth)") == 160
    expect(tiles(page).first).to_have_accessible_name("Hills, number 39, 480 × 320 · 9 kB")
    failed = page.get_by_role("option", name="x-0.jpg, failed, http_404, c.example.org")
    expect(failed).to_be_visible()
    expect(page.get_by_text("failed\nhttp_404")).to_be_visible()
    expect(page.get_by_text("refused\nrobots")).to_be_visible()
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.set_viewport_size({"width": 1280, "height": 700})
    page.screenshot(path=SCREENSHOTS / "view.png")


def test_rows_are_filtered_by_all_that_is_known_of_them(opened, hills):
    page = opened(hills)
    count = page.locator("#count")
    expect(count).to_have_text("44 rows")
    page.get_by_role("radio", name=re.compile("^failed")).check()
    expect(count).to_have_text("2 of 44 rows")
    expect(tiles(page)).to_have_count(2)
    page.get_by_label("Reason").select_option(label="timeout (1)")
    expect(count).to_have_text("1 of 44 rows")
    page.get_by_role("button", name="Show all").click()
    expect(count).to_have_text("44 rows")
    expect(page.get_by_role("button", name="Show all")).to_be_hidden()
    for label, option, rows in (
        ("Host", "b.example.org (14)", 14),
        ("Size", "under 256 px (8)", 8),
        ("Size", "unknown (4)", 4),
        ("Licence", "CC0-1.0 (20)", 20),
        ("Licence", "unknown (24)", 24),
        ("Near duplicates", "with near duplicates (4)", 4),
    ):
        page.get_by_label(label, exact=True).select_option(label=option)
        expect(count).to_have_text(f"{rows} of 44 rows")
        page.get_by_role("button", name="Show all").click()
    page.get_by_label("Search").fill("b.EXAMPLE hills-3")
    expect(count).to_have_text("5 of 44 rows")
    page.get_by_label("Search").fill("nowhere")
    expect(page.get_by_text("No row has all of this.")).to_be_visible()
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("Order").select_option("group")
    assert names(page)[:4] == [f"Hills, number {number}" for number in (38, 37, 36, 10)]
    assert page.locator("[data-alike='3']").count() == page.locator("[data-alike]").count() == 3
    page.get_by_label("Order").select_option("bytes")
    assert names(page)[0] == "Hills, number 39"
    page.get_by_label("Order").select_option("name")
    assert names(page)[:3] == ["Hills, number 0", "Hills, number 1", "Hills, number 2"]


def test_options_count_what_they_would_show_beside_the_other_filters(opened, hills):
    page = opened(hills)
    page.get_by_label("Host").select_option(label="b.example.org (14)")
    assert "CC0-1.0 (7)" in page.get_by_label("Licence").inner_text()
    assert "a.example.org (26)" in page.get_by_label("Host").inner_text()


def test_a_click_opens_the_catalog_row_with_its_link(opened, hills):
    page = opened(hills)
    tiles(page).nth(1).click()
    dialog = page.get_by_role("dialog", name="Hills, number 38")
    expect(dialog).to_be_visible()
    link = dialog.get_by_role("link")
    expect(link).to_have_attribute("href", "https://a.example.org/hills-38.jpg")
    expect(link).to_have_attribute("rel", "noreferrer noopener")
    expect(link).to_have_attribute("target", "_blank")
    shown = dialog.locator("#values").inner_text()
    for words in ("images/hills/38.jpg", "9,038", "hills, sky", "Altitude", "representative"):
        assert words in shown
    expect(dialog.get_by_text("images/hills/38.jpg")).to_be_visible()
    dialog.get_by_role("button", name="Show the 3 images that look alike").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#count")).to_have_text("3 of 44 rows")
    expect(page.get_by_label("Near duplicates", exact=True)).to_have_value("only")
    page.screenshot(path=SCREENSHOTS / "view_near_duplicates.png")


def test_everything_is_done_with_the_keyboard_alone(opened, hills):
    page = opened(hills, width=800, height=600)
    page.get_by_role("radio").first.focus()
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('role')") == "option":
            break
    focused = page.locator(":focus")
    expect(focused).to_have_attribute("aria-setsize", "44")
    page.keyboard.press("Home")
    expect(focused).to_have_attribute("aria-posinset", "1")
    page.keyboard.press("ArrowRight")
    expect(focused).to_have_attribute("aria-posinset", "2")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    columns = page.evaluate("Math.floor((document.getElementById('grid').clientWidth + 10) / 160)")
    expect(focused).to_have_attribute("aria-posinset", str(columns + 1))
    page.keyboard.press("End")
    expect(focused).to_have_attribute("aria-posinset", "44")
    assert focused.evaluate("each => each.getBoundingClientRect().bottom <= innerHeight")
    page.keyboard.press("Home")
    assert focused.evaluate("each => each.getBoundingClientRect().top >= 0")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("#place")).to_have_text("1 of 44")
    expect(dialog.get_by_role("button", name="Previous image")).to_be_disabled()
    page.keyboard.press("ArrowRight")
    expect(dialog.locator("#place")).to_have_text("2 of 44")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(focused).to_have_attribute("aria-posinset", "2")


def test_text_of_strangers_stays_text(opened, hostile):
    page = opened(hostile)
    expect(tiles(page)).to_have_count(len(HOSTILE) + 4)
    assert page.title() == "g"
    assert page.locator("#grid img, #grid svg, #grid b, #grid script").count() == 0
    tiles(page).first.click()
    for place, text in enumerate(HOSTILE):
        shown = re.sub(r"[\x00-\x1f\u2028\u2029\u202a-\u202e]", lambda found: f"\\u{ord(found[0]):04x}", text)
        expect(page.locator("#place")).to_have_text(f"{place + 1} of {len(HOSTILE) + 4}")
        assert page.locator("#detail-name").text_content() == f"{shown} \\ud800"
        assert shown in (page.locator("#verdict").text_content() or "")
        assert shown in (page.locator("#values").text_content() or "")
        assert page.locator("dialog").locator("img, svg, script, style, b, iframe").count() == 0
        page.keyboard.press("ArrowRight")
    for _ in range(4):
        assert page.locator("dialog a").count() == 0
        expect(page.locator("#verdict")).to_have_text("refused: scheme")
        page.keyboard.press("ArrowRight")


def test_a_script_that_got_into_the_page_would_not_run(opened, browser, hostile):
    """The policy holds where the page's own care would fail."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(hostile.as_uri())
    heard = Heard(page)
    blocked = page.evaluate(
        """async () => {
          const violations = [];
          const note = (event) => violations.push(event.effectiveDirective);
          document.addEventListener("securitypolicyviolation", note);
          const script = document.createElement("script");
          try { script.text = "document.title = 'owned'"; document.body.append(script); } catch {}
          const image = new Image();
          image.src = "http://127.0.0.1:1/x.jpg";
          const handler = document.createElement("p");
          try { handler.setAttribute("onclick", "document.title = 'owned'"); handler.click(); } catch {}
          await fetch("http://127.0.0.1:1/").catch(() => {});
          await new Promise((resolve) => setTimeout(resolve, 100));
          return violations;
        }"""
    )
    assert page.title() == "g"
    assert {"img-src", "connect-src"} <= set(blocked)
    assert not [message for message in heard.messages if "owned" in message and "ERR_" in message]
    context.close()


def test_ten_thousand_pictures_scroll_while_few_are_in_the_document(opened, many):
    started = time.monotonic()
    page = opened(many)
    expect(tiles(page).first.get_by_role("img")).to_be_visible()
    seconds = time.monotonic() - started
    figures = page.evaluate(
        """async () => {
          const frames = [];
          let nodes = 0;
          let last = performance.now();
          const height = document.body.scrollHeight - innerHeight;
          for (let step = 0; step <= 300; step++) {
            // half of the way in small steps, as a wheel does, then the whole page in large ones
            scrollTo(0, step < 150 ? step * 120 : (height * (step - 150)) / 150);
            await new Promise(requestAnimationFrame);
            frames.push(performance.now() - last);
            last = performance.now();
            nodes = Math.max(nodes, document.querySelectorAll("*").length);
          }
          frames.sort((one, two) => one - two);
          return { nodes, median: frames[150], p95: frames[285], longest: frames[300] };
        }"""
    )
    size = many.stat().st_size / 1e6
    sys.stdout.write(f"{MANY} rows, {size:.0f} MB: shown after {seconds:.2f} s; frames in ms: {figures}\n")
    assert figures["nodes"] < NODES
    assert seconds < 10
    assert figures["median"] < 100
    assert size < 60
    expect(tiles(page).last).to_have_attribute("aria-posinset", str(MANY))
    last = tiles(page).last.get_by_role("img")
    assert last.evaluate("image => image.decode().then(() => image.naturalWidth)") == 160


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(opened, hills, scheme):
    page = opened(hills, width=375, height=740, scheme=scheme)
    page.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    page.screenshot(path=SCREENSHOTS / f"view_phone_{scheme}.png")
    tiles(page).first.click()
    box = page.get_by_role("dialog").bounding_box()
    assert (box["x"], box["width"]) == (0, 375)
    page.screenshot(path=SCREENSHOTS / f"view_phone_detail_{scheme}.png")


def test_it_is_dark_where_the_system_is(opened, hills):
    brightness = {}
    for scheme in ("light", "dark"):
        page = opened(hills, scheme=scheme)
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        brightness[scheme] = sum(map(int, re.findall(r"\d+", colour)[:3]))
    assert brightness["dark"] < 150 < 600 < brightness["light"]
