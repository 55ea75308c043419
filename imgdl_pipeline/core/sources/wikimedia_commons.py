"""List the JPEG files of a category of Wikimedia Commons, through the MediaWiki action API.

API: https://www.mediawiki.org/wiki/API:Categorymembers and API:Imageinfo. No key is needed. Every file comes
with its author, its licence, and a SHA-1 that the download is checked against.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit

from pydantic import Field

from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.settings import HttpUrl, MaxImages, SourceSettings
from imgdl_pipeline.core.sources.attributes import distinct, drop_empty, first_href, plain_text
from imgdl_pipeline.core.sources.client import Answer, SourceClient


class WikimediaCommonsSource(SourceSettings):
    """The JPEG files of a category of Wikimedia Commons."""

    type: Literal["wikimedia_commons"]
    category: str = Field(min_length=1, description="its name, with or without Category:")
    depth: int = Field(0, ge=0, le=20, description="levels of subcategories to follow")
    api_url: HttpUrl = Field(
        "https://commons.wikimedia.org/w/api.php", description="where the MediaWiki API answers"
    )
    max_images: MaxImages = None


PAGE_FILES = "50"
"""Files per answer: with their licences, more would be slow for the server."""

MOST_PIECES = 600
MOST_ANSWERS = 100
"""The most pages of one batch, and the most answers in which they come."""

_EXTMETADATA = {
    "title": "ObjectName",
    "author": "Artist",
    "credit": "Credit",
    "license": "LicenseShortName",
    "license_url": "LicenseUrl",
    "usage_terms": "UsageTerms",
    "caption": "ImageDescription",
    "date": "DateTimeOriginal",
    "restrictions": "Restrictions",
}


def list_links(source: WikimediaCommonsSource, client: SourceClient) -> Iterator[Link]:
    """Yield the category's JPEG files, then the files of its subcategories down to `depth`.

    Raises:
        SourceError: A request failed, or there is no such category.
    """
    category = re.sub(r"^category:", "", source.category.strip(), flags=re.IGNORECASE)
    links = distinct(_files_below(source, client, f"Category:{category}"), source.max_images, client)
    first = next(links, None)
    if first is None:
        _check_exists(source.api_url, client, f"Category:{category}")
        return
    yield first
    yield from links


def _check_exists(api_url: str, client: SourceClient, category: str) -> None:
    """Check that a category exists, because a misspelt name looks like a category without files.

    Raises:
        SourceError: There is no such category.
    """
    query = {
        "action": "query",
        "format": "json",
        "formatversion": "2",
        "titles": category,
        "prop": "categoryinfo",
    }
    answer = client.json(api_url, query, busy=_is_busy)
    [page] = _query_data(answer)["query"]["pages"]
    if "categoryinfo" not in page:
        raise answer.error(f"there is no category {category}")


def _files_below(source: WikimediaCommonsSource, client: SourceClient, top: str) -> Iterator[Link]:
    visited = {top}
    level = [top]
    for depth in range(source.depth + 1):
        below: list[str] = []
        for category in level:
            yield from _files(source.api_url, client, category)
            if depth < source.depth:
                below += _subcategories(source.api_url, client, category, visited)
        level = below


def _files(api_url: str, client: SourceClient, category: str) -> Iterator[Link]:
    query = {
        "generator": "categorymembers",
        "gcmtitle": category,
        "gcmtype": "file",
        "gcmlimit": PAGE_FILES,
        "prop": "imageinfo",
        "iiprop": "url|size|sha1|mime|timestamp|user|extmetadata",
        "iiextmetadatafilter": "|".join(_EXTMETADATA.values()),
        "iiextmetadatalanguage": "en",
    }
    for page in _pages(api_url, client, query):
        link = _link(page)
        if link is not None:
            yield link


def _subcategories(api_url: str, client: SourceClient, category: str, visited: set[str]) -> list[str]:
    """Return the subcategories not visited yet; categories that contain each other are common."""
    query = {
        "generator": "categorymembers",
        "gcmtitle": category,
        "gcmtype": "subcat",
        "gcmlimit": "500",
    }
    found = []
    for page in _pages(api_url, client, query):
        if page["title"] not in visited:
            visited.add(page["title"])
            found.append(page["title"])
    return found


def _pages(api_url: str, client: SourceClient, query: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yield every page of a query in order; a page may be split over answers until `batchcomplete`."""
    basic = {"action": "query", "format": "json", "formatversion": "2", "maxlag": "5", **query}
    continued: dict[str, str] = {}
    pieces: dict[str, dict[str, Any]] = {}
    answers = 0
    known: set[str] = set()
    client.begin_list()
    while True:
        answer = client.json(api_url, {**basic, **continued}, busy=_is_busy)
        data = _query_data(answer)
        if str(data.get("continue")) in known:
            raise answer.error("the MediaWiki API goes round in circles")
        known.add(str(data.get("continue")))
        if continued and not {"query", "batchcomplete"} & data.keys():
            raise answer.error("the MediaWiki API broke off in the middle of the list")
        pages = data.get("query", {}).get("pages", [])
        client.saw(f"{page.get('pageid')} {'imageinfo' in page}" for page in pages)
        for page in pages:
            pieces.setdefault(str(page.get("pageid", -len(pieces) - 1)), {}).update(page)
        answers += 1
        if len(pieces) > MOST_PIECES or answers > MOST_ANSWERS:
            raise answer.error(f"{len(pieces)} pages are not complete after {answers} answers (MOST_ANSWERS)")
        continued = {key: str(value) for key, value in data.get("continue", {}).items()}
        if data.get("batchcomplete") or not continued:
            yield from pieces.values()
            pieces, answers = {}, 0
        if not continued:
            return


def _query_data(answer: Answer) -> dict[str, Any]:
    if answer.status != 200 or not isinstance(answer.data, dict) or "error" in answer.data:
        raise answer.error("the MediaWiki API did not give what was asked for")
    return answer.data


def _is_busy(answer: Answer) -> bool:
    """Return whether the error is `maxlag` or `ratelimited`: both are temporary and come with status 200."""
    error = answer.data.get("error") if isinstance(answer.data, dict) else None
    return isinstance(error, dict) and error.get("code") in ("maxlag", "ratelimited")


def _link(page: Mapping[str, Any]) -> Link | None:
    """Return a file's page as a link, or None if it has no file or the file is not a JPEG."""
    info = next(iter(page.get("imageinfo") or []), None)
    if not info or info.get("mime") != "image/jpeg" or "url" not in info:
        return None
    metadata = info.get("extmetadata") or {}
    attributes: dict[str, Any] = {
        name: plain_text(str(metadata[key].get("value", "")))
        for name, key in _EXTMETADATA.items()
        if key in metadata
    }
    artist = metadata.get("Artist", {}).get("value")
    attributes["author_url"] = (
        first_href(str(artist), str(info.get("descriptionurl") or "")) if artist else None
    )
    attributes["title"] = attributes.get("title") or str(page.get("title", ""))[len("File:") :]
    known = {
        "page": info.get("descriptionurl"),
        "sha1": info.get("sha1"),
        "bytes": info.get("size"),
        "width": info.get("width"),
        "height": info.get("height"),
        "uploader": info.get("user"),
        "uploaded": info.get("timestamp"),
    }
    return Link.from_text(without_tracking(str(info["url"])), drop_empty({**attributes, **known}))


def without_tracking(url: str) -> str:
    """Return a URL without its `utm_` parameters, which do not identify the file."""
    parts = urlsplit(url)
    kept = [each for each in parts.query.split("&") if each and not each.startswith("utm_")]
    return urlunsplit(parts._replace(query="&".join(kept)))
