"""List the images of IIIF manifests and collections: the full image of every canvas.

Specifications: https://iiif.io/api/presentation/3.0/ and /2.1/. If a canvas's image has an Image API service,
the link requests the full size as JPEG (https://iiif.io/api/image/3.0/#4-image-requests). No key is needed.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Literal
from urllib.parse import urljoin

from pydantic import Field

from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.settings import HttpUrl, MaxImages, SourceSettings
from imgdl_pipeline.core.model.shown import hide_secrets
from imgdl_pipeline.core.sources.attributes import (
    distinct,
    drop_empty,
    iso_date,
    may_be_jpeg,
    number,
    plain_text,
)
from imgdl_pipeline.core.sources.client import (
    SourceClient,
    SourceError,
    Unchanged,
    is_trusted_like,
)

DEPTH = 10
"""The most levels of nested collections that are followed."""

GONE = (404, 410)
_KINDS = ("manifest", "collection", "collectionpage", "orderedcollection", "orderedcollectionpage")

DOCUMENTS = 10_000
"""The most manifests and collections that one gallery may have."""

MANIFEST_BYTES = 30_000_000

Json = dict[str, Any]


class IiifSource(SourceSettings):
    """The images of a IIIF manifest or collection."""

    type: Literal["iiif"]
    manifest: HttpUrl = Field(
        description="a manifest or collection of the Presentation API, 2 or 3, or a Change Discovery list"
    )
    choices: Literal["first", "all"] = Field(
        "first", description="of several images that one canvas offers as a choice: the first, or all"
    )
    max_images: MaxImages = None


def list_links(source: IiifSource, client: SourceClient) -> Iterator[Link]:
    """Yield the image of every canvas, in the order of the manifests; read a collection's members in order.

    Raises:
        SourceError: A manifest could not be fetched, or is not a manifest.
    """
    reader = _Reader(source, client)
    yield from distinct(_below(source.manifest, reader, DEPTH), source.max_images, client)
    reader.finish()


def members_of(source: IiifSource, client: SourceClient) -> Iterator[tuple[str, str]]:
    """Yield the URL and the label of each manifest or collection that a collection names, page by page.

    Raises:
        SourceError: The collection could not be fetched, or is none.
    """
    reader = _Reader(source, client)
    page = source.manifest
    while page:
        collection = reader.read(page)
        if collection is None:
            return
        if _kind(collection) not in ("collection", "collectionpage"):
            raise SourceError(f"{hide_secrets(page)}: this is no IIIF collection, and has no members")
        for member in _members(collection):
            label = _plain(member.get("label")) if isinstance(member, dict) else ""
            if _id(member):
                yield urljoin(page, _id(member)), label
        following = _id(collection.get("next") or collection.get("first"))
        page = urljoin(page, following) if following else ""


class _Reader:
    """A reader that reads each manifest and collection once.

    Args:
        source: The source's settings. Its manifest is trusted; so are members at the same address, if it is
            given as an address. A name may lead elsewhere when it is looked up again.
        client: The client for HTTP requests.
    """

    def __init__(self, source: IiifSource, client: SourceClient) -> None:
        self.source = source
        self.client = client
        self._visited: set[str] = set()
        self._gone = 0

    def read(self, url: str) -> Json | None:
        """Return a resource, or None if it was read before: collections may contain each other."""
        if url in self._visited:
            return None
        if len(self._visited) == DOCUMENTS:
            raise SourceError(f"more than {DOCUMENTS} manifests and collections; name a smaller collection")
        self._visited.add(url)
        is_first = len(self._visited) == 1
        self.client.saw([url])
        is_trusted = is_first or is_trusted_like(self.source.manifest, url)
        return self._resource(url, is_trusted=is_trusted, may_be_gone=not is_first)

    def _resource(self, url: str, *, is_trusted: bool, may_be_gone: bool) -> Json | None:
        """Fetch a resource; return None for a member that is gone."""
        gone = GONE if may_be_gone else ()
        with self.client.document(
            url, limit=MANIFEST_BYTES, is_trusted=is_trusted, accepted=(200, *gone)
        ) as document:
            if document.status in gone:
                self._gone += 1
                return None
            data = document.json()
            if isinstance(data, dict) and _kind(data) in _KINDS:
                return data
            raise document.error("this is no IIIF manifest or collection")

    def finish(self) -> None:
        """Say how many members are gone."""
        if self._gone:
            self.client.warn(f"{self._gone} members of the collection are gone, and are passed over")


def _below(url: str, reader: _Reader, depth: int, resource: Json | None = None) -> Iterator[Link]:
    """Yield the images of a manifest, or of a collection's members, page by page.

    Args:
        url: The URL of the manifest or collection.
        reader: The reader for it and its members.
        depth: How many levels of collections may be nested below it.
        resource: The resource itself, if the collection that names it embeds it in full.
    """
    page = url
    while page:
        resource = resource or reader.read(page)
        if resource is None:
            return
        if _kind(resource) == "manifest":
            yield from _of_manifest(resource, reader.source.choices)
            return
        if _kind(resource) == "orderedcollection":
            for manifest in changed_manifests(resource, page, reader):
                yield from _below(manifest, reader, depth - 1)
            return
        for member in _members(resource):
            if not depth:
                raise SourceError(f"{page}: collections within collections, more than {DEPTH} deep")
            whole = member if _is_whole(member) else None
            yield from _below(urljoin(page, _id(member)), reader, depth - 1, whole)
        following = _id(resource.get("next") or resource.get("first"))
        page, resource = urljoin(page, following) if following else "", None


def changed_manifests(collection: Json, url: str, reader: "_Reader") -> Iterator[str]:
    """Yield the manifests that a Change Discovery list has and has not deleted, the latest first.

    Specification: https://iiif.io/api/discovery/1.0/. The list's pages are read from the last to the first.

    Raises:
        SourceError: A page could not be fetched.
        Unchanged: The list's last page is the same as the last time.
    """
    seen: set[str] = set()
    place = urljoin(url, _id(collection.get("last")))
    is_last = True
    while place != url:
        page = reader.read(place)
        if page is None:
            return
        if (
            is_last
            and url == reader.source.manifest
            and reader.client.is_known(f"changes of {url}", json.dumps([collection, page]))
        ):
            raise Unchanged
        is_last = False
        for activity in reversed(_list(page.get("orderedItems"))):
            for manifest, is_there in _changed(activity):
                if manifest and manifest not in seen:
                    seen.add(manifest)
                    if is_there:
                        yield urljoin(place, manifest)
        place = urljoin(place, _id(page.get("prev"))) if page.get("prev") else url


def _changed(activity: Any) -> Iterator[tuple[str, bool]]:
    """Yield the manifests of an activity, and whether they are there after it."""
    if not isinstance(activity, dict):
        return
    kind = _kind(activity)
    yield _id(activity.get("object")), kind not in ("delete", "remove", "move")
    if kind == "move":
        yield _id(activity.get("target")), True


def _kind(resource: Json) -> str:
    """Return the kind of a resource, such as `manifest`: its `type` or (version 2) `@type` without prefix."""
    return re.split("[:/]", str(resource.get("type") or resource.get("@type") or ""))[-1].lower()


def _id(resource: Any) -> str:
    if isinstance(resource, dict):
        return str(resource.get("id") or resource.get("@id") or "")
    return resource if isinstance(resource, str) else ""


def _list(value: Any) -> list[Any]:
    """Return a list of a value that may be missing, a single item or a list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


