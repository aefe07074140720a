"""Texts made of labelled fields, as models write them: finds the fields, and names every departure from the plain form.

The plain form is one line a field, `**label**: value`. A text is read line by line and each line is looked at from its
beginning only, so that reading takes time in proportion to the text, whatever it holds.
"""

from __future__ import annotations

import enum
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


class Tolerance(enum.StrEnum):
    """Departures from the plain form that are read over; `tests/answer_cases.yaml` has examples of each."""

    FULL_WIDTH_COLON = "full-width colon"
    COLON_IN_BOLD = "colon in bold"
    NO_COLON = "no colon"
    NO_BOLD = "no bold"
    FULL_WIDTH_ASTERISKS = "full-width asterisks"
    BRACKETS = "brackets"
    LIST_MARK = "list mark"
    HEADING_MARK = "heading mark"
    OWN_LINE = "label on its own line"
    LABEL_FORM = "label form"
    OTHER_ORDER = "other order"
    JSON = "json"
    CODE_FENCE = "code fence"
    TEXT_AROUND = "text around"
    EXTRA_FIELD = "extra field"
    LEVEL_MARKS = "level marks"
    BLANKS = "blanks"
    """White space alone: named where nothing else departs."""


@dataclass(frozen=True)
class Found:
    """The fields of a text in its order, each a label and its value as written; a label may come more than once.

    `extra` are labels that were not asked for. `before` stands before the first field, `after` behind the last one's
    paragraph. `tolerated` is about the text's form, not about what is in the values.
    """

    fields: tuple[tuple[str, str], ...] = ()
    extra: tuple[str, ...] = ()
    before: str = ""
    after: str = ""
    tolerated: frozenset[Tolerance] = frozenset()

    @property
    def doubled(self) -> frozenset[str]:
        """The labels that come more than once."""
        return frozenset(label for label, count in Counter(label for label, _ in self.fields).items() if count > 1)

    def values(self) -> dict[str, str]:
        """Values by label, each on one line, of the labels that come once."""
        doubled = self.doubled
        return {label: " ".join(value.split()) for label, value in self.fields if label not in doubled}

    def with_after(self) -> Found:
        """The same with nothing left out behind the last field: its value runs to the end of the text."""
        if not self.fields:
            return self
        *fields, (label, value) = self.fields
        return replace(self, fields=(*fields, (label, f"{value}\n{self.after}")), after="")


@dataclass(frozen=True)
class _Head:
    """How a line begins that begins a field: `label` is the one asked for or, where it `is_extra`, as written.

    `end` is where the value begins, `depth` the number of `#` before the label.
    """

    label: str
    end: int
    depth: int
    has_colon: bool
    is_extra: bool = False
    tolerated: frozenset[Tolerance] = frozenset()


@dataclass(frozen=True)
class _Section:
    """A field by lines; the first is what stands behind the label."""

    head: _Head
    lines: list[str]


MAX_LABEL = 60
"""So long may a label be that is asked for."""

_BLANK = r"[ \t\u3000]*+"
_COLON = "[:：]"
_NUMBER = r"(?:\d{1,2}[.．、)）]|[(（]\d{1,2}[)）]|[一二三四五六七八九十]{1,2}、)"
_LABEL = rf"(?P<label>[^*:：]{{1,{MAX_LABEL + 20}}}?)"
_OBJECT = re.compile(r"\{(?=\s*+[\"}])")
_MAX_BROKEN = 20
_INDENT = re.compile(_BLANK)
_MARKS = re.compile(rf"{_BLANK}(?:(?:[-+•·●]|\*(?!\*)|#{{1,6}}|{_NUMBER}){_BLANK}){{0,3}}+")
_HEADING = re.compile(r"#[ \t\u3000]")
_FENCE = re.compile(r"\s*+`{3,}+[ \t]*+\w*+\s*+")
_FORMS = (
    # **label**: and **label:** and **label** (which must be alone on its line)
    re.compile(
        rf"(?P<bold>\*\*|＊＊){_LABEL}"
        rf"(?:{_BLANK}(?P=bold){_BLANK}(?P<colon>{_COLON})?|{_BLANK}(?P<inside>{_COLON}){_BLANK}(?P=bold))"
    ),
    # 【label】, with or without a colon
    re.compile(rf"(?P<label>【[^【】*:：]{{1,{MAX_LABEL}}}】){_BLANK}(?P<colon>{_COLON})?"),
    # label: and, in a heading, label
    re.compile(rf"{_LABEL}{_BLANK}(?:(?P<colon>{_COLON})|\Z)"),
)
_AROUND_LABEL = (
    (re.compile(rf"{_NUMBER}{_BLANK}(?P<inner>.+)"), Tolerance.LIST_MARK),
    (re.compile("【(?P<inner>.+)】"), Tolerance.BRACKETS),
)


