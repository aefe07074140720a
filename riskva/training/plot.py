"""The training curve as a picture, for people who would rather look than read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any


def plot_losses(history: Sequence[Mapping[str, Any]], path: Path) -> bool:
    """Draw training and evaluation loss over steps into a PNG; False when there is nothing to draw.

    `history` is `TrainerState.log_history`. From 40 logged losses on, a pale line shows them and a strong one their
    mean over a twentieth of the run.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    train = [(entry["step"], entry["loss"]) for entry in history if "loss" in entry]
    evaluated = [(entry["step"], entry["eval_loss"]) for entry in history if "eval_loss" in entry]
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
        axes.legend(frameon=False)
        figure.savefig(path, dpi=150)
    return True


def _smoothed(values: Sequence[float], reach: int) -> list[float]:
    """Means over each value and `reach` on either side, so that the curve neither lags nor leads."""
    return [fmean(values[max(0, i - reach) : i + reach + 1]) for i in range(len(values))]
