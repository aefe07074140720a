"""Peak memory of training steps on this machine's CPU, against what `riskva.modeling.memory` estimates beforehand.

    python scripts/measure_memory.py [--cases lora-fp32 ...] [--tokens 4096]

Each case is a process of its own: a random model of the 7B's proportions, two steps of two micro-batches, AdamW.
`tensors` is the most bytes of living tensors at a time (parameters included), `RSS` how far the process's resident
memory grew over what it was with its libraries loaded and no model. The kernels' own buffers and the allocator's
unreturned pages are in the latter only. Exit status 1 if an estimate is off by more than 15 % of the tensors' peak.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import weakref
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Qwen2_5_VLConfig

from riskva.modeling.checkpointing import checkpoint_layers
from riskva.modeling.memory import Load, MemoryEstimate, estimate
from riskva.modeling.model import Qwen2_5_VLForConditionalGeneration
from riskva.modeling.tuning import prepare_tuning
from riskva.recipe import SftRecipe

ALLOWED = 0.15


class LivingTensors(TorchDispatchMode):
    """The most bytes of tensors that live at a time, and when: `phase` is set from outside."""

    def __init__(self) -> None:
        super().__init__()
        self._living: dict[int, int] = {}
        self.now = 0
        self.phase = ""
        self.peaks: dict[str, int] = {}

    def watch(self, tensor: Tensor) -> None:
        """Count a tensor, until its storage is freed."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._living:
            return
        self._living[key] = storage.nbytes()
        self.now += storage.nbytes()
        weakref.finalize(storage, self._gone, key)
        self.peaks[self.phase] = max(self.peaks.get(self.phase, 0), self.now)

    def _gone(self, key: int) -> None:
        self.now -= self._living.pop(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What `func` gives; its new tensors are counted."""
        given = func(*args, **(kwargs or {}))
        for one in tree_leaves(given):
            if isinstance(one, Tensor):
                self.watch(one)
        return given


@dataclass(frozen=True)
class Case:
    """What is trained, and how; `checkpointed` layers of the language model are computed twice."""

    name: str
    keys: dict[str, Any]
    bf16: bool
    checkpointed: int
    num_tokens: int
    is_cached: bool = True

    @property
    def tokens_asked(self) -> int:
        """`--tokens` for a case of this size."""
        return self.num_tokens * (2 if self.name.startswith("tower") else 1)


NUM_LAYERS = 12
SAMPLE, PHOTO_PATCHES = 512, (32, 32)


def model_config() -> Qwen2_5_VLConfig:
    """About 76 M weights in the 7B's proportions."""
    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 8192,
            "hidden_size": 512,
            "intermediate_size": 2704,
            "num_hidden_layers": NUM_LAYERS,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "max_window_layers": NUM_LAYERS,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
            "bos_token_id": 1,
            "eos_token_id": 1,
        },
        vision_config={
            "depth": 8,
            "hidden_size": 256,
            "intermediate_size": 684,
            "num_heads": 4,
            "out_hidden_size": 512,
            "fullatt_block_indexes": [3, 7],
        },
        image_token_id=5,
    )