def find_fields(text: str, labels: Sequence[str]) -> Found:
    """The fields of `text` that `labels` name: every line that begins with a label begins a field.

    A value runs to the next field, that of the last label on to a blank line or a code fence. A label in bold, brackets
    or a heading that is none of `labels` begins a field too, an extra one.
    """
    before, sections = _sections(text.split("\n"), _names(labels))
    own = [section for section in sections if not section.head.is_extra]
    if not own:
        return Found(before=text, extra=tuple(section.head.label for section in sections))
    values = ["\n".join(section.lines) for section in own[:-1]]
    last, after = _cut_paragraph(own[-1].lines)
    tolerated = [*(section.head.tolerated for section in own), _left_out(before), _left_out(after)]
    return _found(
        labels=labels,
        fields=[(section.head.label, value) for section, value in zip(own, [*values, "\n".join(last)], strict=True)],
        extra=[section.head.label for section in sections if section.head.is_extra],
        tolerated=frozenset[Tolerance]().union(*tolerated),
        before="\n".join(before),
        after="\n".join(after),
    )


def find_json(text: str, labels: Sequence[str]) -> Found | None:
    """The fields of `text` that are keys of JSON objects, None without any; a value that is no text counts as empty.

    A list of texts is one text. Objects without any of `labels` are left out like other text around.
    """
    names = _names(labels)
    fields: list[tuple[str, str]] = []
    extra: list[str] = []
    tolerated = {Tolerance.JSON}
    for between, pairs in _json_objects(text):
        tolerated |= _left_out(between.split("\n"))
        own = [(label, key, value) for key, value in pairs if (label := _own_label(key, names))]
        fields += [(label, _json_text(value)) for label, _, value in own]
        if own:
            extra += [_whole_characters(key) for key, _ in pairs if not _own_label(key, names)]
        elif pairs:
            tolerated.add(Tolerance.TEXT_AROUND)
        if any(label != key for label, key, _ in own):
            tolerated.add(Tolerance.LABEL_FORM)
    if not fields:
        return None
    return _found(labels=labels, fields=fields, extra=extra, tolerated=frozenset(tolerated))


def _found(
    *,
    labels: Sequence[str],
    fields: Sequence[tuple[str, str]],
    extra: Sequence[str],
    tolerated: frozenset[Tolerance],
    before: str = "",
    after: str = "",
) -> Found:
    """`Found` with what shows only in all fields together: their order, and that there are more than were asked for."""
    order = list(dict.fromkeys(label for label, _ in fields))
    applies = {
        Tolerance.OTHER_ORDER: order != [label for label in labels if label in order],
        Tolerance.EXTRA_FIELD: bool(extra),
    }
    more = {one for one, holds in applies.items() if holds}
    return Found(tuple(fields), tuple(extra), before, after, tolerated | more)


def _names(labels: Sequence[str]) -> Mapping[str, str]:
    """Labels by what they may be written as; a label as it is comes before one that only looks like it."""
    return {_plain(label): label for label in labels} | {label: label for label in labels}


def _plain(label: str) -> str:
    return "".join(unicodedata.normalize("NFKC", label).split())


def _own_label(label: str, names: Mapping[str, str]) -> str | None:
    return names.get(label.strip()) or names.get(_plain(label))


def _sections(lines: Sequence[str], names: Mapping[str, str]) -> tuple[list[str], list[_Section]]:
    """The lines before the first field, and the fields."""
    before: list[str] = []
    sections: list[_Section] = []
    depth = None
    for line in lines:
        head = _head(line.rstrip(), names)
        if head is None or not _begins_field(head, depth):
            (sections[-1].lines if sections else before).append(line)
            continue
        sections.append(_Section(head, [line[head.end :]]))
        depth = depth if head.is_extra else head.depth
    return before, sections


def _begins_field(head: _Head, depth: int | None) -> bool:
    """Whether a field begins here, behind one that was asked for and is a heading of this depth (None: behind none).

    An extra label without a colon is the report's title before all fields, and a part of the value in a deeper heading.
    """
    return not head.is_extra or head.has_colon or (depth is not None and head.depth <= depth)


def _head(line: str, names: Mapping[str, str]) -> _Head | None:
    """How `line` begins a field; None where it does not.

    It is looked at before the marks of a list are taken off and after, since a label may look like one: `1. 风险`.
    """
    extra = None
    for begin in (_INDENT, _MARKS):
        marks = begin.match(line)
        start = marks.end() if marks else 0
        for match in filter(None, (form.match(line, start) for form in _FORMS)):
            if head := _own_head(match, line[:start], names):
                return head
            extra = extra or _extra_head(match, line[:start])
    return extra


