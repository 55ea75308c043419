"""Every parser of strangers' text, as a function of bytes that returns, or raises one of its own errors."""

import io
import json
import time
from collections.abc import Callable
from typing import Any

from imgdl_pipeline.core.http.opt_outs import from_headers
from imgdl_pipeline.core.http.response import content_length, is_chunked, read_headers
from imgdl_pipeline.core.http.robots_rules import read_rules
from imgdl_pipeline.core.http.spelling import escaped_bytes, spelled
from imgdl_pipeline.core.http.tdmrep import tdmrep_rules
from imgdl_pipeline.core.http.transport import retry_after
from imgdl_pipeline.core.http.urls import host_of
from imgdl_pipeline.core.model.licenses import license_id
from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.opt_outs import from_embedded, from_json, to_json
from imgdl_pipeline.core.model.outcome import FetchError
from imgdl_pipeline.core.model.settings import DownloadSettings
from imgdl_pipeline.core.model.shown import hide_secrets, shown
from imgdl_pipeline.core.sources import feed, iiif, list_formats, sitemap
from imgdl_pipeline.core.sources.attributes import first_href, iso_date, plain_text
from imgdl_pipeline.core.sources.client import Document, SourceClient, SourceError, parsed_json
from imgdl_pipeline.core.sources.feed import FeedSource
from imgdl_pipeline.core.sources.web_page import largest

OWN_ERRORS = (FetchError, SourceError)
MOST_SECONDS = 2.0
"""How long an input of some kilobytes may keep a parser, on one core."""

URL = "https://h.org/page"


def text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def headers(data: bytes) -> None:
    import http.client

    try:
        found = read_headers(io.BytesIO(data + b"\r\n\r\n"))
        content_length(found)
        is_chunked(found)
    except http.client.HTTPException:
        return
    opt_outs = from_headers(found.items(), "imgdl_pipeline/1.0")
    assert from_json(to_json(opt_outs)) == opt_outs
    retry_after(found)


def url(data: bytes) -> None:
    once = spelled(text(data), URL)
    assert spelled(once) == once
    assert host_of(once)


def link(data: bytes) -> None:
    made = Link.from_text(text(data))
    made.url.encode()


def location(data: bytes) -> None:
    spelled(escaped_bytes(data.decode("latin-1")), URL)


def robots(data: bytes) -> None:
    rules = read_rules(data, "imgdl_pipeline")
    rules.allow(URL + "/a/b/c/index.html?x=" + "a" * 2000)
    rules.opt_outs(URL + "/a/b/c/index.html?x=" + "a" * 2000)


def opt_out_lines(data: bytes) -> None:
    value = data.decode("latin-1")
    names = ("X-Robots-Tag", "TDM-Reservation", "TDM-Policy", "Content-Usage")
    opt_outs = from_headers([(name, value) for name in names], "imgdl_pipeline/1.0")
    assert from_json(to_json(opt_outs)) == opt_outs
    from_embedded({"data_mining": text(data)})


def usage(data: bytes) -> None:
    robots(b"User-agent: *\nContent-Usage: " + data)


def tdmrep(data: bytes) -> None:
    tdmrep_rules(text(data)).opt_outs(URL)
    tdmrep_rules(json.dumps([{"location": text(data), "tdm-reservation": 1}])).opt_outs(URL + "a" * 2000)


def licence(data: bytes) -> None:
    license_id(text(data), None)
    license_id(None, text(data))


def words(data: bytes) -> None:
    hidden = hide_secrets(text(data))
    assert hide_secrets(hidden) == hidden
    assert shown(text(data)).isprintable() or not data


def html(data: bytes) -> None:
    plain_text(text(data))
    first_href(text(data), URL)
    largest(text(data))
    iso_date(text(data))


def _document(data: bytes) -> Document:
    return Document(f"GET {URL}", 200, {}, None, "", URL, io.BytesIO(data))


def xml_feed(data: bytes) -> None:
    source = FeedSource(type="feed", url=URL, images=("enclosures", "thumbnails", "content"))
    with SourceClient(DownloadSettings(), {}) as client:
        list(feed._of_page(_document(data), source, client))


def xml_sitemap(data: bytes) -> None:
    with SourceClient(DownloadSettings(), {}) as client:
        root = sitemap.parsed_xml(sitemap._unzipped(_document(data)), client, "sitemap", ("url", "sitemap"))
        for entry in root:
            list(sitemap._of_page(entry, sitemap._location(entry), URL))


def manifest(data: bytes) -> None:
    found = parsed_json(data)
    if isinstance(found, dict):
        list(iiif._of_manifest(found, "all"))


def _rows(format_: str) -> Callable[[bytes], None]:
    def read(data: bytes) -> None:
        rows = list_formats.Rows("list", "url")
        for row in list_formats.READERS[format_](list_formats.ListFile(io.BytesIO(data), "list", "url")):
            list(rows.links_of(row))

    return read


PARSERS: dict[str, Callable[[bytes], Any]] = {
    **{each.__name__: each for each in (headers, url, link, location, robots, words, html)},
    **{each.__name__: each for each in (opt_out_lines, usage, tdmrep, licence)},
    **{each.__name__: each for each in (xml_feed, xml_sitemap, manifest)},
    **{format_: _rows(format_) for format_ in list_formats.READERS},
}


def check(name: str, data: bytes) -> None:
    """Parse an input in time; only the parser's own errors may be raised."""
    started = time.thread_time()
    try:
        PARSERS[name](data)
    except OWN_ERRORS:
        pass
    assert time.thread_time() - started < MOST_SECONDS, f"{name} takes too long"
