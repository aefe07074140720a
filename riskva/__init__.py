"""RisKVA: fine-tunes Qwen2.5-VL on photos of building defects and turns photos into Chinese risk reports.

`riskva.load(path).report(photo)` is a model in Python; all else is done by recipes and `riskva-run`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from riskva.version import __version__

if TYPE_CHECKING:
    from riskva.generation.reporter import PhotoReport, Reporter, load

__all__ = ["PhotoReport", "Reporter", "__version__", "load"]


def __getattr__(name: str) -> Any:
    """What is loaded only when it is asked for: torch takes seconds, and `riskva-run --help` needs none."""
    if name in __all__:
        from riskva.generation import reporter

        return getattr(reporter, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
