"""What scores depend on besides the answers: two numbers compare only where this is the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from evaluation.predictions import Prediction
from evaluation.sample_scores import Scoring
from evaluation.text_overlap import signature as text_signature
from riskva.version import __version__

DATA_KEY = "data"

RULES = "2"
"""Raised whenever answers are read, or names are judged, by other rules: scores by older ones do not compare."""

DIGEST_KEY = "signature"
"""The key of a digest of all that must be equal: scores with one digest compare, others do not."""

NOT_COMPARED = (DIGEST_KEY, "floors", "intervals", "riskva")
"""Keys that tell how other numbers than the scores came about; runs that differ in them still compare."""


def data_fingerprint(predictions: Sequence[Prediction]) -> str:
    """Which rows were answered: a digest of their ids and labels, whatever their order and whatever the answers."""
    digest = hashlib.sha256()
    for row in sorted(predictions, key=lambda row: (row.id, row.label)):
        digest.update(json.dumps([row.id, row.plain_label]).encode())
    return f"{len(predictions)} rows, {digest.hexdigest()[:16]}"


def signature(predictions: Sequence[Prediction], scoring: Scoring, floors: str, intervals: str) -> dict[str, str]:
    """The signature of the scores of `predictions`; `floors` and `intervals` say in words how those came about."""
    parts = {
        DATA_KEY: data_fingerprint(predictions),
        "rules": RULES,
        "fields": ", ".join(scoring.report_format.labels),
        **text_signature(),
        "macro_f1": "mean over the three levels, one that is absent counts 0; an unparsed answer is wrong",
        "costs": "; ".join(_costs(scoring)),
        "vocabulary": f"kinds {_digest(scoring.kinds.words)}, rooms {_digest(scoring.rooms.words)}",
        "floors": floors,
        "intervals": intervals,
        "riskva": f"{__version__}, scikit-learn {version('scikit-learn')}",
    }
    return {DIGEST_KEY: f"{_digest_of(comparable(parts))}; scores with another one do not compare", **parts}


def comparable(signed: Mapping[str, str]) -> dict[str, str]:
    """The part of a signature that must be equal for scores to be compared."""
    return {key: text for key, text in signed.items() if key not in NOT_COMPARED}


def _costs(scoring: Scoring) -> list[str]:
    return [
        f"{expected}→{answered} {cost:g}"
        for expected, row in scoring.costs.costs.items()
        for answered, cost in row.items()
        if cost
    ]


def _digest(words: Mapping[str, Sequence[str]]) -> str:
    return _digest_of({name: sorted(words[name]) for name in sorted(words)})


def _digest_of(value: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:8]
