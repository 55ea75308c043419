"""Say how far a piece of work is."""

from dataclasses import dataclass


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
