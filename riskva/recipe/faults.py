"""What is wrong with a recipe, and where: faults are collected, so that a user sees all of them at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from riskva.errors import RecipeError

COMMAND_LINE = "command line"


@dataclass(frozen=True)
class Place:
    """A line of a file, the file as a whole (`line` 0), or the command line."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file

    @property
    def sort_key(self) -> tuple[bool, str, int]:
        """Files in the order of their names and lines, the command line last."""
        return (self.file == COMMAND_LINE, self.file, self.line)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: `text` names the key, the fault and the remedy."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


def raise_faults(faults: Iterable[Fault]) -> None:
    """Nothing when there is no fault; else raises one `RecipeError` that lists them all by file and line."""
    ordered = sorted(faults, key=lambda fault: fault.place.sort_key)
    if ordered:
        raise RecipeError("\n".join(dict.fromkeys(str(fault) for fault in ordered)))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean …?` with the nearest of the known names, or nothing when none is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""
