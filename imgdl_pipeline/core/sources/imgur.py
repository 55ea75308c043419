"""List galleries of Imgur's API v3 (https://api.imgur.com/, according to its public Postman collection).

The gallery is read page by page, albums are expanded to their images, and only JPEGs are listed. The
Client-ID is sent only to the API.
"""

import itertools
import logging
import re
import time
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urljoin, urlsplit

from pydantic import Field

from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.settings import HttpUrl, Secret, SourceSettings
from imgdl_pipeline.core.sources.attributes import drop_empty, iso_of_epoch, number
from imgdl_pipeline.core.sources.client import Answer, SourceClient, SourceError

logger = logging.getLogger(__name__)


class ImgurSource(SourceSettings):
    """A gallery of Imgur's API v3."""

    type: Literal["imgur"]
    gallery: str = Field(
        pattern=r"^(hot|top|user|random|r/\w+|t/[\w-]+|a/\w+)$",
        description="hot, top, user, random, r/<subreddit>, t/<tag> or a/<album>",
    )
    client_id: Secret = Field(description="the API's Client-ID, e.g. {{ env.IMGUR_CLIENT_ID }}")
    api_url: HttpUrl = Field("https://api.imgur.com/3/", description="where the API answers")
    max_pages: Annotated[int, Field(ge=1, le=100_000)] | None = Field(
        None, description="pages of the gallery to read; null: all"
    )


_PATHS = {
    "r": "gallery/r/{name}/time/week/{page}",
    "t": "gallery/t/{name}/viral/week/{page}",
    "a": "album/{name}/images",
    "random": "gallery/random/random/{page}",
}
_FRONT_PAGE = "gallery/{kind}/viral/day/{page}"

_ATTRIBUTES = {
    "title": "title",
    "caption": "description",
    "author": "account_url",
    "id": "id",
    "width": "width",
    "height": "height",
    "size": "size",
    "nsfw": "nsfw",
    "section": "section",
}


def list_links(source: ImgurSource, client: SourceClient) -> Iterator[Link]:
    """Yield the JPEG images of a gallery, with albums expanded, each image once.

    Raises:
        SourceError: A request failed.
        MissingSecretError: The environment variable of the Client-ID is not set.
    """
    api = _Api(source, client)
    seen: set[str] = set()
    for item in api.items():
        for image in api.images_of(item):
            link = _link(image)
            identity = str(image.get("id") or (link and link.url))
            if link is not None and identity not in seen:
                seen.add(identity)
                yield link


class _Api:
    """A client of Imgur's API, which reads galleries page by page."""

    def __init__(self, source: ImgurSource, client: SourceClient) -> None:
        self._source = source
        self._client = client
        self._client_id = source.client_id.reveal("source.client_id", client.environ)

    def items(self) -> Iterator[dict[str, Any]]:
        """Yield the images and albums of all pages, up to `max_pages`."""
        kind, _, name = self._source.gallery.partition("/")
        path = _PATHS.get(kind, _FRONT_PAGE)
        most = self._source.max_pages if "{page}" in path else 1
        for page in itertools.count():
            if page == most:
                if "{page}" in path:
                    self._client.warn(f"the list ends after {most} pages, because max_pages says so")
                return
            data = self._get(path.format(kind=kind, name=name, page=page))
            items = data.get("items", []) if isinstance(data, dict) else data
            if not items:
                return
            self._client.saw(str(item.get("id")) for item in items)
            yield from items

    def images_of(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        """Return an album's images, which inherit the album's title and texts, or the single image itself."""
        if not item.get("is_album"):
            return [item]
        images = item.get("images") or []
        if len(images) < int(item.get("images_count") or 1):
            images = self._album(str(item.get("id"))) or images
        inherited = {key: item.get(key) for key in ("title", "description", "account_url")}
        return [{**image, **_missing(image, inherited)} for image in images]

    def _album(self, album: str) -> list[dict[str, Any]]:
        """Return all images of an album, or none if it was removed after its gallery was listed."""
        images = self._get(f"album/{album}/images", or_gone=True)
        if images is None:
            logger.warning("imgur album %s is gone", album)
        return images or []

    def _get(self, path: str, *, or_gone: bool = False) -> Any:
        answer = self._client.json(
            urljoin(self._source.api_url.rstrip("/") + "/", path),
            headers={"Authorization": f"Client-ID {self._client_id}"},
            busy=_is_over_capacity,
            pause=_pause,
        )
        data = answer.data
        if answer.status == 200 and isinstance(data, dict) and data.get("success"):
            return data.get("data")
        if or_gone and answer.status == 404:
            return None
        raise self._error(answer)

    def _error(self, answer: Answer) -> SourceError:
        if self._source.gallery == "random":
            return answer.error("Imgur no longer serves gallery: random; try gallery: hot")
        return answer.error("Imgur's API did not give what was asked for")


def _is_over_capacity(answer: Answer) -> bool:
    """Return whether the API temporarily limits this IP address, which it reports as 403 or 429."""
    return answer.status in (403, 429) and "over capacity" in answer.text.lower()


LIMITED_S = 3600.0
"""How long a limit of Imgur's lasts if its answer does not say so."""


def _pause(answer: Answer) -> float | None:
    """Return the seconds until a limit of the API is over, which is in headers of its own."""
    if answer.status not in (403, 429) or "Retry-After" in answer.headers:
        return None
    reset = number(answer.headers.get("X-RateLimit-UserReset"))
    left = answer.headers.get("X-RateLimit-UserRemaining")
    if reset is not None and left in (None, "0"):
        return max(1.0, reset - time.time())
    return LIMITED_S


def _missing(image: Mapping[str, Any], inherited: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in inherited.items() if not image.get(key)}


def _link(image: Mapping[str, Any]) -> Link | None:
    """Return an image as a link, or None if it is not a JPEG."""
    if image.get("type") != "image/jpeg" or not image.get("link"):
        return None
    url = str(image["link"])
    if (urlsplit(url).hostname or "").endswith("imgur.com"):  # its API documents http, but it serves https
        url = re.sub(r"^http:", "https:", url)
    attributes = {name: image.get(key) for name, key in _ATTRIBUTES.items()}
    attributes["date"] = iso_of_epoch(image.get("datetime"))
    attributes["page"] = f"https://imgur.com/{image['id']}" if image.get("id") else None
    return Link.from_text(url, drop_empty(attributes))
