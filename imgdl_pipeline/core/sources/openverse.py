"""List the JPEG images that a search finds in Openverse, an index of openly licensed media.

API: https://api.openverse.org/v1/. Without a token, it returns 20 results per page and 240 in all, and allows
few requests per hour. Above that rate it answers 429, and the client waits for as long as is reasonable.
"""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.settings import HttpUrl, MaxImages, Secret, SourceSettings
from imgdl_pipeline.core.sources.attributes import distinct, drop_empty, may_be_jpeg, number
from imgdl_pipeline.core.sources.client import Answer, SourceClient

PAGE_IMAGES = 20
"""Results per page; Openverse answers an anonymous request for more with 401."""

ANONYMOUS_IMAGES = 240
"""The most results of an anonymous search, even if `page_count` promises more:
https://github.com/WordPress/openverse/issues/4474."""


class OpenverseSource(SourceSettings):
    """Pictures that a search of Openverse finds."""

    type: Literal["openverse"]
    q: str = Field(min_length=1, max_length=200, description="what to search for")
    license: str | None = Field(
        None, pattern=r"^[a-z0-9-]+(,[a-z0-9-]+)*$", description="e.g. cc0,by; null: any open licence"
    )
    token: Secret | None = Field(None, description="an access token, e.g. {{ env.OPENVERSE_TOKEN }}")
    api_url: HttpUrl = Field("https://api.openverse.org/v1/", description="where the API answers")
    max_images: MaxImages = None


def list_links(source: OpenverseSource, client: SourceClient) -> Iterator[Link]:
    """Yield the search's results, the best first.

    Raises:
        SourceError: A request failed.
        MissingSecretError: The environment variable of the token is not set.
    """
    return distinct(_results(source, client), source.max_images, client)


def _results(source: OpenverseSource, client: SourceClient) -> Iterator[Link]:
    headers = {}
    if source.token is not None:
        headers["Authorization"] = f"Bearer {source.token.reveal('source.token', client.environ)}"
    query = {"q": source.q, "extension": "jpg", "page_size": str(PAGE_IMAGES)}
    query |= {"license": source.license} if source.license else {}
    page, pages = 1, 1
    while page <= pages:
        answer = client.json(f"{source.api_url.rstrip('/')}/images/", {**query, "page": str(page)}, headers)
        is_past_limit = (page - 1) * PAGE_IMAGES >= ANONYMOUS_IMAGES
        if is_past_limit and answer.status in (400, 401, 404):
            client.warn(f"{source.q}: Openverse gives no more than {page - 1} pages")
            return
        data = _data(answer)
        if not data["results"]:
            return
        client.saw(
            str(each.get("id") or each.get("url")) for each in data["results"] if isinstance(each, dict)
        )
        yield from (_link(each) for each in data["results"] if _is_wanted(each))
        page, pages = (
            page + 1,
            number(data.get("page_count")) or page + 1,
        )  # without a count, read until a page is empty


def _is_wanted(image: Any) -> bool:
    """Return whether a result has a URL and may be a JPEG."""
    if not isinstance(image, dict) or not image.get("url"):
        return False
    kind = str(image.get("filetype") or "").lower()
    return may_be_jpeg(f"image/{kind}" if kind else None)


def _data(answer: Answer) -> dict[str, Any]:
    data = answer.data
    if answer.status != 200 or not isinstance(data, dict) or not isinstance(data.get("results"), list):
        raise answer.error("Openverse did not give what was asked for")
    return data


def _link(image: dict[str, Any]) -> Link:
    version = image.get("license_version")
    given = image.get("tags")
    tags = [each.get("name") for each in given if isinstance(each, dict)] if isinstance(given, list) else []
    attributes = {
        "title": image.get("title"),
        "author": image.get("creator"),
        "author_url": image.get("creator_url"),
        "license": " ".join(str(each) for each in (image.get("license"), version) if each),
        "license_url": image.get("license_url"),
        "credit": image.get("attribution"),
        "page": image.get("foreign_landing_url"),
        "provider": image.get("provider"),
        "id": image.get("id"),
        "tags": [tag for tag in tags if tag],
        "width": number(image.get("width")),
        "height": number(image.get("height")),
        "size": number(image.get("filesize")),
    }
    return Link.from_text(str(image["url"]), drop_empty(attributes))
