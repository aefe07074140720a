"""Bad rows: listed in a file, counted by reason, and too many of them end the job."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from riskva.errors import TooManyBadRowsError
from riskva.files import write_whole
from riskva.tables.records import BadRow

_EXAMPLES = 3


def list_bad_rows(bad: Sequence[BadRow], path: Path) -> None:
    """Write the rows to `path`, one JSON object a line."""
    with write_whole(path) as stream:
        for one in bad:
            stream.write(json.dumps(asdict(one), ensure_ascii=False) + "\n")


def judge(bad: Sequence[BadRow], num_rows: int, max_bad_share: float, path: Path | None = None) -> None:
    """Raise `TooManyBadRowsError` when there are too many bad rows to go on, and list them in `path`, if given."""
    if len(bad) < num_rows and len(bad) <= max_bad_share * num_rows + 1e-9:  # 0.29 * 100 is 28.999…
        return
    if path is not None:
        list_bad_rows(bad, path)
    raise TooManyBadRowsError(
        f"max_bad_share allows {max_bad_share:.1%} of the rows to be bad\n"
        + "\n".join(bad_lines(bad, num_rows))
        + (f"\nAll are listed in {path}; mend" if path else "\nMend")
        + " the tables or their photos, or raise max_bad_share"
    )


def bad_lines(bad: Sequence[BadRow], num_rows: int) -> Iterator[str]:
    """How many rows are bad, and for which reasons, with the first few, as lines for a person."""
    if not bad:
        yield f"bad rows: none of {num_rows}"
        return
    reasons = ", ".join(f"{reason} {number}" for reason, number in Counter(one.reason for one in bad).most_common())
    yield f"bad rows: {len(bad)} of {num_rows} ({len(bad) / num_rows:.1%}): {reasons}"
    for one in bad[:_EXAMPLES]:
        yield f"  {one.table}:{one.line} (id {one.id or '?'}): {one.reason}: {one.message}"
