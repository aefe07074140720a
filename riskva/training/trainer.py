"""The Trainer: one loss, normalised once, and checkpoints that carry all that they need."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sized
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput

from riskva.encoding.lengths import Lengths
from riskva.modeling.loading import load_model, locate_model, require_fitting_adapter
from riskva.modeling.model import Qwen2_5_VLForConditionalGeneration, SampleLosses
from riskva.training.callbacks import BeginEpoch, EndStep
from riskva.training.optimizer import LearningRates, parameter_groups, rates_by_group, with_groups
from riskva.training.packing import PackingSampler
from riskva.training.sampling import FileOrderSampler, LengthSampler
from riskva.training.throughput import Throughput


def sample_losses(model: nn.Module, batch: dict[str, Any], label_smoothing: float = 0.0) -> SampleLosses:
    """Each sample's summed cross entropy, and the number of supervised tokens that it is summed over.

    `batch` comes from `riskva.encoding.PackedCollator`, `model` from `riskva.modeling.loading.load_model`.
    """
    losses: SampleLosses = model(**batch, label_smoothing=label_smoothing)
    return losses


def bare_model(model: Any) -> Qwen2_5_VLForConditionalGeneration:
    """The model without PEFT around it."""
    return cast(Qwen2_5_VLForConditionalGeneration, model.get_base_model() if isinstance(model, PeftModel) else model)


class RiskTrainer(Trainer):
    """transformers' Trainer, with these differences.

    - The loss is the mean over all supervised tokens of an optimiser step, over every device and micro-batch.
      Trainer's own, for Qwen2.5-VL, averages the means of micro-batches, so that it changes with gradient
      accumulation; evaluation is a mean over tokens too, whatever the batch size.
    - Evaluation and `predict()` give the loss and no logits; `compute_metrics` is refused. What
      `score_answers(model)` gives is part of each evaluation: scores by name of answers that the model writes for it.
      It is called on every process after the loss, with the bare model in evaluation mode.
    - Of equal `metric_for_best_model` the lower loss is the better one; Trainer keeps the first.
    - With `packing_len` a row of a batch is a bin of whole samples, filled up to so many tokens; it needs rows with
      `lengths`.
    - `rates` gives parts of the model learning rates of their own; `throughput` puts rates and waiting into the log.
    - `write_extras(folder)` is called on the main process after each checkpoint's weights are written.
    - A checkpoint is read back, for resuming and as the best model, with every weight accounted for. Trainer looks for
      a whole model's running names in files that hold the hub's, finds none, warns, and goes on from the base's
      weights; of an adapter it passes over what it does not find.
    - Rows come in the order of the epoch also where several processes go on in the middle of one (see `BeginEpoch`),
      and in the order of the files if the training rows have `runs`.

    Batches come from `riskva.encoding.PackedCollator`, models from `riskva.modeling.loading.load_model`.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *args: Any,
        write_extras: Callable[[Path], None] | None = None,
        score_answers: Callable[[Any], dict[str, float]] | None = None,
        rates: LearningRates | None = None,
        packing_len: int | None = None,
        throughput: Throughput | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("compute_metrics") is not None:
            raise ValueError("RiskTrainer evaluates the loss alone, without logits: it never calls compute_metrics")
        super().__init__(*args, **kwargs)
        # Makes Trainer count the supervised tokens of the step; the model itself never computes the loss.
        self.model_accepts_loss_kwargs = True
        self.label_names = ["labels"]
        self._write_extras = write_extras
        self._score_answers = score_answers
        self._rates = rates or LearningRates()
        self._packing_len = packing_len
        self._throughput = throughput
        if self.args.n_gpu > 1 or cast(Any, self.args.accelerator_config).dispatch_batches:
            raise ValueError("packed rows cannot be cut: start one process a GPU (torchrun), without dispatch_batches")
        # The model adds the noise itself: Trainer's hook takes a whole row for one sample.
        self.neftune_noise_alpha = None
        bare_model(self.model).neftune_noise_alpha = self.args.neftune_noise_alpha
        self.add_callback(BeginEpoch())
        if throughput is not None:
            self.add_callback(EndStep(throughput))

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> Sampler[Any] | None:
        """Trainer's; for rows with `runs` one that goes by files, with `lengths` one that packs or groups them."""
        rows = train_dataset if train_dataset is not None else self.train_dataset
        runs = getattr(rows, "runs", None)
        if runs is not None:
            return FileOrderSampler(
                runs, self._rows_at_once(), self.accelerator.num_processes, self.args.data_seed or self.args.seed
            )
        lengths: Lengths | None = getattr(rows, "lengths", None)
        seed = self.args.data_seed or self.args.seed
        if lengths is not None and self._packing_len is not None:
            return PackingSampler(
                lengths,
                self._packing_len,
                bins_per_batch=self._rows_at_once(),
                num_processes=self.accelerator.num_processes,
                seed=seed,
            )
        if self.args.train_sampling_strategy != "group_by_length" or lengths is None:
            return super()._get_train_sampler(train_dataset)
        batch = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthSampler(batch, lengths.totals.tolist(), seed)

    def _get_dataloader(self, *args: Any, **kwargs: Any) -> DataLoader[Any]:
        """Trainer's, whose workers get their seeds from a generator of its own.

        From the global one they are drawn when workers start: a run that goes on would start them once more, and
        dropout on a CPU would drop otherwise from there.
        """
        loader: Any = super()._get_dataloader(*args, **kwargs)
        getattr(loader, "base_dataloader", loader).generator = torch.Generator().manual_seed(self.args.seed)
        return cast(DataLoader[Any], loader)

    def _rows_at_once(self) -> int:
        """How many rows in sequence one process gets: a batch, or its share of one that accelerate splits."""
        batch = int(self._train_batch_size)
        return batch // self.accelerator.num_processes if self.accelerator.split_batches else batch

    def _get_eval_sampler(self, eval_dataset: Dataset[Any]) -> Sampler[int] | None:
        """Rows in their order: evaluation is a sum over them, and needs no grouping by length."""
        return SequentialSampler(cast(Sized, eval_dataset))

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Trainer's, with a group of weights for each learning rate that is set."""
        if self.optimizer is None and self._rates.are_set:
            whole = cast(Any, self.model if model is None else model)
            groups = parameter_groups(whole, self.args, self._rates, self.get_decay_parameter_names(whole))
            self.optimizer_cls_and_kwargs = with_groups(self.get_optimizer_cls_and_kwargs(self.args, whole), groups)
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        return optimizer

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """Trainer's, with the time that the step has to wait for its rows."""
        started = time.perf_counter()
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._throughput is not None:
            self._throughput.begin_step(batches, time.perf_counter() - started)
        return batches, num_items

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trainer's, with the rates since the last entry beside a training loss."""
        if self._throughput is not None and "loss" in logs:
            logs = logs | self._throughput.rates(lambda counts: self.accelerator.reduce(counts, "sum"))
        if self._rates.are_set and "loss" in logs:
            logs = logs | rates_by_group(cast(Any, self.optimizer).param_groups)
        super().log(logs, start_time)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The micro-batch's share of the step's loss: its summed cross entropy over the step's supervised tokens."""
        sums, counts = sample_losses(model, inputs, self.args.label_smoothing_factor)
        num_tokens = counts.sum() if num_items_in_batch is None else num_items_in_batch
        loss = sums.sum() / num_tokens
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # Gradients are averaged over processes, and the count is over all of them: make the average a sum.
            loss = loss * self.accelerator.num_processes
        return (loss, {"sums": sums, "counts": counts}) if return_outputs else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The batch's mean loss, and (B, 2): each row's summed loss and supervised tokens, in place of logits."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            sums, counts = sample_losses(model, inputs)
        return sums.sum() / counts.sum(), torch.stack([sums, counts.to(sums.dtype)], dim=1), None

    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Trainer's loop, with the loss as the mean over tokens; rows repeated to fill a last batch count once.

        The scores of answers belong to the evaluation of `eval_dataset`, not to `predict()`.
        """
        output = super().evaluation_loop(dataloader, description, False, ignore_keys, metric_key_prefix)
        sums, counts = torch.as_tensor(output.predictions).double().sum(dim=0)
        metrics = {**(output.metrics or {}), f"{metric_key_prefix}_loss": (sums / counts).item()}
        if self._score_answers is not None and metric_key_prefix == "eval":
            with self.accelerator.autocast():  # as forward runs in training; the bare model does not do so by itself
                metrics |= {f"eval_{name}": value for name, value in self._score_answers(self.model).items()}
        return output._replace(predictions=np.empty(0), label_ids=None, metrics=metrics)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Trainer's, and of equal scores the one with the lower loss: until a report can be read, all scores are 0."""
        if super()._determine_best_metric(metrics, trial):
            return True
        name = "eval_" + str(self.args.metric_for_best_model).removeprefix("eval_")
        best_step = self.state.best_global_step
        losses = [one["eval_loss"] for one in self.state.log_history if one["step"] == best_step and "eval_loss" in one]
        is_equal = best_step is not None and metrics.get(name) == self.state.best_metric
        if not (is_equal and losses and metrics["eval_loss"] < losses[-1]):
            return False
        self.state.best_global_step = self.state.global_step
        return True

    def end_with_the_best(self) -> None:
        """Load the best checkpoint where `train()`, which does so at its end, had no step left to take."""
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
            self._load_best_model()

    @property
    def step_of_model(self) -> int:
        """The step that the model is of after training: the best checkpoint's if that was loaded, or the last."""
        best = self.state.best_model_checkpoint
        if self.args.load_best_model_at_end and best is not None:
            return int(best.rpartition("-")[2])
        return int(self.state.global_step)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """The checkpoint's weights into the model that is trained. Raises `ModelError` unless all are there."""
        if isinstance(self.model, PeftModel):
            require_fitting_adapter(self.model, Path(resume_from_checkpoint))
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self._read_whole_model(Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        """The weights of the best checkpoint into the model. Raises `ModelError` unless all are there."""
        best = Path(str(self.state.best_model_checkpoint))
        if self.is_deepspeed_enabled:
            super()._load_best_model()
        elif isinstance(self.model, PeftModel):
            require_fitting_adapter(self.model, best)
            super()._load_best_model()
        else:
            self._read_whole_model(best)

    def _read_whole_model(self, checkpoint: Path) -> None:
        # In float32, so that weights in either precision come back unrounded
        cast(nn.Module, self.model).load_state_dict(
            load_model(locate_model(str(checkpoint)), torch.float32).state_dict()
        )

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the weights, and beside them what else the checkpoint must carry."""
        super().save_model(output_dir, _internal_call)
        if self._write_extras is not None and self.args.should_save:
            self._write_extras(Path(output_dir or str(self.args.output_dir)))
