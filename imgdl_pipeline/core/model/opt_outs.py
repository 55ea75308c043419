"""What owners say against the use of their images, and what of it forbids a gallery's purpose.

PLUS Data Mining in XMP is that of the IPTC Photo Metadata Standard 2023.1. The signals outside of files are
read in `core/http/opt_outs.py`.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

HEADER, ROBOTS, TDMREP, FILE = "header", "robots.txt", "tdmrep.json", "file"
"""The places in which an owner can opt out."""

_PLACES = {HEADER: "a header", FILE: "the file"}

MAX_OPT_OUTS = 32
"""What is kept for one link. There are 11 different values without those that only files have."""

MAX_VALUE_CHARS = 200
"""What is kept of a value."""

PROHIBITED = "DMI-PROHIBITED"
"""How every term of data mining begins that prohibits something."""

_TRAINING = frozenset({"ai_training"})
_TRAINING_AND_SEARCH = frozenset({"ai_training", "search"})

FORBIDS: dict[str, dict[str, frozenset[str]]] = {
    "x-robots-tag": {
        **dict.fromkeys(("noai", "noimageai", "noml"), _TRAINING),
        **dict.fromkeys(("noindex", "noimageindex", "none"), _TRAINING_AND_SEARCH),
    },
    "tdm-reservation": {"1": _TRAINING},
    "content-usage": {"train-ai=n": _TRAINING, "search=n": frozenset({"search"})},
    "data-mining": {PROHIBITED: _TRAINING_AND_SEARCH},
}
"""What each signal's values forbid, as in the contract's table. Any other value forbids nothing, except that
every other `DMI-PROHIBITED-…` forbids training."""


@dataclass(frozen=True, slots=True)
class OptOut:
    """One thing that an owner says against a use.

    Args:
        signal: The kind of the signal, such as `x-robots-tag`.
        value: What it says, such as `noai`, in the one spelling that stands for all.
        where: The place that it was read from: `HEADER`, `ROBOTS`, `TDMREP` or `FILE`.
        forbids: The purposes that it forbids. It may be none of those that a gallery can have.
    """

    signal: str
    value: str
    where: str
    forbids: frozenset[str]

    def words(self, purpose: str) -> str:
        """Return a sentence for the row of a link that this refuses."""
        return f"{self.signal} in {_PLACES.get(self.where, self.where)} says {self.value}: no {purpose}"

    @staticmethod
    def of(signal: str, value: str, where: str) -> "OptOut":
        """Return an opt-out, with the purposes that the table gives for it."""
        return OptOut(signal, value, where, forbidden_purposes(signal, value))


def forbidden_purposes(signal: str, value: str) -> frozenset[str]:
    """Return the purposes that a signal's value forbids; none for what is not in the table."""
    if signal == "data-mining" and value.startswith(f"{PROHIBITED}-"):
        return _TRAINING
    return FORBIDS.get(signal, {}).get(value, frozenset())


def forbidden_for(purpose: str, opt_outs: Iterable[OptOut]) -> OptOut | None:
    """Return the first opt-out that forbids a purpose, or None. Nothing here forbids preservation."""
    return next((each for each in opt_outs if purpose in each.forbids), None)


def renewed(before: Iterable[OptOut], now: Iterable[OptOut], heard: Collection[str]) -> list[OptOut]:
    """Return a link's opt-outs after some places were read again; those of the other places stay.

    A 304 without any of the headers does not count as having read `HEADER`, because it may leave them out.
    """
    return limited([*(each for each in before if each.where not in heard), *now])


def to_json(opt_outs: Iterable[OptOut]) -> str:
    """Return the text for the column `opt_outs`."""
    objects = [{"signal": each.signal, "value": each.value, "where": each.where} for each in opt_outs]
    return json.dumps(objects, ensure_ascii=False)


def from_json(text: str | None) -> list[OptOut]:
    """Return the opt-outs in the column `opt_outs`, judged by today's table; none for null, as in old files.

    Raises:
        ValueError: The text is something else.
    """
    objects = json.loads(text or "[]")
    try:
        return [OptOut.of(str(each["signal"]), str(each["value"]), str(each["where"])) for each in objects]
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a list of opt-outs: {text!r:.100}") from error


def limited(found: Iterable[OptOut]) -> list[OptOut]:
    """Return the distinct opt-outs, `MAX_OPT_OUTS` at most."""
    return list(dict.fromkeys(found))[:MAX_OPT_OUTS]


# In the file


_LABELS = {
    "prohibited": "DMI-PROHIBITED",
    "prohibited for ai/ml training": "DMI-PROHIBITED-AIMLTRAINING",
    "prohibited for generative ai/ml training": "DMI-PROHIBITED-GENAIMLTRAINING",
    "prohibited except for search engine indexing": "DMI-PROHIBITED-EXCEPTSEARCHENGINEINDEXING",
}
"""The vocabulary's labels, which some programs write in place of its identifiers."""


def from_embedded(embedded: Mapping[str, Any]) -> list[OptOut]:
    """Return the opt-outs in a file's metadata.

    Args:
        embedded: The catalog's `embedded`. Its `data_mining` is the PLUS property, as an identifier of the
            vocabulary or as its last part, or a list of them.
    """
    given = embedded.get("data_mining")
    return limited(
        OptOut.of("data-mining", term, FILE)
        for each in ([given] if isinstance(given, str) else given if isinstance(given, list) else ())
        if isinstance(each, str) and (term := data_mining_term(each[:1_000])).startswith(PROHIBITED)
    )


def data_mining_term(value: str) -> str:
    """Return a vocabulary term in upper case. Terms that are misspelled after DMI-PROHIBITED are common."""
    label = _LABELS.get(" ".join(value.split()).lower())
    term = re.split("[/:#]", value.strip().rstrip("/"))[-1].upper()
    return label or "".join(char for char in term if char.isprintable())[:MAX_VALUE_CHARS]
