"""List the pictures of a sitemap or sitemap index, with Google's image extension.

Specifications: https://www.sitemaps.org/protocol.html and
https://developers.google.com/search/docs/crawling-indexing/sitemaps/image-sitemaps.
"""

import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from lxml import etree
from pydantic import Field

from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.settings import HttpUrl, MaxImages, SourceSettings
from imgdl_pipeline.core.model.shown import hide_secrets
from imgdl_pipeline.core.sources.attributes import distinct, drop_empty, joined, names_a_jpeg, plain_text
from imgdl_pipeline.core.sources.client import Document, SourceClient, SourceError, is_trusted_like
from imgdl_pipeline.core.sources.xml import XML_BYTES, local_name, parsed_xml

SITEMAPS = 10_000
"""The most sitemaps that one gallery may have."""


class SitemapSource(SourceSettings):
    """The pictures of a sitemap or sitemap index."""

    type: Literal["sitemap"]
    url: HttpUrl = Field(description="URL of a sitemap or a sitemap index, plain or gzip")
    max_images: MaxImages = None


def list_links(source: SitemapSource, client: SourceClient) -> Iterator[Link]:
    """Yield the images of every page, and pages that are themselves JPEG files, in the sitemaps' order.

    Raises:
        SourceError: A sitemap could not be fetched, is not a sitemap, or robots.txt disallows it.
    """
    return distinct(_of_sitemaps(source, client), source.max_images, client)


def _of_sitemaps(source: SitemapSource, client: SourceClient) -> Iterator[Link]:
    """Yield the images of a sitemap, and then of all that it lists, each read once."""
    waiting, known = [source.url], {source.url}
    for number, url in enumerate(waiting):
        if number == SITEMAPS:
            raise SourceError(f"there are more than {SITEMAPS} sitemaps (SITEMAPS); name a smaller index")
        is_trusted = number == 0 or is_trusted_like(source.url, url)
        root, base = _root(url, client, is_trusted=is_trusted)
        entries = [element for element in root if local_name(element) in ("sitemap", "url")]
        client.begin_list()
        client.saw(_location(entry) for entry in entries)
        for entry in entries:
            location = joined(base, _location(entry))
            if local_name(entry) == "url":
                yield from _of_page(entry, location, base)
            elif location not in known:
                known.add(location)
                waiting.append(location)


def _root(url: str, client: SourceClient, *, is_trusted: bool) -> tuple[etree._Element, str]:
    """Return a sitemap and its own URL, after redirects."""
    with client.document(url, limit=XML_BYTES, is_trusted=is_trusted, heeds_robots=True) as document:
        root = parsed_xml(_unzipped(document), client, "sitemap", ("url", "sitemap"))
        if local_name(root) not in ("urlset", "sitemapindex"):
            raise document.error("this is no sitemap: neither urlset nor sitemapindex")
        return root, document.url


def _unzipped(document: Document) -> Document:
    """Return a document with the content of its gzip file, if it is one."""
    start = document.file.read(2)
    document.file.seek(0)
    if start != b"\x1f\x8b":
        return document
    try:
        data = gzip.GzipFile(fileobj=document.file).read(XML_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise document.error(f"damaged gzip: {error}") from None
    if len(data) > XML_BYTES:
        raise document.error(f"the sitemap is longer than {XML_BYTES} bytes")
    return replace(document, file=io.BytesIO(data))


def _location(entry: etree._Element) -> str:
    return next((_text(child) for child in entry if local_name(child) == "loc"), "")


def _text(element: etree._Element) -> str:
    return " ".join("".join(element.itertext()).split())


def _of_page(entry: etree._Element, page: str, base: str) -> Iterator[Link]:
    date = next((_text(child) for child in entry if local_name(child) == "lastmod"), "")
    if names_a_jpeg(page):
        yield Link.from_text(page, drop_empty({"date": date}))
    for image in entry:
        if local_name(image) != "image":
            continue
        own = {local_name(child): child for child in image if isinstance(child.tag, str)}
        location = _text(own["loc"]) if "loc" in own else ""
        if location:
            described = {
                "title": plain_text(_text(own["title"])) if "title" in own else None,
                "caption": plain_text(_text(own["caption"])) if "caption" in own else None,
                "license_url": _text(own["license"]) if "license" in own else None,
                "page": hide_secrets(page),
                "date": date,
            }
            yield Link.from_text(joined(base, location), drop_empty(described))
