"""The training curve as a picture, for people who would rather look than read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any


def plot_losses(history: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Draw training and evaluation loss over steps into a PNG; False when there is nothing to draw.

    `history` is `TrainerState.log_history`. From 40 logged losses on, a pale line shows them and a strong one their
    mean over a twentieth of the run. Where evaluations gave a macro-F1, it has an axis of its own on the right.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    train = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    evaluated, scored = (
        [(entry["step"], entry[name]) for entry in history if name in entry]
        for name in ("eval_loss", "eval_risk_level_macro_f1")
    )
    if not train:
        return False
    with mpl.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot()
        steps, losses = zip(*train, strict=True)
        reach = len(losses) // 40
        if reach:
            axes.plot(steps, losses, color="#9db8d6", linewidth=1, label="training, as logged")
        smoothed = _smoothed(losses, reach)
        axes.plot(steps, smoothed, color="#1f5a99", linewidth=2, label="training, smoothed" if reach else "training")
        if evaluated:
            axes.plot(*zip(*evaluated, strict=True), "o-", color="#c9551f", linewidth=1.5, label="evaluation")
        axes.set(xlabel="optimiser step", ylabel="loss (nats per supervised token)", ylim=(0, None))
        axes.grid(alpha=0.25)
        if scored:
            _draw_scores(axes, scored)
        axes.legend(frameon=False, loc="center right" if scored else "best")
        figure.savefig(path, dpi=150)
    return True


def _draw_scores(axes: Any, scored: Sequence[tuple[int, float]]) -> None:
    """The macro-F1 on a right axis from 0 to 1, with a line in the legend of `axes`."""
    right = axes.twinx()
    colour, label = "#2f7d4f", "level macro-F1 of reports"
    (line,) = right.plot(*zip(*scored, strict=True), "s--", color=colour, linewidth=1.5, markersize=4)
    axes.plot([], [], "s--", color=line.get_color(), linewidth=1.5, markersize=4, label=label)
    right.set(ylim=(0, 1))
    right.set_ylabel(label, color=colour)
    right.tick_params(axis="y", colors=colour)
    right.spines["right"].set(visible=True, color=colour)


def _smoothed(values: Sequence[float], reach: int) -> list[float]:
    """Means over each value and `reach` on either side, so that the curve neither lags nor leads."""
    return [fmean(values[max(0, i - reach) : i + reach + 1]) for i in range(len(values))]
