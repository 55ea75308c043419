"""Make text fit to be shown: in an error, a log line or metadata, which people and databases keep.

All URLs pass through `hide_secrets`, and all text of strangers through `shown`. Both take linear time.
"""

import re
from collections.abc import Iterable

SHOWN_CHARS = 500
"""Maximum length of a shown text; longer ones are cut, because strangers control some of them."""

HIDDEN_CHARS = 200_000
"""The most characters of a text in which secrets are looked for before it is cut."""

_USERINFO = re.compile(r"([/\\]{2}|\bhttps?:(?![/\\]))[^/\\?#\s@]*(?:@[^/\\?#\s@]*)*@", re.IGNORECASE)
_PARAMETER = re.compile(r"([?&;#]|\\u0026)([^=&#?;\s\\]{1,100})=([^&#;?\s\"'<>\\]+)")

_SECRET_NAME = re.compile(
    r"key|token|secret|sig|passw|passphrase|pwd|auth|credential|sess|jwt|hmac|policy"
    r"|(^|[_-])(code|sid|pass|pw|otp|pin)$",
    re.IGNORECASE,
)
"""Names of parameters that hold secrets, as in `X-Amz-Signature`, `access_token`, `sig` and `code`."""

_RANDOM = re.compile(r"(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9_~.+/=%-]{20,}")
_ESCAPE = re.compile("%[0-9A-Fa-f]{2}")
"""A long value of letters and digits, as keys are; it is hidden whatever its parameter is called."""


_HEADER = re.compile(
    r"((?:authorization|cookie|api-key|auth-token)[\"']?[ \t]{0,9}:[ \t]{0,9})[^\r\n,}]+", re.IGNORECASE
)
_SCHEME = re.compile(r"\b(Bearer|Basic|Client-ID) +[^\s\"',}]+", re.IGNORECASE)
"""Headers with a secret, which servers and programs may repeat."""

_JSON_VALUE = re.compile(r'("([^"\s]{1,100})"[ \t]{0,9}:[ \t]{0,9}")([^"\r\n]+)"')


def hide_secrets(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text without the user names, passwords, keys and signatures in its URLs.

    Args:
        text: Any text, including messages of servers, which may repeat what they were sent.
        secrets: Further secrets to remove.
    """
    for secret in filter(None, secrets):
        text = text.replace(secret, "…")
    text = _HEADER.sub(r"\1…", _SCHEME.sub(r"\1 …", _USERINFO.sub(r"\1…@", text)))
    return _PARAMETER.sub(_without_value, _JSON_VALUE.sub(_without_json_value, text))


def _without_json_value(match: re.Match[str]) -> str:
    before, name, value = match.groups()
    is_secret = name.lower() != "code" and _SECRET_NAME.search(name)  # APIs name their errors so
    return f'{before}…"' if is_secret or _RANDOM.fullmatch(value) else match[0]


def _without_value(match: re.Match[str]) -> str:
    before, name, value = match.groups()
    is_secret = _SECRET_NAME.search(name) or _RANDOM.fullmatch(_ESCAPE.sub("", value))
    return f"{before}{name}=…" if is_secret else match[0]


def one_line(text: str, chars: int = SHOWN_CHARS) -> str:
    """Return a stranger's text as one line without control characters, cut to a number of characters."""
    return "".join(each if each.isprintable() else " " for each in text[:chars])


def shown(text: str, chars: int = SHOWN_CHARS) -> str:
    """Return a stranger's text as one short line without secrets."""
    return one_line(hide_secrets(text[:HIDDEN_CHARS]), chars)
