"""Normalise the name and the URL of a licence to one identifier, or to none where it cannot be told.

The identifiers are those of SPDX (`CC-BY-SA-4.0`, `CC-PDM-1.0`, `GFDL-1.2-or-later`), the same pattern for
the ports of Creative Commons that SPDX does not list (`CC-BY-SA-2.5-ES`), and the end of the URL of a
statement of RightsStatements.org (`rightsstatements:InC/1.0`). What is only called public domain is
`PUBLIC_DOMAIN`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache, reduce

PUBLIC_DOMAIN = "LicenseRef-public-domain"
"""Said to be in the public domain, without a mark or dedication that has an identifier of its own."""

MOST_CHARS = 1_000
"""A longer text is not read: it is no name, and no URL of a known licence."""

_CC = ("by", "by-nc", "by-nc-nd", "by-nc-sa", "by-nd", "by-sa", "nc", "nc-nd", "nc-sa", "nd", "sa")
"""The licences of Creative Commons, their parts in the order in which SPDX has them."""

_MARKS = {"zero": "CC0-1.0", "mark": "CC-PDM-1.0", "certification": "CC-PDDC", "publicdomain": "CC-PDDC"}
"""The other tools of Creative Commons, by their names in URLs. There was only ever one version of each."""

_PORTS = {
    "1.0": "fi il nl",
    "2.0": "at au be br ca cl de es fr hr it jp kr nl pl tw uk za",
    "2.1": "au es jp",
    "2.5": "ar au bg br ca ch cn co dk es hr hu il in it mk mt mx my nl pe pl pt scotland se si tw za",
    "3.0": "am at au az br ca ch cl cn cr cz de ec ee eg es fr ge gr gt hk hr ie igo it lu nl no nz ph pl pr "
    "pt ro rs sg th tw ug us ve vn",
    "4.0": "",
}
"""The jurisdictions to which Creative Commons ported each version of its licences."""

_PORTS_OF = {version: frozenset(ports.split()) for version, ports in _PORTS.items()}

_STATEMENTS = {
    "InC": "In Copyright",
    "InC-OW-EU": "In Copyright - EU Orphan Work",
    "InC-EDU": "In Copyright - Educational Use Permitted",
    "InC-NC": "In Copyright - Non-Commercial Use Permitted",
    "InC-RUU": "In Copyright - Rights-holder(s) Unlocatable or Unidentifiable",
    "NoC-CR": "No Copyright - Contractual Restrictions",
    "NoC-NC": "No Copyright - Non-Commercial Use Only",
    "NoC-OKLR": "No Copyright - Other Known Legal Restrictions",
    "NoC-US": "No Copyright - United States",
    "CNE": "Copyright Not Evaluated",
    "UND": "Copyright Undetermined",
    "NKC": "No Known Copyright",
}
"""The statements of RightsStatements.org. There was only ever one version of each."""

_SPDX = """
    0BSD AGPL-3.0-only AGPL-3.0-or-later Apache-2.0 Artistic-2.0 BSD-2-Clause BSD-3-Clause Beerware
    C-UDA-1.0 CC-PDDC CDLA-Permissive-1.0 CDLA-Permissive-2.0 CDLA-Sharing-1.0 DL-DE-BY-2.0
    DL-DE-ZERO-2.0 GFDL-1.1-only GFDL-1.1-or-later GFDL-1.2-only GFDL-1.2-or-later GFDL-1.3-only
    GFDL-1.3-or-later GPL-1.0-only GPL-1.0-or-later GPL-2.0-only GPL-2.0-or-later GPL-3.0-only
    GPL-3.0-or-later ISC LAL-1.2 LAL-1.3 LGPL-2.0-only LGPL-2.0-or-later LGPL-2.1-only
    LGPL-2.1-or-later LGPL-3.0-only LGPL-3.0-or-later MIT MIT-0 MPL-1.1 MPL-2.0 NLOD-1.0 NLOD-2.0
    ODC-By-1.0 ODbL-1.0 OFL-1.1 OGL-Canada-2.0 OGL-UK-1.0 OGL-UK-2.0 OGL-UK-3.0 PDDL-1.0 Unlicense
    WTFPL Zlib etalab-2.0
""".split()  # noqa: SIM905 - one a line would be fifty lines
"""The identifiers of SPDX that images carry, besides those of Creative Commons' licences."""

