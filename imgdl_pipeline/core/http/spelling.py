"""Spell http and https URLs as they are sent: as browsers do, but with every valid escape left as it is.

All checks use this spelling, and the connection and the request line are made from it, because URL parsers
disagree about backslashes, white space, dots and numeric hosts.
"""

import ipaddress
import re
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

import idna

from imgdl_pipeline.core.model.outcome import FetchError, Reason

DEFAULT_PORTS = {"http": "80", "https": "443"}

_EDGES = "".join(map(chr, range(0x21)))
_BREAKS = str.maketrans("", "", "\t\n\r")
_SURROGATE = re.compile("[\ud800-\udfff]")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_URL = re.compile(r"(https?):[/\\]*([^/\\?#]*)([^?#]*)((?:\?[^#]*)?)", re.IGNORECASE | re.ASCII)
_HOST_PORT = re.compile(r"(\[[^]]*\]|[^:]*)(?::(0*)([0-9]{0,5}))?")

_STRAY = "%(?![0-9A-Fa-f]{2})"
_IN_PATH = re.compile(rf"[^!#-;=@-\]_a-z|~]|{_STRAY}")
"""What browsers escape in a path, and the `%` that begins no escape."""
_IN_QUERY = re.compile(rf"[^!#-;=?-~]|{_STRAY}")
"""What browsers escape in a query, less the apostrophe, which a URL may hold, and with the stray `%`."""
_IN_USERINFO = re.compile(rf"[^!$-.0-9A-Z_a-z~]|{_STRAY}")

_NOT_IN_HOST = re.compile(r"[\0-\x20#%/:<>?@\[\\\]^|\x7f]")
_NUMERIC = re.compile(r"0x[0-9a-f]*|[0-9]+")
_NUMBER = re.compile(r"0x[0-9a-f]*|0[0-7]*|[1-9][0-9]{0,9}")
_MAX_NAME = 255
"""Maximum characters of a host's name outside ASCII; IDNA takes more than linear time."""


URL_CHARS = 16_384
"""The longest link that is asked for. Servers and browsers take no longer ones either."""


def spelled(url: str, base: str = "") -> str:
    """Return a URL as it is sent, without its fragment. Spelling it again changes nothing.

    Args:
        url: The text of a link, or of a reference to be resolved against `base`.
        base: A spelled URL, or empty if `url` is not relative.

    Raises:
        FetchError: `scheme` if this is no http or https URL with a valid host, or longer than `URL_CHARS`.
    """
    _check_length(url)
    text = _SURROGATE.sub("\ufffd", url.strip(_EDGES).translate(_BREAKS))
    parts = _URL.match(_joined(base, text) if base else text)
    if parts is None:
        scheme = _SCHEME.match(text)
        named = f"{scheme[1].lower()}: links are" if scheme else "a link without a scheme is"
        raise FetchError(Reason.SCHEME, f"{named} not fetched, only http and https")
    scheme_name = parts[1].lower()
    try:
        authority = _authority(parts[2], DEFAULT_PORTS[scheme_name])
    except ValueError as error:  # the errors of idna and ipaddress are such, too
        raise FetchError(Reason.SCHEME, f"this is not a valid URL: {error}") from error
    path = without_dots(parts[3].replace("\\", "/")) or "/"
    sent = f"{scheme_name}://{authority}{_escaped(_IN_PATH, path)}{_escaped(_IN_QUERY, parts[4])}"
    _check_length(sent)
    return sent


def _check_length(url: str) -> None:
    if len(url) > URL_CHARS:
        raise FetchError(Reason.SCHEME, f"the link has {len(url)} characters, more than {URL_CHARS}")


def request_target(url: str, *, absolute: bool = False) -> str:
    """Return what a request line names for a spelled URL: path and query, or for a proxy all but userinfo."""
    scheme, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}/{path}" if absolute else f"/{path}"


