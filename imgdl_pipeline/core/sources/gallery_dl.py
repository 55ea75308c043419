"""List images of the sites that gallery-dl supports, by running that program, which the user installs.

The program is run, never imported: `gallery-dl --resolve-json` (https://github.com/mikf/gallery-dl). Its exit
code is 0 even when it failed, so this module relies on its output: one JSON array of messages, in which the
first number of each message is its kind.
"""

import io
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Any, Literal

from pydantic import Field

from imgdl_pipeline.core.model.links import Link
from imgdl_pipeline.core.model.settings import MaxImages, SourceSettings
from imgdl_pipeline.core.model.shown import hide_secrets, shown
from imgdl_pipeline.core.model.temporary import opened_temporary
from imgdl_pipeline.core.sources.attributes import distinct, drop_empty, number, plain_text
from imgdl_pipeline.core.sources.client import SHOWN_CHARS, SourceClient, SourceError
from imgdl_pipeline.core.sources.json_items import JsonItemsError, json_items
from imgdl_pipeline.core.sources.separated import open_text

PROGRAM = "gallery-dl"
FILE, UNRESOLVED, FAILURE = 3, 6, -1
"""Kinds of messages: a file, a page that was not followed, and an error."""

OUTPUT_BYTES = 2_000_000_000
"""The most that the program may print."""

WAIT_S = 0.1
END_BYTES = 100_000
"""The end of the output in which secrets are hidden before a part of it is shown."""

JPEG_EXTENSIONS = frozenset({"jpg", "jpeg", "jpe", "jfif"})
IS_JPEG = f"extension.lower() in {('', *sorted(JPEG_EXTENSIONS))}"
"""The same condition for gallery-dl's --filter: a Python expression."""


class GalleryDlSource(SourceSettings):
    """Pictures of a page that the program gallery-dl knows how to read."""

    type: Literal["gallery_dl"]
    url: str = Field(
        pattern=r"^(?:[a-z][a-z0-9-]*:)?(?:https?://\S+|[^\s-]\S*)$",
        description="a gallery, album or profile of a site that gallery-dl knows, or a pattern of its own",
    )
    config: str | None = Field(
        None, min_length=1, description="a configuration file for it, e.g. with a login; null: none at all"
    )
    list_timeout: float | None = Field(
        None, gt=0, le=86_400, description="seconds that it may take; null: the gallery's list_timeout"
    )
    max_images: MaxImages = None


def list_links(source: GalleryDlSource, client: SourceClient) -> Iterator[Link]:
    """Yield the JPEG files that gallery-dl finds, each with the headers that it gives for the download.

    Raises:
        SourceError: The program is missing, failed, or took too long.
    """
    if not client.trusts_source:
        raise SourceError("gallery_dl is not run on a URL from someone else's table, unless trusted is true")
    return distinct(_files(source, client), source.max_images, client)


def _files(source: GalleryDlSource, client: SourceClient) -> Iterator[Link]:
    unread = 0
    with closing(_messages(source, client)) as messages:
        for message in messages:
            if message[0] == FAILURE:
                raise _failure(source, message)
            unread += message[0] == UNRESOLVED
            if message[0] == FILE and len(message) == 3:
                client.saw([str(message[1])])
                link = _link(message)
                if link is not None:
                    yield link
    if unread:
        client.warn(f"{_shown(source)}: gallery-dl did not look into {unread} pages")


def _shown(source: GalleryDlSource) -> str:
    return hide_secrets(source.url)


def _command(source: GalleryDlSource) -> list[str]:
    beside_python = str(Path(sys.executable).parent)
    program = shutil.which(PROGRAM, path=os.pathsep.join([beside_python, os.environ.get("PATH", "")]))
    if program is None:
        raise SourceError(
            f"{_shown(source)}: the program {PROGRAM} is not installed; install it beside this package: "
            "pip install gallery-dl"
        )
    command = [program, "--config-ignore", "--resolve-json", "--no-input", "-o", "output.private=true"]
    if source.config:
        command += ["--config", source.config]
    if source.max_images:  # stop listing as soon as there are enough
        command += ["--filter", IS_JPEG, "--range", f"1-{source.max_images}"]
    return [*command, "--", source.url]


def _messages(source: GalleryDlSource, client: SourceClient) -> Generator[list[Any], None, None]:
    """Run the program and yield its messages; each message is a list that begins with its kind."""
    with opened_temporary() as printed, opened_temporary() as errors:
        code = _run(_command(source), source, client, printed, errors)
        printed.seek(0)
        said_to_people = shown(_end(errors), SHOWN_CHARS)
        has_failure = False
        try:
            with open_text(printed, "utf-8") as (text, _), closing(json_items(text)) as items:
                for _, message in items:
                    if not (isinstance(message, list) and message):
                        raise JsonItemsError("a message is no list")
                    has_failure = has_failure or message[0] == FAILURE
                    yield message
        except JsonItemsError:
            words = said_to_people or shown(_end(printed), SHOWN_CHARS) or "no word"
            raise SourceError(f"{_shown(source)}: {PROGRAM} ended with exit code {code}: {words}") from None
        if code and not has_failure:
            words = said_to_people or "no word"
            raise SourceError(f"{_shown(source)}: {PROGRAM} ended with exit code {code}: {words}")
    if said_to_people:
        client.warn(f"{_shown(source)}: {said_to_people}")