_ALIASES = {
    "Free Art 1.3": "LAL-1.3",
    "Licence Art Libre 1.3": "LAL-1.3",
    "FAL 1.3": "LAL-1.3",
    "FAL 1.2": "LAL-1.2",
    "Apache License, Version 2.0": "Apache-2.0",
    "Mozilla Public License 2.0": "MPL-2.0",
    "Open Database License 1.0": "ODbL-1.0",
    "ODC-ODbL-1.0": "ODbL-1.0",
    "Open Data Commons Open Database License 1.0": "ODbL-1.0",
    "Open Data Commons Attribution License 1.0": "ODC-By-1.0",
    "SIL Open Font License 1.1": "OFL-1.1",
    "dl-de/by-2-0": "DL-DE-BY-2.0",
    "dl-de/zero-2-0": "DL-DE-ZERO-2.0",
    "Licence Ouverte 2.0": "etalab-2.0",
    "Licence Ouverte / Open Licence 2.0": "etalab-2.0",
    "OGL 3": "OGL-UK-3.0",
    "Open Government Licence v3.0": "OGL-UK-3.0",
    "UK Open Government Licence v3.0": "OGL-UK-3.0",
    "Open Government Licence 2.0 - Canada": "OGL-Canada-2.0",
    "Open Government Licence - Canada 2.0": "OGL-Canada-2.0",
}
"""Names that mean one identifier of SPDX. `OGL 2` is not among them: there are several."""

_URLS = {
    "apache.org/licenses/license-2.0": "Apache-2.0",
    "nationalarchives.gov.uk/doc/open-government-licence/version/1": "OGL-UK-1.0",
    "nationalarchives.gov.uk/doc/open-government-licence/version/2": "OGL-UK-2.0",
    "nationalarchives.gov.uk/doc/open-government-licence/version/3": "OGL-UK-3.0",
    "open.canada.ca/en/open-government-licence-canada": "OGL-Canada-2.0",
    "govdata.de/dl-de/by-2-0": "DL-DE-BY-2.0",
    "govdata.de/dl-de/zero-2-0": "DL-DE-ZERO-2.0",
    "opendatacommons.org/licenses/odbl/1.0": "ODbL-1.0",
    "opendatacommons.org/licenses/odbl/1-0": "ODbL-1.0",
    "opendatacommons.org/licenses/by/1.0": "ODC-By-1.0",
    "opendatacommons.org/licenses/by/1-0": "ODC-By-1.0",
    "opendatacommons.org/licenses/pddl/1.0": "PDDL-1.0",
    "opendatacommons.org/licenses/pddl/1-0": "PDDL-1.0",
    "data.norge.no/nlod/en/1.0": "NLOD-1.0",
    "data.norge.no/nlod/no/1.0": "NLOD-1.0",
    "data.norge.no/nlod/en/2.0": "NLOD-2.0",
    "data.norge.no/nlod/no/2.0": "NLOD-2.0",
    "unlicense.org": "Unlicense",
}
"""The URLs of other licences, without scheme, `www.` and the ending of a file."""

_NAMED = {
    "international": "",
    "unported": "",
    "generic": "",
    "universal": "",
    "intergovernmental organization": "igo",
    "intergovernmental organizations": "igo",
    "igo": "igo",
    **{code: code for ports in _PORTS_OF.values() for code in ports},
    "argentina": "ar",
    "armenia": "am",
    "australia": "au",
    "austria": "at",
    "azerbaijan": "az",
    "belgium": "be",
    "brazil": "br",
    "brasil": "br",
    "bulgaria": "bg",
    "canada": "ca",
    "chile": "cl",
    "china mainland": "cn",
    "mainland china": "cn",
    "colombia": "co",
    "costa rica": "cr",
    "croatia": "hr",
    "czech republic": "cz",
    "denmark": "dk",
    "deutschland": "de",
    "ecuador": "ec",
    "egypt": "eg",
    "england and wales": "uk",
    "england wales": "uk",
    "uk england and wales": "uk",
    "uk england wales": "uk",
    "united kingdom": "uk",
    "estonia": "ee",
    "finland": "fi",
    "france": "fr",
    "georgia": "ge",
    "germany": "de",
    "greece": "gr",
    "guatemala": "gt",
    "hong kong": "hk",
    "hungary": "hu",
    "india": "in",
    "ireland": "ie",
    "israel": "il",
    "italy": "it",
    "italia": "it",
    "japan": "jp",
    "luxembourg": "lu",
    "macedonia": "mk",
    "malaysia": "my",
    "malta": "mt",
    "mexico": "mx",
    "netherlands": "nl",
    "new zealand": "nz",
    "norway": "no",
    "peru": "pe",
    "philippines": "ph",
    "poland": "pl",
    "portugal": "pt",
    "puerto rico": "pr",
    "romania": "ro",
    "serbia": "rs",
    "singapore": "sg",
    "slovenia": "si",
    "south africa": "za",
    "south korea": "kr",
    "korea": "kr",
    "spain": "es",
    "sweden": "se",
    "switzerland": "ch",
    "taiwan": "tw",
    "thailand": "th",
    "uganda": "ug",
    "united states": "us",
    "venezuela": "ve",
    "vietnam": "vn",
    "uk scotland": "scotland",
}
"""What may follow the version of a Creative Commons licence, and the port that it names."""