def escaped_bytes(header: str) -> str:
    """Return a header that was decoded as Latin-1 with its bytes outside ASCII escaped, as browsers do."""
    return quote(header, safe=_ASCII, encoding="latin-1")


_ASCII = "".join(map(chr, range(0x80)))


def _joined(base: str, text: str) -> str:
    """Return a reference as an absolute URL that is not spelled yet."""
    own = base.partition(":")[0]
    scheme = _SCHEME.match(text)
    if scheme and scheme[1].lower() != own:
        return text
    rest = text[scheme.end() :] if scheme else text
    path = re.split("[?#]", rest, maxsplit=1)[0]
    after = rest[len(path) :]
    path = path.replace("\\", "/")
    if path.startswith("//"):
        return f"{own}:{path}{after}"
    page = base.partition("?")[0]
    if path.startswith("/"):
        page = page[: page.index("/", len(own) + len("://"))]
    elif path:
        page = page[: page.rindex("/") + 1]
    elif not after.startswith("?"):
        return base
    return page + path + after


def _escaped(pattern: re.Pattern[str], text: str) -> str:
    return pattern.sub(lambda match: quote_from_bytes(match[0].encode(), safe=""), text)


def without_dots(path: str) -> str:
    """Return a path without its segments `.` and `..`; escaped dots are no such segments."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1:] in (["."], [".."]):
        kept.append("")
    return "".join(f"/{segment}" for segment in kept)


def _authority(text: str, default_port: str) -> str:
    userinfo, _, host_port = text.rpartition("@")
    match = _HOST_PORT.fullmatch(host_port)
    if match is None or int(match[3] or 0) > 65535:
        raise ValueError("its port is not a number from 1 to 65535")
    if match[2] and not match[3]:
        raise ValueError("nobody can listen on port 0")
    name, _, password = (_escaped(_IN_USERINFO, each) for each in userinfo.partition(":"))
    secret = f"{name}:{password}" if password else name
    port = match[3] if match[3] != default_port else ""
    return (f"{secret}@" if secret else "") + _host(match[1]) + (f":{port}" if port else "")


def _host(text: str) -> str:
    if text.startswith("["):
        if "%" in text:  # a zone: it has a meaning on this computer only
            raise ValueError("an address cannot have a zone")
        return f"[{ipaddress.IPv6Address(text[1:-1])}]"
    name = unquote_to_bytes(text).decode("utf-8", "replace") if "%" in text else text
    name = name.lower() if name.isascii() else _ascii_name(name)
    name = name.rstrip(".")  # urllib3 does so on connecting
    if not name:
        raise ValueError("it names no host")
    if wrong := _NOT_IN_HOST.search(name):
        raise ValueError(f"a host's name cannot hold {wrong[0]!r}")
    return _ipv4(name) if _NUMERIC.fullmatch(name.rpartition(".")[2]) else name


def _ascii_name(name: str) -> str:
    """Return a host's name in ASCII (UTS 46). Unlike IDNA 2008, browsers allow symbols."""
    if len(name) > _MAX_NAME:
        raise ValueError("its host's name is too long")
    labels = idna.uts46_remap(name, std3_rules=False).split(".")
    return ".".join(each if each.isascii() else f"xn--{each.encode('punycode').decode()}" for each in labels)


def _ipv4(name: str) -> str:
    """Return the address for a host whose last part is a number; numbers may be octal, hexadecimal or few."""
    parts = name.split(".")
    if len(parts) > 4 or not all(map(_NUMBER.fullmatch, parts)):
        raise ValueError("its host looks like an address but is none")
    *high, low = map(_number, parts)
    if max(high, default=0) > 255 or low >= 256 ** (4 - len(high)):
        raise ValueError("its host looks like an address but is none")
    return str(ipaddress.IPv4Address(sum(n << (24 - 8 * place) for place, n in enumerate(high)) + low))


def _number(part: str) -> int:
    if part.startswith("0x"):
        return int(part[2:] or "0", 16)
    return int(part, 8 if part.startswith("0") else 10)