_CONTENTS = ("items", "members", "manifests", "collections", "sequences")


def _members(collection: Json) -> Iterator[Any]:
    """Yield the members of a collection or of one of its pages: references, or embedded resources."""
    for key in _CONTENTS:
        for member in _list(collection.get(key)):
            if _id(member) or _is_whole(member):
                yield member


def _is_whole(member: Any) -> bool:
    """Return whether a member of a collection is embedded in full."""
    is_resource = isinstance(member, dict) and _kind(member) in ("manifest", "collection")
    return is_resource and any(_list(member.get(key)) for key in _CONTENTS)


def _of_manifest(manifest: Json, choices: str) -> Iterator[Link]:
    described = _described(manifest)
    for canvas in _canvases(manifest):
        for body in _bodies(canvas, choices):
            link = _link(body, canvas, described)
            if link is not None:
                yield link


def _canvases(manifest: Json) -> Iterator[Json]:
    """Return the items (version 3), or the canvases of all sequences (version 2)."""
    sequences = [each for each in _list(manifest.get("sequences")) if isinstance(each, dict)]
    joined = [canvas for sequence in sequences for canvas in _list(sequence.get("canvases"))]
    canvases = joined if sequences else _list(manifest.get("items"))
    return (each for each in canvases if isinstance(each, dict))


def _bodies(canvas: Json, choices: str) -> Iterator[Json]:
    """Yield the images painted on a canvas; of a choice, the first, which is the default, or all."""
    for annotation in _list(canvas.get("images")):  # version 2
        yield from _chosen(annotation.get("resource") if isinstance(annotation, dict) else None, choices)
    for page in _list(canvas.get("items")):
        for annotation in _list(page.get("items") if isinstance(page, dict) else None):
            if isinstance(annotation, dict) and "painting" in _list(annotation.get("motivation", "painting")):
                for body in _list(annotation.get("body")):
                    yield from _chosen(body, choices)


