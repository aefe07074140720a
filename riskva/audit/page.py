"""The audit as one page that opens anywhere: no script, nothing fetched, the photos in it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from riskva.audit.builder import Audit
from riskva.audit.findings import SEVERITIES
from riskva.audit.rows import Example
from riskva.audit.words import REASONS, SEVERITY_NAMES, SPLITS, UNITS
from riskva.report import LEVEL_LABELS
from riskva.vocabulary import UNKNOWN

TEMPLATE = Path(__file__).with_name("page.html.jinja")
MOST_KINDS, MOST_TABLES = 20, 12


def render_audit(audit: Audit) -> str:
    """The page as HTML, in Chinese with English beside it; every text of the tables is escaped."""
    template = _environment().get_template(TEMPLATE.name)
    return template.render(
        audit=audit,
        facts=audit.facts,
        counts=audit.num_by_severity,
        verdict=_verdict(audit),
        level_labels=LEVEL_LABELS,
        level_totals=_level_totals(audit),
        photos={number: _data_uri(jpeg) for number, jpeg in audit.thumbnails.items()},
        samples=[(level, list(rows)) for level, rows in groupby(audit.samples, lambda row: row.level)],
        most_kinds=MOST_KINDS,
        most_tables=MOST_TABLES,
        severities=SEVERITIES,
        severity_names=SEVERITY_NAMES,
        reasons=REASONS,
        splits_zh=SPLITS,
        units=UNITS,
        unknown=UNKNOWN,
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= _FILTERS
    return environment


def _verdict(audit: Audit) -> tuple[str, str, str]:
    """How bad it is, in a class name, in Chinese and in English."""
    counts = audit.num_by_severity
    if counts["error"]:
        return "error", "请先处理错误，再开始训练", "Mend the errors before you train"
    if counts["warning"]:
        return "warning", "可以训练，但请先看警告", "Fit to train on; read the warnings first"
    return "good", "可以训练，没有发现问题", "Fit to train on; nothing was found wrong"


def _level_totals(audit: Audit) -> Mapping[str, int]:
    splits = audit.facts.levels.splits.values()
    return {label: sum(counts[label] for counts in splits) for label in LEVEL_LABELS}


def _by_cluster(examples: tuple[Example, ...]) -> list[list[Example]]:
    """Rows that belong together, each lot in a list; all rows in one where they are shown one by one."""
    return [list(rows) for _, rows in groupby(examples, lambda row: row.cluster)]


def _percent(share: float) -> str:
    """A share as a percentage that does not round to nothing, or to all, what is neither."""
    if 0 < share < 0.0005:
        return "<0.1%"
    if 0.9995 <= share < 1:
        return ">99.9%"
    return f"{share:.0%}" if share in {0, 1} else f"{share:.1%}"


def _short(number: int) -> str:
    """A count that fits above a narrow column."""
    return f"{number:,}" if number < 10_000 else f"{number / 1000:.0f}k"


def _thousands(number: int) -> str:
    return f"{number:,}"


def _megabytes(number: int) -> str:
    return f"{number / 1e6:,.1f}"


def _level_class(label: str) -> str:
    return f"level{LEVEL_LABELS.index(label)}"


def _data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


_FILTERS: Mapping[str, Callable[..., object]] = {
    "thousands": _thousands,
    "percent": _percent,
    "short": _short,
    "megabytes": _megabytes,
    "level_class": _level_class,
    "by_cluster": _by_cluster,
}