_NAMED_WORDS = max(len(each.split()) for each in _NAMED)


@dataclass(frozen=True, slots=True)
class _Said:
    """What a text says about a licence, which may leave something open.

    Args:
        code: One of `_CC`, another identifier as a whole, or "" where every licence is ruled out.
        versions: The versions that it offers; empty if it names none.
        port: The jurisdiction; "" if it names none.
    """

    code: str
    versions: frozenset[str] = frozenset()
    port: str = ""

    def and_also(self, other: "_Said") -> "_Said":
        """Return what both say together; no licence is left where they contradict each other."""
        for general, special in ((self, other), (other, self)):
            if general.code == PUBLIC_DOMAIN and special.code in _PUBLIC_DOMAIN_CODES:
                return special
        versions = self.versions & other.versions or (
            frozenset() if self.versions and other.versions else self.versions | other.versions
        )
        contradict = (
            self.code != other.code
            or (not versions and bool(self.versions or other.versions))
            or (self.port and other.port and self.port != other.port)
        )
        return _NO_LICENSE if contradict else _Said(self.code, versions, self.port or other.port)

    @property
    def id(self) -> str | None:
        """The identifier, if exactly one licence is meant."""
        if self.code not in _CC:
            return self.code if self.code and self.versions <= {"1.0"} and not self.port else None
        if len(self.versions) != 1:
            return None
        (version,) = self.versions
        ports = _PORTS_OF.get(version)
        has_this_version = version == "1.0" or self.code.startswith("by")
        if ports is None or not has_this_version or (self.port and self.port not in ports):
            return None
        if version == "2.1" and not self.port:  # it was only published as ports
            return None
        return "-".join(each for each in ("CC", self.code.upper(), version, self.port.upper()) if each)


_NO_LICENSE = _Said("")

_PUBLIC_DOMAIN_CODES = frozenset(
    (
        *("CC0-1.0", "CC-PDM-1.0", "CC-PDDC", "PDDL-1.0", "Unlicense"),
        *(f"rightsstatements:{name}/1.0" for name in _STATEMENTS if name.startswith("NoC")),
    )
)
"""What may be called "public domain" in short."""


def license_id(license_name: str | None, license_url: str | None) -> str | None:
    """Return the identifier of a licence by its name and its URL, of which the more exact one counts.

    Returns:
        None if neither is known, if they do not say which version it is, or if they contradict each other.
    """
    return first_license_id((license_name, license_url))


def first_license_id(*said: tuple[str | None, str | None]) -> str | None:
    """Return the identifier by several pairs of name and URL, those of most weight first.

    A later pair counts if those before say nothing that is understood, or if it completes what they leave
    open, such as the version.
    """
    return _first_id(tuple((_bounded(name), _bounded(url)) for name, url in said))


def _bounded(text: str | None) -> str:
    """Return a text as it is read; "" where it is too long, or not a text, which JSON may have here."""
    return text.strip() if isinstance(text, str) and len(text) <= MOST_CHARS else ""


@lru_cache(maxsize=2_000)
def _first_id(said: tuple[tuple[str, str], ...]) -> str | None:
    so_far: _Said | None = None
    for texts in said:
        so_far = _together([so_far, *map(_read, texts)])
        if so_far and (so_far.id or so_far == _NO_LICENSE):
            break
    return so_far.id if so_far else None


