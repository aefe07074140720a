"""What happens beside the training loop: progress for people, a log for tools, a stop that saves."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from riskva.console import duration, note
from riskva.distributed import any_process
from riskva.errors import DivergedError, NothingLeftToTrain
from riskva.files import write_whole
from riskva.recipe.metrics import EVAL_PREFIX, is_report_score
from riskva.training.throughput import RATES, Throughput


class TrainerLog(TrainerCallback):
    """Appends each log to `trainer_log.jsonl` in LLaMA-Factory's form, and prints it as a line with rate and ETA."""

    def __init__(self, output_dir: Path) -> None:
        self._path = output_dir / "trainer_log.jsonl"
        self._started = 0.0
        self._first_step = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock; after a resume the rate and the log go on from the step that it resumed at."""
        self._started = time.monotonic()
        self._first_step = state.global_step
        if state.is_world_process_zero and self._path.is_file():
            lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if json.loads(line)["current_steps"] <= state.global_step]
            with write_whole(self._path) as stream:
                stream.writelines(kept if state.global_step else [])

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Write the entry and print the line."""
        if not state.is_world_process_zero or not logs or not {"loss", "eval_loss"} & logs.keys():
            return
        elapsed = time.monotonic() - self._started
        steps = state.global_step - self._first_step
        remaining = elapsed / steps * (state.max_steps - state.global_step) if steps else 0.0
        entry: dict[str, Any] = {
            "current_steps": state.global_step,
            "total_steps": state.max_steps,
            **{name: logs[name] for name in ("loss", "eval_loss", "grad_norm") if name in logs},
            **{name: value for name, value in logs.items() if is_report_score(name)},
            **({"lr": logs["learning_rate"]} if "learning_rate" in logs else {}),
            **{name: logs[name] for name in RATES if name in logs},
            "epoch": round(state.epoch or 0.0, 3),
            "percentage": round(100 * state.global_step / max(state.max_steps, 1), 2),
            "elapsed_time": duration(elapsed),
            "remaining_time": duration(remaining),
        }
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry, ensure_ascii=False) + "\n")
        note(_line(entry))


_SHOWN = {
    "loss": "loss",
    "eval_loss": "eval_loss",
    "eval_risk_level_macro_f1": "macro_f1",
    "eval_risk_level_accuracy": "accuracy",
    "eval_risk_level_severe_recall": "severe_recall",
    "eval_format_valid_rate": "valid_rate",
    "grad_norm": "grad_norm",
    "lr": "lr",
}
"""What the printed line has of an entry, and what it calls it."""

_SHARES = {"mfu": "MFU", "data_wait_share": "waiting for data"}
"""What it has in percent."""


def _line(entry: dict[str, Any]) -> str:
    numbers = [f"{short} {entry[name]:.4g}" for name, short in _SHOWN.items() if name in entry]
    where = f"step {entry['current_steps']}/{entry['total_steps']} (epoch {entry['epoch']:g})"
    numbers += [f"{short} {100 * entry[name]:.0f} %" for name, short in _SHARES.items() if name in entry]
    rate = [f"{entry['samples_per_second']:.1f} samples/s"] if "samples_per_second" in entry else []
    return f"{where}: {', '.join([*numbers, *rate])}, ETA {entry['remaining_time']}"