def _chosen(body: Any, choices: str) -> Iterator[Json]:
    if not isinstance(body, dict):
        return
    kind = _kind(body)
    if kind == "choice":
        offered = [*_list(body.get("default")), *_list(body.get("items") or body.get("item"))]
        for each in offered if choices == "all" else offered[:1]:
            yield from _chosen(each, choices)
    elif kind == "specificresource":  # a part or a rotation of an image: take the whole image
        yield from _chosen(body.get("source") or body.get("full"), choices)
    elif kind in ("image", ""):
        yield body


def _link(body: Json, canvas: Json, described: Json) -> Link | None:
    """Return a link to the full image, from its service or its own URL; None if there is no JPEG of it."""
    url = _full_image(body)
    if url is None:
        return None
    license_url = _rights(body) or _rights(canvas)  # the image's own rights take precedence
    own = {
        "license_url": license_url,
        "credit": _credit(canvas),
        "title": _plain(canvas.get("label")) or described.get("album"),
        "date": iso_date(_id(canvas.get("navDate"))),
        "width": number(body.get("width")),
        "height": number(body.get("height")),
        "id": _id(canvas),
    }
    return Link.from_text(url, {**described, **drop_empty(own)})


def _full_image(body: Json) -> str | None:
    """Return the full image of the service with the highest version, or else the image's own URL."""
    services = [each for each in _list(body.get("service")) if isinstance(each, dict) and _id(each)]
    service = max(services, key=_image_api, default=None)
    version = _image_api(service) if service else 0
    if version and service:
        own = _id(body)
        ending = _FULL_SIZE[3] if own.endswith("/full/" + _FULL_SIZE[3]) else _FULL_SIZE[version]
        return f"{_id(service).rstrip('/')}/full/{ending}"
    return (_id(body) or None) if may_be_jpeg(str(body.get("format") or "")) else None


_FULL_SIZE = {1: "full/0/native.jpg", 2: "full/0/default.jpg", 3: "max/0/default.jpg"}
"""The end of the URL of a full-size JPEG, by version of the Image API."""


def _image_api(service: Json) -> int:
    """Return the version of the Image API that a service implements; 0 for another kind of service."""
    words = " ".join(str(service.get(key, "")) for key in ("type", "@type", "@context", "profile"))
    if "ImageService3" in words or "image/3" in words:
        return 3
    if "ImageService1" in words or "image-api/1" in words or "image/1" in words:
        return 1
    is_image = "ImageService" in words or "/image/" in words or "image-api" in words
    return 2 if is_image else 0


def _described(manifest: Json) -> Json:
    homepages = _list(manifest.get("homepage")) or _list(manifest.get("related"))
    return drop_empty(
        {
            "album": _plain(manifest.get("label")),
            "caption": _plain(manifest.get("summary") or manifest.get("description")),
            "credit": _credit(manifest),
            "license_url": _rights(manifest),
            "page": _id(homepages[0]) if homepages else _id(manifest),
            "date": iso_date(_id(manifest.get("navDate"))),
            **_metadata(manifest),
        }
    )


def _rights(resource: Json) -> str:
    return _id(next(iter(_list(resource.get("rights") or resource.get("license"))), None))


def _credit(resource: Json) -> str:
    statement = resource.get("requiredStatement")
    return _plain(statement.get("value") if isinstance(statement, dict) else resource.get("attribution"))


_LABELS = {
    "author": ("creator", "author", "artist", "photographer", "maker"),
    "date": ("date", "date created", "creation date", "issued"),
}
"""Labels that museums use for an attribute in a manifest's metadata, which has no fixed names."""


def _metadata(manifest: Json) -> Json:
    found: Json = {}
    for pair in _list(manifest.get("metadata")):
        label = _plain(pair.get("label")).lower().rstrip(":") if isinstance(pair, dict) else ""
        for name, labels in _LABELS.items():
            if label in labels:
                found.setdefault(name, _plain(pair.get("value")))
    return found


def _plain(value: Any) -> str:
    """Return the plain text of a version 3 language map or a version 2 value: English, or else the first."""
    if isinstance(value, dict) and "@value" not in value:
        texts = [(language, text) for language, each in value.items() for text in _list(each)]
    else:
        forms = [each if isinstance(each, dict) else {"@value": each} for each in _list(value)]
        texts = [(str(each.get("@language", "")), each.get("@value")) for each in forms]
    languages = [language for language, _ in texts]
    chosen = min(languages, key=_is_foreign, default="")
    return plain_text("; ".join(str(text) for language, text in texts if language == chosen and text))


def _is_foreign(language: str) -> int:
    """Return the sort key of a language: English first, then no language, then all others."""
    return {"en": 0, "none": 1, "@none": 1, "": 1}.get(language.split("-")[0].lower(), 2)
