"""Whether an answer names the right thing (a kind of defect, a room), and whether it denies it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from riskva.report import RiskReport
from riskva.vocabulary import NO_DEFECT, UNKNOWN, Mention, Vocabulary


@dataclass(frozen=True)
class Named:
    """The first name of a vocabulary that the reference affirms, and what the answer has in its place.

    A text that affirms none and denies some, or leaves them open (无法判断是否有裂缝), names 无缺陷, where the
    vocabulary has that. `answered` is `riskva.vocabulary.UNKNOWN` where the answer names nothing. `is_denied` says that
    the answer speaks of the right thing only to deny it: 未发现裂缝 where there is a crack.
    """

    expected: str
    answered: str
    is_denied: bool

    @property
    def is_right(self) -> bool:
        """Whether both name the same."""
        return self.answered == self.expected


def compare_names(reference: str, answer: str, vocabulary: Vocabulary) -> Named | None:
    """What `answer` names, beside `reference`; None where the reference names nothing of the vocabulary."""
    expected = _named(vocabulary.mentions(reference), vocabulary)
    if expected == UNKNOWN:
        return None
    mentions = vocabulary.mentions(answer)
    said = {mention.is_denied for mention in mentions if mention.name == expected}
    return Named(expected, _named(mentions, vocabulary), is_denied=said == {True})


def _named(mentions: Sequence[Mention], vocabulary: Vocabulary) -> str:
    """The first name that is affirmed; a defect goes before 无缺陷, which is also what denying defects comes to."""
    affirmed = [mention.name for mention in mentions if not mention.is_denied]
    defects = [name for name in affirmed if name != NO_DEFECT]
    if defects:
        return defects[0]
    return NO_DEFECT if mentions and NO_DEFECT in vocabulary.words else UNKNOWN


def compare_reports(
    expected: RiskReport | None, answered: RiskReport | None, vocabulary: Vocabulary, labels: Sequence[str]
) -> Named | None:
    """What the texts under `labels`, in this order, name of `vocabulary`; None where `expected` names nothing.

    No report names nothing, whatever it says.
    """
    return compare_names(_text(expected, labels), _text(answered, labels), vocabulary)


def _text(report: RiskReport | None, labels: Sequence[str]) -> str:
    # a full stop, so that no denial goes on into the next text
    return "。".join(report.texts[label] for label in labels) if report else ""