def _end(file: IO[bytes]) -> str:
    """Return the last characters of a file."""
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - END_BYTES))
    end = hide_secrets(file.read().decode("utf-8", "replace").strip())
    file.seek(0)
    return end[-SHOWN_CHARS:]


def _run(
    command: list[str], source: GalleryDlSource, client: SourceClient, printed: IO[bytes], errors: IO[bytes]
) -> int:
    """Run the program and return its exit code; its output goes to two files.

    The program has its own process group, so that no process it starts outlives the time limit.
    """
    seconds = min(client.left(), source.list_timeout or math.inf)
    ends_at = time.monotonic() + seconds
    with subprocess.Popen(  # noqa: S603 -- the URL comes after -- and is validated
        command, stdin=subprocess.DEVNULL, stdout=printed, stderr=errors, start_new_session=True
    ) as run:
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    return run.wait(WAIT_S)
                client.left()
                if time.monotonic() > ends_at:
                    words = f"{PROGRAM} did not end within {seconds:.3g} s; list_timeout allows more"
                    raise SourceError(f"{_shown(source)}: {words}")
                if max(os.fstat(each.fileno()).st_size for each in (printed, errors)) > OUTPUT_BYTES:
                    words = f"{PROGRAM} prints more than {OUTPUT_BYTES} bytes (OUTPUT_BYTES)"
                    raise SourceError(f"{_shown(source)}: {words}")
        finally:  # its group's id is not reused before it is reaped
            if run.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(run.pid, signal.SIGKILL)


def _failure(source: GalleryDlSource, message: list[Any]) -> SourceError:
    told = message[1] if len(message) > 1 and isinstance(message[1], dict) else {}
    words = hide_secrets(f"{told.get('error', 'an error')}: {told.get('message', '')}")
    return SourceError(f"{_shown(source)}: {PROGRAM} failed: {words[:SHOWN_CHARS]}")


def _link(message: list[Any]) -> Link | None:
    """Return a file as a link, or None if it is not a JPEG or its URL is not http(s)."""
    _, url, known = message
    if not isinstance(known, dict) or not str(url).startswith(("http://", "https://")):
        return None
    extension = str(known.get("extension") or "").lower()
    if extension and extension not in JPEG_EXTENSIONS:
        return None
    return Link.from_text(str(url), _attributes(known), _headers(known.get("_http_headers")))


_PRINTED_BYTES = re.compile(r"""b(['"])(.*)\1""", re.DOTALL)


def _headers(given: Any) -> dict[str, str]:
    """Return the headers that can be sent; gallery-dl prints bytes values as Python literals (`b'…'`)."""
    named = given.items() if isinstance(given, dict) else ()
    headers = {str(name): _PRINTED_BYTES.sub(r"\2", str(value)) for name, value in named if value}
    return {name: value for name, value in headers.items() if value.isascii() and value.isprintable()}


def _attributes(known: dict[str, Any]) -> dict[str, Any]:
    """Map gallery-dl's keywords to attribute names; they differ by site, so try the common ones in order."""
    return drop_empty(
        {
            "title": _one_of(known, "title", "filename"),
            "caption": plain_text(_one_of(known, "description", "caption", "content")),
            "author": _one_of(
                known, *("author", "artist", "user", "username", "user_name", "uploader", "creator")
            ),
            "license": _one_of(known, "license_name", "license"),
            "page": _one_of(known, "post_url", "webpage_url", "page_url", "source_url"),
            "album": _one_of(known, "album", "gallery"),
            "date": _one_of(known, "date", "created_at", "published", "published_at", "publishedAt"),
            "id": _one_of(known, "id", "image_id", "post_id"),
            "tags": _tags(known.get("tags")),
            "width": number(known.get("width")),
            "height": number(known.get("height")),
            "md5": _one_of(known, "md5"),
            "site": _one_of(known, "category"),
        }
    )


def _tags(value: Any) -> list[str]:
    """Return tags that are a list, or one text: separated by commas, or else by white space."""
    if isinstance(value, str):
        value = value.split("," if "," in value else None)
    return [str(each).strip() for each in value if str(each).strip()] if isinstance(value, list) else []


def _one_of(known: dict[str, Any], *names: str) -> str | None:
    for name in names:
        value = known.get(name)
        if isinstance(value, list):
            value = ", ".join(each for each in value if isinstance(each, str))
        if isinstance(value, dict):
            value = value.get("name") or value.get("username") or value.get("title")
        if isinstance(value, (str, int)) and not isinstance(value, bool) and str(value):
            return str(value)
    return None
