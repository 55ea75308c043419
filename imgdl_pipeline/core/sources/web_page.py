"""List the pictures of one HTML page.

Specification of srcset: https://html.spec.whatwg.org/multipage/images.html#parsing-a-srcset-attribute.
"""

import re
from collections.abc import Iterator
from typing import Literal

from lxml import etree
from pydantic import Field

from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.settings import HttpUrl, MaxImages, SourceSettings
from imgdl_pipeline.core.model.shown import hide_secrets
from imgdl_pipeline.core.sources.attributes import (
    distinct,
    drop_empty,
    joined,
    may_be_jpeg,
    names_a_jpeg,
    number,
    parsed_html,
)
from imgdl_pipeline.core.sources.client import SourceClient
from imgdl_pipeline.core.sources.xml import decoded

PAGE_BYTES = 10_000_000
"""The longest page, decompressed."""

_OTHER_PATH = re.compile(r"\.(png|gif|svg|webp|avif|ico|bmp)$", re.IGNORECASE)
_BETWEEN, _TO_BLANK, _TO_COMMA = re.compile(r"[\s,]*"), re.compile(r"\S*"), re.compile(r"[^,]*")
_DESCRIPTOR = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?|\.\d{1,9})([wx])(?:\s+\d{1,9}h)?\s*")

_LAZY = ("data-src", "data-original", "data-lazy-src")
"""Attributes in which pages keep a picture's URL until it is scrolled to."""


class WebPageSource(SourceSettings):
    """The pictures of one HTML page."""

    type: Literal["web_page"]
    url: HttpUrl = Field(description="URL of the page")
    max_images: MaxImages = None


def list_links(source: WebPageSource, client: SourceClient) -> Iterator[Link]:
    """Yield the page's pictures: og:image, img elements (the largest of a srcset), and links to JPEG files.

    Raises:
        SourceError: The page could not be fetched, is not HTML, or robots.txt disallows it.
    """
    return distinct(_of_page(source, client), source.max_images, client)


def _of_page(source: WebPageSource, client: SourceClient) -> Iterator[Link]:
    with client.document(source.url, limit=PAGE_BYTES, heeds_robots=True) as document:
        data = document.read()
        html = decoded(data, document.charset, _meta_charset(data))
        root = parsed_html(html, PAGE_BYTES) if _HTML_TAG.search(html[:HEAD_CHARS]) else None
        if root is None:
            raise document.error("this is no HTML page")
    base = joined(
        document.url, next((each.get("href") for each in root.iter("base") if each.get("href")), "")
    )
    page = {"page": hide_secrets(document.url), "album": " ".join((root.findtext(".//title") or "").split())}
    found = [*_meta_images(root), *_img_elements(root), *_links_to_files(root)]
    client.entries += max(len(found), sum(1 for _ in root.iter("img")))
    for url, described in found:
        if _may_be_wanted(url):
            yield Link.from_text(joined(base, url), drop_empty({**page, **described}))


HEAD_CHARS = 100_000
_HTML_TAG = re.compile(
    r"<(!doctype\s+html|html|head|body|title|meta|img|div|p|a|picture|h1)[\s>]", re.IGNORECASE
)


def _meta_charset(data: bytes) -> str | None:
    """Return the charset that a page states in its first 1024 bytes, as HTML has it."""
    start = data[:1024].decode("latin-1")
    found = re.search(r"<meta[^>]{0,500}charset\s*=\s*[\"']?([\w.:-]{1,40})", start, re.IGNORECASE)
    return found[1] if found else None


def _may_be_wanted(url: str) -> bool:
    """Return whether a URL may be of a JPEG: it is no data, and ends like no other kind of picture."""
    return bool(url) and not url.startswith("data:") and not _OTHER_PATH.search(url.partition("?")[0])


def _meta_images(root: etree._Element) -> Iterator[tuple[str, dict[str, object]]]:
    for meta in root.iter("meta"):
        if meta.get("property", meta.get("name", "")).lower() in ("og:image", "og:image:url"):
            yield (meta.get("content") or "").strip(), {}


def _img_elements(root: etree._Element) -> Iterator[tuple[str, dict[str, object]]]:
    for img in root.iter("img"):
        described: dict[str, object] = {
            "title": " ".join((img.get("alt") or img.get("title") or "").split()),
            "width": number(img.get("width")),
            "height": number(img.get("height")),
        }
        sources = [each for each in _siblings(img) if may_be_jpeg(each.get("type"))]
        srcsets = [each.get(name) or "" for each in (img, *sources) for name in ("srcset", "data-srcset")]
        others = (img.get(name) or "" for name in (*_LAZY, "src"))
        urls = [largest(" , ".join(filter(None, srcsets))) or "", *others]
        url = next((each.strip() for each in urls if _may_be_wanted(each.strip())), "")
        if url:
            yield url, described


def _siblings(img: etree._Element) -> list[etree._Element]:
    """Return the source elements of an img's picture element; libxml2 nests what follows them in them."""
    found: list[etree._Element] = []
    parent = img.getparent()
    while parent is not None and parent.tag == "source":
        found.append(parent)
        parent = parent.getparent()
    if parent is not None and parent.tag == "picture":
        found += [each for each in parent if each.tag == "source" and each not in found]
    return found


def largest(srcset: str) -> str | None:
    """Return the URL of a srcset's largest candidate, by its width or density; None if it is empty."""
    best: tuple[float, str] | None = None
    for url, descriptor in _candidates(srcset):
        if not _may_be_wanted(url):
            continue
        size = _DESCRIPTOR.fullmatch(descriptor)
        scale = float(size[1]) * (1 if size[2] == "w" else 1000) if size else 1000.0
        if best is None or scale > best[0]:
            best = scale, url
    return best[1] if best else None


def _candidates(srcset: str) -> Iterator[tuple[str, str]]:
    """Yield each URL of a srcset with its descriptor, which may be empty."""
    place = 0
    while True:
        start = _end_of(_BETWEEN, srcset, place)
        place = _end_of(_TO_BLANK, srcset, start)
        url = srcset[start:place].rstrip(",")
        if not url:
            return
        descriptor = ""
        if srcset[place - 1] != ",":
            end = _end_of(_TO_COMMA, srcset, place)
            descriptor, place = srcset[place:end], end
        yield url, descriptor


def _end_of(pattern: re.Pattern[str], text: str, place: int) -> int:
    found = pattern.match(text, place)
    return found.end() if found else place


def _links_to_files(root: etree._Element) -> Iterator[tuple[str, dict[str, object]]]:
    for link in root.iter("a"):
        href = (link.get("href") or "").strip()
        if names_a_jpeg(href):
            yield href, {"title": " ".join("".join(link.itertext()).split())[:200]}
