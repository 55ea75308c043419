"""Images of IIIF manifests and collections: the full image of every canvas.

https://iiif.io/api/presentation/3.0/ and /2.1/; where a canvas's image has an Image API service, the
full size is asked of it as JPEG (https://iiif.io/api/image/3.0/#4-image-requests). No key is needed.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

from pydantic import Field

from imgdl_pipeline.core.links import Link
from imgdl_pipeline.core.settings import HttpUrl, MaxImages, SourceSettings
from imgdl_pipeline.core.sources.attributes import may_be_jpeg, number, plain_text, said
from imgdl_pipeline.core.sources.web import SourceError, Web, parsed_json

DEPTH = 10
"""Levels of collections within collections that are followed."""

DOCUMENTS = 10_000
"""Manifests and collections that one gallery may have."""

MANIFEST_BYTES = 100_000_000

Json = dict[str, Any]


class IiifSource(SourceSettings):
    """The images of a IIIF manifest or collection."""

    type: Literal["iiif"]
    manifest: HttpUrl = Field(description="a manifest or collection of the Presentation API, 2 or 3")
    max_images: MaxImages = None


def list_links(source: IiifSource, web: Web) -> Iterator[Link]:
    """The image of every canvas, in the order of the manifests; those of a collection one after another.

    Raises:
        SourceError: A manifest could not be had, or is none.
    """
    return islice(_below(source.manifest, _Reader(source, web), DEPTH), source.max_images)


class _Reader:
    """Reads each manifest and collection once.

    Args:
        source: Only what lies where its manifest does is trusted as that is.
        web: To ask with.
    """

    def __init__(self, source: IiifSource, web: Web) -> None:
        self._origin = _origin(source.manifest)
        self._web = web
        self._visited: set[str] = set()

    def read(self, url: str) -> Json | None:
        """A resource, or None for one that was read before: collections may contain each other."""
        if url in self._visited:
            return None
        if len(self._visited) == DOCUMENTS:
            raise SourceError(f"more than {DOCUMENTS} manifests and collections; name a smaller collection")
        self._visited.add(url)
        return _resource(url, self._web, is_trusted=_origin(url) == self._origin)


def _origin(url: str) -> str:
    return "/".join(url.split("/", 3)[:3]).lower()


def _below(url: str, reader: _Reader, depth: int) -> Iterator[Link]:
    """A manifest's images, or those of a collection's members, page after page."""
    page: str | None = url
    while page:
        resource = reader.read(page)
        if resource is None:
            return
        if _kind(resource) == "manifest":
            yield from _of_manifest(resource)
            return
        for member in _members(resource):
            if not depth:
                raise SourceError(f"{page}: collections within collections, more than {DEPTH} deep")
            yield from _below(member, reader, depth - 1)
        page = _id(resource.get("next") or resource.get("first"))


def _resource(url: str, web: Web, *, is_trusted: bool) -> Json:
    with web.document(url, is_trusted=is_trusted) as document:
        data = parsed_json(document.read(MANIFEST_BYTES))
        if isinstance(data, dict) and _kind(data) in ("manifest", "collection", "collectionpage"):
            return data
        raise document.error("this is no IIIF manifest or collection")


def _kind(resource: Json) -> str:
    """`manifest` or `collection`, in version 3's `type` or version 2's `@type`."""
    return str(resource.get("type") or resource.get("@type") or "").rpartition(":")[2].lower()


def _id(resource: Any) -> str:
    if isinstance(resource, dict):
        return str(resource.get("id") or resource.get("@id") or "")
    return resource if isinstance(resource, str) else ""


def _list(value: Any) -> list[Any]:
    """A value that may be one thing or a list of them."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _members(collection: Json) -> Iterator[str]:
    """What a collection, or a page of one, holds."""
    for key in ("items", "members", "manifests", "collections"):
        for member in _list(collection.get(key)):
            if _id(member):
                yield _id(member)


def _of_manifest(manifest: Json) -> Iterator[Link]:
    told = _told_by_manifest(manifest)
    for canvas in _canvases(manifest):
        for body in _bodies(canvas):
            link = _link(body, canvas, told)
            if link is not None:
                yield link


