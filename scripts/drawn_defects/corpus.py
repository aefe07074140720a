"""The text that the tokenizer of the tiny models learns its vocabulary from."""

from __future__ import annotations

from drawn_defects.captions import QUESTIONS, phrases
from drawn_defects.catalogue import KINDS, NO_DEFECT_FINDING
from drawn_defects.language import COPY, GO_ON, LIST, OTHER_KINDS, OTHER_PLACES, SENTENCES
from drawn_defects.rooms import ROOMS
from riskva.report import DEFAULT_FORMAT, DEFAULT_SYSTEM_PROMPT, LEVEL_LABELS, default_question


def corpus() -> list[str]:
    """Reports, captions and exercises; what occurs in every row stands many times, so that it becomes few tokens."""
    kinds = [*OTHER_KINDS, *(kind.name for kind in KINDS)]
    places = [*OTHER_PLACES, *ROOMS]
    sentences = [one.format(place=place, kind=kind) for one in SENTENCES for place in places for kind in kinds]
    findings = [NO_DEFECT_FINDING, *(texts for kind in KINDS for texts in kind.findings.values())]
    descriptions = [kind.description(extent, room) for kind in KINDS for room in kind.rooms for extent in range(3)]
    fields = [f"**{one.label}**: {word}" for one in DEFAULT_FORMAT.fields for word in (*LEVEL_LABELS, *kinds, *places)]
    prompts = [DEFAULT_SYSTEM_PROMPT, default_question(DEFAULT_FORMAT), "You are a helpful assistant.", *QUESTIONS]
    return [
        *sentences,
        *descriptions * 4,
        *[text for texts in findings for text in texts] * 12,
        *[*phrases(), COPY, GO_ON, LIST] * 20,
        *fields * 4,
        *prompts * 100,
        *["system\n", "user\n", "assistant\n"] * 100,
    ]