def _together(said: Iterable[_Said | None]) -> _Said | None:
    understood = [each for each in said if each]
    return reduce(_Said.and_also, understood) if understood else None


def _read(text: str) -> _Said | None:
    """Return what a name or a URL says; None if it is not understood."""
    return _of_name(text) if _SPACE.search(text) else _of_url(text) or _of_name(text)


_SPACE = re.compile(r"\s")

_BEFORE_HOST = re.compile(r"(https?:)?(//)?(www\.)?")
_FILE_ENDING = re.compile(r"\.(html?|json|php|txt|rdf)$")
_CC_URL = re.compile(
    r"creativecommons\.org/(?:licenses|publicdomain)/([a-z-]+)(?:/(\d\.\d))?"
    r"(?:/(?!deed|legalcode|rdf)([a-z]+))?(?:/(?:deed|legalcode|rdf)[\w.-]*)?"
)
_STATEMENT_URL = re.compile(r"rightsstatements\.org/(?:vocab|page|data)/([a-z-]+)/1\.0")
_LIST_URL = re.compile(
    r"(?:spdx\.org/licenses|opensource\.org/licenses?|choosealicense\.com/licenses)/([\w.+-]+)"
)


def _of_url(url: str) -> _Said | None:
    lower = url.lower()
    start = _BEFORE_HOST.match(lower)
    path = re.split(r"[?#]", lower[start.end() if start else 0 :], maxsplit=1)[0].rstrip("/.,;")
    if found := _CC_URL.fullmatch(path):
        name, version, port = found.groups(default="")
        code = _MARKS.get(name) or _ordered(name.split("-"))
        is_us = name == "certification" and port == "us"
        return _Said(code, frozenset({version} if version else ()), "" if is_us else port) if code else None
    if found := _STATEMENT_URL.fullmatch(path):
        return _STATEMENT_OF.get(found[1])
    path = _FILE_ENDING.sub("", path)
    if found := _LIST_URL.fullmatch(path):
        return _of_name(found[1])
    known = _URLS.get(path)
    return _Said(known) if known else None


def _ordered(parts: list[str]) -> str:
    """Return the code of the licence with these parts, in whichever order; "" if there is none."""
    code = "-".join(sorted(parts))  # by, nc, nd, sa: the alphabet's order is that of SPDX
    return code if code in _CC else ""


_PARTS = ("by", "nc", "nd", "sa")

_URL_IN_TEXT = re.compile(r"(?:\b(?:at|see|visit)\s)?\s?(https?://[^\s<>()\[\]\"']+)", re.IGNORECASE)
_ALL_RESERVED = re.compile(
    r"\b(all rights reserved|alle rechte vorbehalten|tous droits r[ée]serv[ée]s|"
    r"todos los derechos reservados)\b"
)
_BOILERPLATE = re.compile(
    r"to view a copy of (?:this|the) licen[cs]e,? ?(?:please )?(?:go to|see|visit)?[ ,]*"
    r"(?:or send a letter to creative commons,[a-z0-9, ]*(?:\.|$))?"
)
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212_"), "-")
_WORD = re.compile(r"[^\W\d_]+|\d+(?:\.\d+)*\+?|[^\s\w]")
_SEPARATORS = frozenset("-/,.:;()[]|&'\"")

_PHRASES = (
    ("creative commons", "cc"),
    ("public domain mark", "pdm"),
    ("public domain dedication", "pd"),
    ("public domain", "pd"),
    ("non commercial", "nc"),
    ("noncommercial", "nc"),
    ("share alike", "sa"),
    ("sharealike", "sa"),
    ("no derivative works", "nd"),
    ("no derivatives", "nd"),
    ("no derivs", "nd"),
    ("noderivatives", "nd"),
    ("noderivs", "nd"),
    ("attribution", "by"),
    ("ccby", "cc by"),
    ("cc 0", "cc0"),
    ("cc zero", "cc0"),
    ("cc cc0", "cc0"),
    ("gnu", ""),
    ("free documentation license", "gfdl"),
    ("fdl", "gfdl"),
    ("affero general public license", "agpl"),
    ("lesser general public license", "lgpl"),
    ("general public license", "gpl"),
    ("gplv", "gpl"),
    ("lgplv", "lgpl"),
    ("agplv", "agpl"),
    ("only version", "version"),
    ("or any later version", "or later"),
    ("or later version", "or later"),
    ("or newer", "or later"),
)
"""What is replaced in a name, in this order, so that each part of a licence has one word."""