def _canvases(manifest: Json) -> Iterator[Json]:
    """Of version 3, the items; of version 2, the canvases of its first sequence: others only reorder them."""
    sequences = [each for each in _list(manifest.get("sequences")) if isinstance(each, dict)]
    canvases = sequences[0].get("canvases") if sequences else manifest.get("items")
    return (each for each in _list(canvases) if isinstance(each, dict))


def _bodies(canvas: Json) -> Iterator[Json]:
    """What is painted on a canvas; of a choice, the first, which is the default."""
    for annotation in _list(canvas.get("images")):  # version 2
        yield from _chosen(annotation.get("resource") if isinstance(annotation, dict) else None)
    for page in _list(canvas.get("items")):
        for annotation in _list(page.get("items") if isinstance(page, dict) else None):
            if isinstance(annotation, dict) and "painting" in _list(annotation.get("motivation", "painting")):
                for body in _list(annotation.get("body")):
                    yield from _chosen(body)


def _chosen(body: Any) -> Iterator[Json]:
    if not isinstance(body, dict):
        return
    kind = _kind(body)
    if kind == "choice":
        yield from _chosen(body.get("default") or next(iter(_list(body.get("items"))), None))
    elif kind in ("image", ""):
        yield body


def _link(body: Json, canvas: Json, told: Json) -> Link | None:
    """The full image, of its service or as it lies; None where there is no JPEG of it."""
    url = _full_image(body)
    if url is None:
        return None
    own = {
        "title": _plain(canvas.get("label")) or told.get("album"),
        "width": number(body.get("width")),
        "height": number(body.get("height")),
        "id": _id(canvas),
    }
    return Link.from_text(url, said({**told, **own}))


def _full_image(body: Json) -> str | None:
    for service in _list(body.get("service")):
        version = _image_api(service) if isinstance(service, dict) else 0
        if version and _id(service):
            size = "max" if version >= 3 else "full"
            return f"{_id(service).rstrip('/')}/full/{size}/0/default.jpg"
    return (_id(body) or None) if may_be_jpeg(str(body.get("format") or "")) else None


def _image_api(service: Json) -> int:
    """The version of the Image API that a service speaks; 0 for another service."""
    words = " ".join(str(service.get(key, "")) for key in ("type", "@type", "@context", "profile"))
    if "ImageService3" in words or "image/3" in words:
        return 3
    is_image = "ImageService" in words or "/image/" in words or "image-api" in words
    return 2 if is_image else 0


def _told_by_manifest(manifest: Json) -> Json:
    statement = manifest.get("requiredStatement")
    homepages = _list(manifest.get("homepage")) or _list(manifest.get("related"))
    credit = statement.get("value") if isinstance(statement, dict) else manifest.get("attribution")
    return said(
        {
            "album": _plain(manifest.get("label")),
            "caption": _plain(manifest.get("summary") or manifest.get("description")),
            "credit": _plain(credit),
            "license_url": _id(next(iter(_list(manifest.get("rights") or manifest.get("license"))), None)),
            "page": _id(homepages[0]) if homepages else _id(manifest),
            **_metadata(manifest),
        }
    )


_LABELS = {
    "author": ("creator", "author", "artist", "photographer", "maker"),
    "date": ("date", "date created", "creation date", "issued"),
}
"""What museums call it in a manifest's metadata, which has no fixed names."""


def _metadata(manifest: Json) -> Json:
    found: Json = {}
    for pair in _list(manifest.get("metadata")):
        label = _plain(pair.get("label")).lower().rstrip(":") if isinstance(pair, dict) else ""
        for name, labels in _LABELS.items():
            if label in labels:
                found.setdefault(name, _plain(pair.get("value")))
    return found


def _plain(value: Any) -> str:
    """A text in version 3's language map or version 2's forms: English first, then whatever is there."""
    if isinstance(value, dict) and "@value" not in value:
        value = value.get("en") or value.get("none") or next(iter(value.values()), None)
    texts = [each.get("@value") if isinstance(each, dict) else each for each in _list(value)]
    return plain_text("; ".join(str(each) for each in texts if each))
