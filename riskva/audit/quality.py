"""Checks of what photos and texts are worth by themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from riskva.audit.facts import TextFacts
from riskva.audit.findings import Evidence, Finding, Severity, found
from riskva.audit.tally import SHORT_TEXT, SMALL_SIDE

COMMON_TEXT, VERY_COMMON_TEXT = 0.2, 0.5
FEW_ROWS_FOR_TEMPLATES = 10
MANY_SHORT_TEXTS, MANY_SMALL_PHOTOS, MANY_UNKNOWN_KINDS = 0.01, 0.05, 0.2


def small_photos(evidence: Evidence) -> Iterator[Finding]:
    """Photos in which little can be seen."""
    small = evidence.tally.small_photos
    if small.count:
        yield found(
            "small_photos",
            "warning" if small.count > MANY_SMALL_PHOTOS * evidence.num_rows else "info",
            small.count,
            evidence.num_rows,
            unit="photos",
            examples=evidence.rows(small.first),
            shows_photos=True,
            filling={"side": SMALL_SIDE},
        )


def level_wordings(evidence: Evidence) -> Iterator[Finding]:
    """Every word that was taken for a level."""
    if wordings := evidence.facts.levels.wordings:
        mapped = ", ".join(f"{one.written} → {one.level} ({one.count:,})" for one in wordings)
        num_mapped = sum(one.count for one in wordings)
        yield found("level_wordings", "info", num_mapped, evidence.num_rows, filling={"mapped": mapped})


def templates(evidence: Evidence) -> Iterator[Finding]:
    """Fields of which one text fills a large part, or all."""
    if evidence.num_rows < FEW_ROWS_FOR_TEMPLATES:
        return
    common = [facts for facts in evidence.facts.texts if facts.commonest_count >= COMMON_TEXT * evidence.num_rows]
    if constant := [facts for facts in common if facts.num_distinct == 1]:
        yield _template("constant_text", "warning", constant, evidence)
    if others := [facts for facts in common if facts.num_distinct > 1]:
        most = max(facts.commonest_count for facts in others)
        severity: Severity = "warning" if most >= VERY_COMMON_TEXT * evidence.num_rows else "info"
        yield _template("template_text", severity, others, evidence)


def _template(code: str, severity: Severity, fields: Sequence[TextFacts], evidence: Evidence) -> Finding:
    ordered = sorted(fields, key=lambda facts: -facts.commonest_count)
    named = "; ".join(
        f"{facts.label} {facts.commonest_count / evidence.num_rows:.1%} “{facts.commonest}”" for facts in ordered
    )
    return found(code, severity, ordered[0].commonest_count, evidence.num_rows, filling={"fields": named})


def short_texts(evidence: Evidence) -> Iterator[Finding]:
    """Texts that hardly say anything."""
    short = {label: noted for label, noted in evidence.tally.short_texts.items() if noted.count}
    if not short:
        return
    total = evidence.num_rows * len(evidence.tally.short_texts)
    count = sum(noted.count for noted in short.values())
    fields = ", ".join(f"{label} {noted.count:,}" for label, noted in short.items())
    yield found(
        "short_texts",
        "warning" if count > MANY_SHORT_TEXTS * total else "info",
        count,
        total,
        unit="texts",
        examples=evidence.rows(sorted({index for noted in short.values() for index in noted.first})),
        filling={"fields": fields, "chars": SHORT_TEXT},
    )


def unknown_kinds(evidence: Evidence) -> Iterator[Finding]:
    """Descriptions without a word of the vocabulary, where they are many."""
    noted, kinds = evidence.tally.unknown_kinds, evidence.settings.kinds
    if kinds and noted.count > MANY_UNKNOWN_KINDS * evidence.num_rows:
        yield found(
            "unknown_kinds",
            "info",
            noted.count,
            evidence.num_rows,
            examples=evidence.rows(noted.first),
            filling={"kinds": len(kinds), "label": evidence.settings.report_format.defect_label},
        )


QUALITY_CHECKS = (small_photos, level_wordings, templates, short_texts, unknown_kinds)
