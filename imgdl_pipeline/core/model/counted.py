"""Say how many things there are, and how far a piece of work is."""

from dataclasses import dataclass


def amount(count: int, one: str) -> str:
    """Return a number of things in words.

    Args:
        count: How many there are.
        one: What one of them is called; several are called the same with an s.
    """
    return f"{count} {one}" if count == 1 else f"{count} {one}s"


@dataclass(frozen=True, slots=True)
class Counted:
    """How many of a number of things are done.

    Args:
        done: How many are done.
        total: How many there are.
        what: What they are and what is done to them, such as `images checked`.
    """

    done: int
    total: int
    what: str

    def __str__(self) -> str:
        return f"{self.done} of {self.total} {self.what}"
