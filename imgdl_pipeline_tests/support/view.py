"""Read a gallery's page as a browser does."""

import json
import re
from html.parser import HTMLParser
from typing import Any

HOSTILE = [
    "</script><img src=x onerror=\"document.title='owned'\">",
    "<!--<script>",
    '"><svg onload=alert(1)>',
    "&lt;b&gt; & 'quoted' \"twice\"",
    "a\u2028b\u2029c",
    "\u202egpj.exe\u202c",
    "]]></style><style>*{display:none}</style>",
    "{{constructor}} ${1} $index",
    "nul \u0000 escape \u001b[31m",
]
"""Text that would be something else than text in a careless page."""


class Page(HTMLParser):
    """The elements of a page, and what is in its blocks of data."""

    def __init__(self, html: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._open: str | None = None
        self.feed(html.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open = dict(attrs).get("id") or tag

    def handle_endtag(self, tag: str) -> None:
        self._open = None

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.texts[self._open] = self.texts.get(self._open, "") + data

    @property
    def policy(self) -> str:
        [policy] = [known["content"] for _, known in self.tags if known.get("http-equiv")]
        return policy or ""

    @property
    def index(self) -> dict[str, Any]:
        return json.loads(self.texts["index"])

    @property
    def blocks(self) -> list[dict[str, Any]]:
        names = [name for name in self.texts if re.fullmatch(r"block-\d+", name)]
        return [json.loads(self.texts[name]) for name in names]
