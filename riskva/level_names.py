"""What tables call the three levels of risk: a written table of wordings, and nothing beyond it.

| in the table                                              | level |
|-----------------------------------------------------------|-------|
| 轻, 轻度, 较轻, 轻微缺陷                                  | 轻微  |
| 中, 中度, 一般, 一般缺陷, 中等缺陷                        | 中等  |
| 重, 重度, 重大, 较严重, 严重缺陷                          | 严重  |
| a code and a separator before any of these or the levels: | the   |
| `B-轻微`, `A、严重`, `1-轻微`, `二、一般`, `Ⅲ：严重`      | same  |

A recipe's `level_names` adds to the table, and takes out of it. Wordings are compared in Unicode's NFKC form, in which
full-width letters and marks are the plain ones, and without white space. Any other wording is an error: a level is
never guessed. Models' answers are judged by `RiskLevel.from_label`, which knows the three words only.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

from riskva.errors import RecipeError, UnknownLevelError
from riskva.report import LEVEL_LABELS, RiskLevel

_BUILT_IN = {
    RiskLevel.MINOR: ("轻", "轻度", "较轻", "轻微缺陷"),
    RiskLevel.MODERATE: ("中", "中度", "一般", "一般缺陷", "中等缺陷"),
    RiskLevel.SEVERE: ("重", "重度", "重大", "较严重", "严重缺陷"),
}
_WORDS = dict(zip(LEVEL_LABELS, RiskLevel, strict=True))

# One letter or number, Chinese and Roman ones too (those have characters of their own, which are letters in NFKC), and
# what parts it from the word.
_CODE = re.compile(r"(?:[A-Za-z]|[IVXivx]{1,4}|\d{1,2}|[一二三四五六七八九十]{1,2})[-–—_.、,:)]+(?P<word>.+)")


@dataclass(frozen=True)
class LevelNames:
    """What wordings stand for; keys are normalised, and None marks a wording that must not be understood."""

    names: Mapping[str, RiskLevel | None]

    def level(self, text: str) -> tuple[RiskLevel, str | None]:
        """The level that `text` names, and the stripped text itself where that is not just one of the three words.

        White space around a word is no wording of its own; white space inside and full-width forms are. Raises
        `UnknownLevelError` for a wording that is not in the table.
        """
        written = text.strip()
        if written in _WORDS:
            return _WORDS[written], None
        level = self._find(_normal(written))
        if level is None:
            raise UnknownLevelError(
                f"unknown risk level {text!r}: expected one of {', '.join(LEVEL_LABELS)}; "
                "say what other words mean with level_names"
            )
        return level, written

    def _find(self, word: str) -> RiskLevel | None:
        if word in self.names:
            return self.names[word]
        code = _CODE.fullmatch(word)
        return self.names.get(code["word"]) if code else None


def _normal(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())


DEFAULT_LEVEL_NAMES = LevelNames(_WORDS | {word: level for level, words in _BUILT_IN.items() for word in words})


def level_names_from(mapping: Mapping[str, str | None]) -> LevelNames:
    """The built-in wordings with a recipe's `level_names` on top: a wording, and the level it means or null.

    Null takes a wording out that would be understood otherwise. Raises `RecipeError` for a level that is none of the
    three words, for null where there is nothing to take out, for one of the three words given another meaning, and for
    a wording that stands twice.
    """
    names: dict[str, RiskLevel | None] = {}
    for wording, label in mapping.items():
        word = _normal(wording)
        if not word:
            raise RecipeError("level_names: a wording is empty; an empty cell has no level")
        if word in names:
            raise RecipeError(f"level_names: {wording!r} stands twice, white space and full-width forms aside")
        names[word] = _meaning(wording, word, label)
    return LevelNames({**DEFAULT_LEVEL_NAMES.names, **names})


def _meaning(wording: str, word: str, label: str | None) -> RiskLevel | None:
    level = None if label is None else _level(wording, label)
    if word in _WORDS and level is not _WORDS[word]:
        raise RecipeError(f"level_names: {wording!r} is one of the three levels and means just that; remove the line")
    if label is None and DEFAULT_LEVEL_NAMES._find(word) is None:
        nearest = difflib.get_close_matches(word, DEFAULT_LEVEL_NAMES.names, n=1)
        near = f" (nearest: {nearest[0]})" if nearest else ""
        raise RecipeError(f"level_names: {wording!r} is no built-in wording{near}; null takes out built-in ones only")
    return level


def _level(wording: str, label: str) -> RiskLevel:
    try:
        return RiskLevel.from_label(label)
    except UnknownLevelError as error:
        raise RecipeError(f"level_names: {wording!r}: {error}") from error
