"""Put a gallery's page together: its HTML, style and script, and the blocks of JSON with its data.

No text of a stranger becomes HTML here: all of it is JSON in which no `<` is left, and the script shows it
as text.
"""

import base64
import hashlib
import html
import json
from importlib.resources import files
from string import Template
from typing import Any

BEGINNING = b"<!doctype html>\n<!-- a gallery, written by imgdl view -->\n"
"""What every page begins with."""

_PARTS = files("imgdl_pipeline.core.view") / "template"
_BLOCKS = "$blocks"

_IN_SCRIPT = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})
"""Escapes of characters that JSON has in texts only, and that could end a script element."""


def page_around(gallery: str, index: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return what comes before the blocks of a page, and what comes after them."""
    style, script = _part("page.css"), _part("page.js")
    before, after = _part("page.html").split(_BLOCKS)
    values = {
        "gallery": html.escape(gallery),
        "policy": _policy(style, script),
        "style": style,
        "script": script,
        "index": _json(index),
    }
    text = Template(before).substitute(values)
    return BEGINNING + text.encode(), Template(after).substitute(values).encode()


def _part(name: str) -> str:
    return (_PARTS / name).read_text("utf-8")


def _policy(style: str, script: str) -> str:
    """Return the Content-Security-Policy: nothing is loaded, and only this style and this script apply."""
    rules = (
        "default-src 'none'",
        f"script-src {_hash(script)}",
        f"style-src {_hash(style)}",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return "; ".join(rules)


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def block(
    number: int, rows: list[dict[str, Any]], pictures: list[bytes | None], missing: dict[int, str]
) -> bytes:
    """Return a block of the page: rows, with the picture of each, or why it is missing.

    Args:
        number: The block's place, from 0.
        rows: What is shown of each row.
        pictures: A WebP for each row, or None.
        missing: Why there is no picture where there should be one, by the row's place in the block.
    """
    encoded = [each and base64.b64encode(each).decode() for each in pictures]
    data = _json({"rows": rows, "pictures": encoded, "missing": missing})
    return f'<script type="application/json" id="block-{number}">{data}</script>\n'.encode()


def _json(value: Any) -> str:
    """Return a value as JSON in ASCII, which also escapes U+2028 and surrogates without a partner."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).translate(_IN_SCRIPT)