class BeginEpoch(TrainerCallback):
    """Tells the sampler which epoch begins.

    accelerate does so too, but not through the loader that it makes to skip batches on several processes: a run that
    went on in its second epoch would take the rows in the first one's order, some twice and others never.
    """

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        train_dataloader: Any = None,
        **_: Any,
    ) -> None:
        """Set the epoch on the loader that covers all batches; the one that skips some shares its sampler."""
        if hasattr(train_dataloader, "set_epoch"):
            num_steps = max(1, math.ceil(len(train_dataloader) / args.gradient_accumulation_steps))
            train_dataloader.set_epoch(state.global_step // num_steps)


class FlushFeatures(TrainerCallback):
    """Waits, before an epoch's rows are read, until every process has written the features that it was given.

    Else it would depend on the disk which photos the tower is run for once more, beside which others; and with that the
    last bits of what is learned.
    """

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Wait for this process's writer, then for the other processes."""
        self._flush()
        any_process(False)


class EndStep(TrainerCallback):
    """Tells the throughput that a step is over: what follows, logging, evaluation and saving, is none of it."""

    def __init__(self, throughput: Throughput) -> None:
        self._throughput = throughput

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop its clock."""
        self._throughput.end_step()


class StopWhenDiverged(TrainerCallback):
    """Raises `DivergedError` at the first logged loss that is not a finite number."""

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **event: Any) -> None:
        """Look at the losses in the entry; `train_loss`, the mean at the end, where no step was logged."""
        for name in ("loss", "eval_loss", "train_loss"):
            value = event["logs"].get(name, 0.0)
            if not math.isfinite(value):
                raise DivergedError(
                    f"step {state.global_step}: {name} is {value}, so the training has diverged; lower learning_rate "
                    f"(now {args.learning_rate:g}) or max_grad_norm, and begin afresh: checkpoints saved since the "
                    "last finite loss are of no use"
                )


class NoStepTooMany(TrainerCallback):
    """Raises `NothingLeftToTrain` before a step beyond the last one, which Trainer would take after such a resume."""

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Compare the step with the last."""
        if state.global_step >= state.max_steps:
            raise NothingLeftToTrain(
                f"the checkpoint is at step {state.global_step} of {state.max_steps}: nothing is left to train; raise "
                "num_train_epochs or max_steps"
            )


class StopEarly(TrainerCallback):
    """Ends the training after `patience` evaluations in a row without a better `metric_for_best_model`.

    The same as transformers' EarlyStoppingCallback, but that one begins to count anew when a run goes on from a
    checkpoint; here the evaluations are counted in the log, which checkpoints carry.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Ask for an end once patience is over."""
        if self._is_over(args, state):
            note(f"step {state.global_step}: no better {args.metric_for_best_model} in {self._patience} evaluations")
            control.should_training_stop = True
        return control

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Raise `NothingLeftToTrain` where a run goes on from a checkpoint at which it had stopped early."""
        if self._is_over(args, state):
            raise NothingLeftToTrain(
                f"the checkpoint is at step {state.global_step}, where early stopping ended the training: nothing is "
                "left to train; raise early_stopping_steps"
            )

    def _is_over(self, args: TrainingArguments, state: TrainerState) -> bool:
        name = EVAL_PREFIX + str(args.metric_for_best_model).removeprefix(EVAL_PREFIX)
        # Not the evaluation before the first step (eval_on_start), of which there is no checkpoint
        sign = 1 if args.greater_is_better else -1
        # Of equal scores the lower loss is better, as in `RiskTrainer._determine_best_metric`
        scores = [
            (sign * entry[name], -entry.get("eval_loss", 0.0))
            for entry in state.log_history
            if name in entry and entry["step"] > 0
        ]
        return bool(scores) and len(scores) - 1 - scores.index(max(scores)) >= self._patience


class StopOnSigterm(TrainerCallback):
    """On SIGTERM, finishes the step, saves a checkpoint and stops; `stopped` says that this happened.

    Use it as a context manager around `train()`, so that the handler lasts no longer than the training.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._has_signal = False
        self._previous: Any = None

    def __enter__(self) -> StopOnSigterm:
        self._previous = signal.signal(signal.SIGTERM, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._previous)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._has_signal = True
        note("SIGTERM: finishing this step, then saving")

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Ask for a save and an end once the signal has come."""
        # Signals reach processes at different steps; all must save and stop at the same one.
        self.stopped = any_process(self._has_signal)
        if self.stopped:
            control.should_save = True
            control.should_evaluate = False  # whoever sent the signal will not wait for it
            control.should_training_stop = True
        return control

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """A stop in the middle of an epoch ends it: what is due at epochs' ends is not due then."""
        if self.stopped:
            control.should_save = False
            control.should_evaluate = False
        return control


class BarWithoutLogs(ProgressCallback):
    """transformers' progress bar; `TrainerLog` prints the logs."""

    def on_log(self, *_: Any, **__: Any) -> None:
        """Print nothing."""