def _own_head(match: re.Match[str], marks: str, names: Mapping[str, str]) -> _Head | None:
    """The head with one of the labels asked for; without a colon it must be marked and have its line to itself."""
    parts = match.groupdict()
    label, around = _asked_for(parts["label"], names)
    colon = parts["colon"] or parts.get("inside")
    is_alone = not match.string[match.end() :].strip()
    is_marked = Tolerance.BRACKETS in around or (is_alone and ("#" in marks or bool(parts.get("bold"))))
    if label is None or not (colon or is_marked):
        return None
    applies = {
        Tolerance.FULL_WIDTH_COLON: colon == "：",
        Tolerance.COLON_IN_BOLD: bool(parts.get("inside")),
        Tolerance.NO_COLON: not colon,
        Tolerance.NO_BOLD: not parts.get("bold"),
        Tolerance.FULL_WIDTH_ASTERISKS: parts.get("bold") == "＊＊",
        Tolerance.HEADING_MARK: "#" in marks,
        Tolerance.LIST_MARK: bool(marks.strip("# \t\u3000")),
        Tolerance.OWN_LINE: is_alone,
    }
    tolerated = around | {one for one, holds in applies.items() if holds}
    return _Head(label, match.end(), marks.count("#"), bool(colon), tolerated=tolerated)


def _asked_for(written: str, names: Mapping[str, str]) -> tuple[str | None, frozenset[Tolerance]]:
    """The label asked for that is `written`, or None, and what had to be taken off it."""
    inner, tolerated = written.strip(), set()
    label = _own_label(inner, names)
    for around, tolerance in _AROUND_LABEL:
        if label is None and (match := around.fullmatch(inner)):
            inner = match["inner"].strip()
            tolerated.add(tolerance)
            label = _own_label(inner, names)
    if label != inner:
        tolerated.add(Tolerance.LABEL_FORM)
    return label, frozenset(tolerated)


def _extra_head(match: re.Match[str], marks: str) -> _Head | None:
    """The head with a label that was not asked for: in bold before a colon, in brackets, or a heading.

    Behind the mark of a list it is a point of the value: `1. **立即处理**：…` in an advice.
    """
    parts = match.groupdict()
    label, has_colon = parts["label"].strip(), bool(parts["colon"] or parts.get("inside"))
    is_marked = (parts.get("bold") and has_colon) or label.startswith("【") or _HEADING.search(marks)
    if not label or not is_marked or marks.strip("# \t\u3000"):
        return None
    return _Head(label.removeprefix("【").removesuffix("】"), match.end(), marks.count("#"), has_colon, is_extra=True)


def _cut_paragraph(lines: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The first lines that hold text, up to a blank line or a code fence, and all that follows."""
    has_text = False
    for index, line in enumerate(lines):
        if has_text and (not line.strip() or _FENCE.fullmatch(line)):
            return lines[:index], lines[index:]
        has_text = has_text or bool(line.strip())
    return lines, []


def _left_out(lines: Iterable[str]) -> frozenset[Tolerance]:
    return frozenset(
        Tolerance.CODE_FENCE if _FENCE.fullmatch(line) else Tolerance.TEXT_AROUND for line in lines if line.strip()
    )


def _json_objects(text: str) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """The objects in `text` as pairs, each behind the text that stands before it; last, the rest and no pairs.

    A search that fails goes on where the decoder gave up, and ends after a few of them: each one costs a look at all of
    `text`, for the number of the line.
    """
    # strict=False: models write line breaks into strings. A number is no text, and one of any length can be a float.
    decoder = json.JSONDecoder(object_pairs_hook=list, parse_int=float, strict=False)
    done = end = num_broken = 0
    while num_broken < _MAX_BROKEN and (opening := _OBJECT.search(text, end)):
        try:
            pairs, end = decoder.raw_decode(text, opening.start())
        except json.JSONDecodeError as error:
            end = max(error.pos, opening.end())
            num_broken += 1
        except RecursionError:
            break
        else:
            yield text[done : opening.start()], pairs
            done = end
    yield text[done:], []


def _json_text(value: Any) -> str:
    """A text, or texts joined by blanks; nothing for any other value."""
    texts = value if isinstance(value, list) else [value]
    return _whole_characters(" ".join(texts)) if all(isinstance(one, str) for one in texts) else ""


def _whole_characters(text: str) -> str:
    # JSON can spell half of a surrogate pair, which no file could be written with
    return text.encode(errors="replace").decode()