_IDLE = frozenset(
    (
        *"a an the this that work image photo photograph picture file media item is are available".split(),  # noqa: SIM905
        *"licensed licenced released published license licence licenses under of terms v ver version".split(),  # noqa: SIM905
        *"migrated deed public".split(),  # noqa: SIM905
    )
)
"""Words that say nothing of which licence is meant. Every other unknown word makes a name unreadable: it may
be a "not" or an "except"."""


def _words(name: str) -> list[str]:
    """Return the words of a name in lower case, each part of a licence by its short name."""
    words = [each for each in _WORD.findall(name.lower().translate(_DASHES)) if each not in _SEPARATORS]
    text = f" {' '.join(words).replace('licence', 'license').replace('+', ' or later')} "
    for phrase, short in _PHRASES:
        text = text.replace(f" {phrase} ", f" {short} ")
    return [f"{each}.0" if each.isdecimal() else each for each in text.split() if each not in _IDLE]


_NAMES = {
    " ".join(_words(name)): code
    for name, code in (
        *(
            (f"rightsstatements.org {name}", f"rightsstatements:{code}/1.0")
            for code, name in _STATEMENTS.items()
        ),
        *((name, f"rightsstatements:{code}/1.0") for code, name in _STATEMENTS.items()),
        *((code.removesuffix("-only"), code) for code in _SPDX),
        *((code, code) for code in _SPDX),
        *_ALIASES.items(),
    )
}
"""All names that are known as a whole, as their words."""

_STATEMENT_OF = {code.lower(): _Said(f"rightsstatements:{code}/1.0") for code in _STATEMENTS}
_OWN_ID = re.compile(r"rightsstatements:([a-z-]+)/1\.0", re.IGNORECASE)
_VERSION = re.compile(r"\d\.\d")
_STARTS = ("cc", "cc0", "pdm", "pd")
_WHOLE = {"cc0": _Said("CC0-1.0"), "pdm": _Said("CC-PDM-1.0"), "pd": _Said(PUBLIC_DOMAIN)}


def _of_name(name: str) -> _Said | None:
    """Return what a name says, or a sentence that has one; None if it has a word that is not understood."""
    if found := _OWN_ID.fullmatch(name):
        return _STATEMENT_OF.get(found[1].lower())
    if name == PUBLIC_DOMAIN:
        return _Said(PUBLIC_DOMAIN)
    if _ALL_RESERVED.search(name.lower()):
        return _NO_LICENSE
    urls = [_of_url(found) for found in _URL_IN_TEXT.findall(name)]
    rest = _BOILERPLATE.sub(" ", " ".join(_URL_IN_TEXT.sub(" ", name).lower().split()))
    words = _words(rest)
    whole = _NAMES.get(" ".join(words))
    mentions = [_Said(whole)] if whole else _mentions(words)
    if mentions is None:
        return None
    found_in_name = _together([*mentions, *urls])
    return found_in_name if found_in_name and found_in_name.code else None


def _mentions(words: list[str]) -> list[_Said] | None:
    """Return what each mention of a Creative Commons licence says; None if there is any other word."""
    said = []
    at = 0
    while at < len(words):
        if words[at] == "cc":
            at += 1
            continue
        start = at
        while at < len(words) and words[at] in _PARTS:
            at += 1
        code = _ordered(words[start:at])
        if at == start and words[at] in _WHOLE:
            code = _WHOLE[words[at]].code
            at += 1
        if not code:
            return None
        first_version = at
        while at < len(words) and _VERSION.fullmatch(words[at]):
            at += 1
        versions = frozenset(words[first_version:at])
        port = ""
        for count in range(min(_NAMED_WORDS, len(words) - at), 0, -1):
            named = " ".join(words[at : at + count])
            is_at_end = at + count == len(words) or words[at + count] in _STARTS
            if named in _NAMED and (is_at_end or len(named) > 3):  # "no", "at" and "in" are words, too
                port, at = _NAMED[named], at + count
                break
        said.append(_Said(code, versions, port))
    return said