def batch_of(case: Case, config: Any) -> dict[str, Any]:
    """Samples of `SAMPLE` tokens in one row, each with a photo; a fifth of the tokens is supervised."""
    number = case.num_tokens // SAMPLE
    height, width = PHOTO_PATCHES
    tokens = height * width // 4
    ids = torch.randint(6, 8000, (number, SAMPLE))
    labels = torch.where(torch.arange(SAMPLE) >= SAMPLE * 4 // 5, ids, -100)
    ids[:, 4 : 4 + tokens] = 5
    photos = {"image_grid_thw": torch.tensor([[1, height, width]] * number)}
    if case.is_cached:
        dtype = torch.bfloat16 if case.bf16 else torch.float32
        photos["image_features"] = torch.randn(number * tokens, config.text_config.hidden_size, dtype=dtype)
    else:
        photos["pixel_values"] = torch.randn(number * height * width, 1176)
    return {
        "input_ids": ids.view(1, -1),
        "labels": labels.view(1, -1),
        "position_ids": torch.arange(SAMPLE).repeat(number).expand(4, 1, -1).contiguous(),
        "cu_seqlens": torch.arange(number + 1, dtype=torch.int32) * SAMPLE,
        "has_features": [case.is_cached] * number,
        "photo_keys": [str(index) for index in range(number)],
        **photos,
    }


def recipe_of(case: Case) -> SftRecipe:
    """The recipe that the case is."""
    training = {"bf16": case.bf16, "gradient_accumulation_steps": 2}
    return SftRecipe(
        stage="sft", model_name_or_path="m", output_dir=Path("o"), dataset=("d",), training=training, **case.keys
    )


@dataclass(frozen=True)
class Measured:
    """Bytes: the most at a time in each phase of a step, and growth of the process's resident memory."""

    phases: dict[str, int]
    tensors: int
    rss: int


def measure(case: Case) -> Measured:
    """Two steps of two micro-batches in this process."""
    torch.manual_seed(0)
    config = model_config()
    before = _peak_rss()
    model = Qwen2_5_VLForConditionalGeneration(config).to(torch.bfloat16 if case.bf16 else torch.float32)
    tuned = prepare_tuning(model, recipe_of(case)).train()
    checkpoint_layers(tuned, case.checkpointed)
    optimizer = torch.optim.AdamW([one for one in tuned.parameters() if one.requires_grad], fused=True)
    batch = batch_of(case, config)
    with LivingTensors() as living:
        _phase_at(model, living)
        for tensor in [*tuned.parameters(), *(one for one in batch.values() if isinstance(one, Tensor))]:
            living.watch(tensor)
        for num_batches in (1, 2):
            for _ in range(num_batches):
                _pass(tuned, batch, case, living)
            living.phase = "optimizer"
            optimizer.step()
            optimizer.zero_grad()
    return Measured(living.peaks, max(living.peaks.values()), _peak_rss() - before)


def _phase_at(model: Any, living: LivingTensors) -> None:
    def set_phase(name: str) -> Any:
        return lambda *_: setattr(living, "phase", name)

    model.model.visual.register_forward_pre_hook(set_phase("tower"))
    model.model.visual.register_forward_hook(set_phase("forward"))
    model.lm_head.register_forward_pre_hook(set_phase("head"))


def _pass(model: Any, batch: Any, case: Case, living: LivingTensors) -> None:
    """One micro-batch forward and backward."""
    living.phase = "forward"
    with torch.autocast("cpu", torch.bfloat16, enabled=case.bf16):
        loss = model(**batch).sums.sum() / 1000
    living.phase = "backward"
    loss.backward()


def _peak_rss() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def cases(num_tokens: int) -> Iterator[Case]:
    """LoRA and full tuning, both precisions, none, some and all layers checkpointed; the tower run, frozen and not."""
    tunings = {"lora": {"lora_rank": 16}, "full": {"finetuning_type": "full"}}
    for kind, keys in tunings.items():
        for precision in ("fp32", "bf16"):
            for number in (0, NUM_LAYERS // 2, NUM_LAYERS):
                yield Case(f"{kind}-{precision}-{number}", keys, precision == "bf16", number, num_tokens)
    for precision in ("fp32", "bf16"):
        yield Case(f"lora-{precision}-photos", tunings["lora"], precision == "bf16", NUM_LAYERS, num_tokens, False)
        keys = {**tunings["full"], "freeze_vision_tower": False, "freeze_multi_modal_projector": False}
        yield Case(f"tower-{precision}-0", keys, precision == "bf16", 0, num_tokens // 2, False)
        yield Case(f"tower-{precision}-{NUM_LAYERS}", keys, precision == "bf16", NUM_LAYERS, num_tokens // 2, False)


def main() -> int:
    """Measure each case in a process of its own, and print them beside the estimates."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", nargs="*", help="names, or beginnings of names; default: all")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--alone", action="store_true", help="one case, in this process, as JSON")
    asked = parser.parse_args()
    chosen = [one for one in cases(asked.tokens) if not asked.cases or one.name.startswith(tuple(asked.cases))]
    if asked.alone:
        print(json.dumps(asdict(measure(chosen[0]))))
        return 0
    print(f"{'case':20}{'estimate':>10}{'tensors':>9}{'off by':>8}{'RSS':>7}   (MB)   most, as measured / as estimated")
    off = []
    for case in chosen:
        found, planned = run_alone(case), planned_for(case)
        difference = planned.total / found.tensors - 1
        moment = max(found.phases, key=lambda phase: found.phases[phase])
        numbers = f"{planned.total / 1e6:10.0f}{found.tensors / 1e6:9.0f}{difference:8.1%}{found.rss / 1e6:7.0f}"
        print(f"{case.name:20}{numbers}   {moment} / {planned.moment}", flush=True)
        off += [case.name] if abs(difference) > ALLOWED else []
    print(f"off by more than {ALLOWED:.0%}: {', '.join(off)}" if off else f"all within {ALLOWED:.0%}")
    return 1 if off else 0


def run_alone(case: Case) -> Measured:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--alone", "--cases", case.name, "--tokens", str(case.tokens_asked)]
    # Fixed, the threshold has freed tensors go back to the system at once, and not into the allocator's store.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def planned_for(case: Case) -> MemoryEstimate:
    """The estimate, which knows the config, the recipe and the size of the batch."""
    number = case.num_tokens // SAMPLE
    patches = 0 if case.is_cached else number * PHOTO_PATCHES[0] * PHOTO_PATCHES[1]
    load = Load(case.num_tokens, number, patches)
    return estimate(model_config(), recipe_of(case), load, case.checkpointed, is_cuda=False)


if __name__ == "__main__":
    sys.exit(main())
