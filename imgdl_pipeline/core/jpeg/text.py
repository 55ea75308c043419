"""Cleans the texts that a file holds about itself."""

MAX_CHARS = 1_000
"""A longer text is cut: it is a caption, not a payload."""


def clean(text: str) -> str:
    """Return a text up to its first NUL, cut to `MAX_CHARS`, without lone surrogates and trailing blanks."""
    whole = text.partition("\0")[0][:MAX_CHARS]
    return whole.encode("utf-8", "replace").decode().rstrip()


def utf8_or_latin1(data: bytes) -> str:
    """Decode bytes of which nobody says what they are: UTF-8 where they are valid UTF-8, else Latin-1."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
