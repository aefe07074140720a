"""`vision_cache`: what the frozen vision tower made of a photo, for the epochs that follow.

A photo whose features are kept is neither decoded nor run through the tower again. DataLoader workers read them from
the files of a `FeatureStore`; the training process gives those that the tower has just made to one thread that writes
them. In memory the files are this run's and go with it; on disk they stay for other runs with the same tower, pixel
limits and precision, whatever photos these have in common.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft.utils import SAFETENSORS_WEIGHTS_NAME
from transformers import Qwen2_5_VLConfig

from riskva.data.registry import FEATURES_FOLDER
from riskva.distributed import decide_on_each_machine
from riskva.encoding import Length, Processor
from riskva.encoding.lengths import Lengths
from riskva.errors import RecipeError
from riskva.main_memory import free_memory
from riskva.modeling.loading import locate_adapter
from riskva.recipe import SftRecipe
from riskva.signals import sigterm_raises
from riskva.training import shared_folder
from riskva.training.feature_store import FeatureStore, stored_bytes
from riskva.training.feature_writer import FeatureWriter
from riskva.training.shared_folder import Place, free_bytes, memory_folder, nearest_folder
from riskva.training.tower_fingerprint import holds_tower_weights, tower_fingerprint


@dataclass(frozen=True)
class VisionCachePlan:
    """Where features are kept, and how many."""

    place: Place
    root: Path
    """What the budget counts: the folder of all stores on disk, or this run's in memory."""
    store: FeatureStore
    budget: int
    """Bytes that `root` may hold on each machine."""
    num_bytes: int
    """The most that this run adds."""
    is_asked_for: bool
    """Whether the recipe names the place; with `auto` a run goes on without room."""


def plan_vision_cache(
    recipe: SftRecipe,
    processor: Processor,
    model_folder: Path,
    *,
    dtype: torch.dtype,
    lengths: Sequence[Sequence[Length]] | None,
    num_epochs: float,
) -> tuple[VisionCachePlan | None, str | None]:
    """What the recipe's `vision_cache` keeps, and a line that says where and how much, or why not; nothing is written.

    `dtype` is that of the features. `lengths` are those of all rows that the model is to see, training and evaluation;
    None where nobody has measured them. `num_epochs` is how often it sees the training rows. Raises `RecipeError` where
    the recipe asks for a cache and the tower does not stay as it is.
    """
    if recipe.vision_cache == "off":
        return None, None
    why_not = _what_trains(recipe)
    if why_not is not None and recipe.vision_cache != "auto":
        raise RecipeError(f"vision_cache: {recipe.vision_cache} cannot be: {why_not}; set vision_cache: off")
    if recipe.vision_cache == "auto" and recipe.cache_images:
        why_not = "cache_images is set, and one of the two is enough"
    if why_not is not None:
        return None, f"vision_cache: off, {why_not}"
    config: Any = Qwen2_5_VLConfig.from_pretrained(model_folder).vision_config
    choice = _Choice(recipe, processor, model_folder, config.out_hidden_size, dtype, _num_tokens(lengths))
    if recipe.vision_cache == "auto":
        return choice.automatic(num_epochs)
    return choice.asked_for(recipe.vision_cache)


def require_room(plan: VisionCachePlan) -> None:
    """Raise `RecipeError` unless this machine has the place that the recipe asks for, with room for what is planned.

    On disk the nearest folder that exists must be writable.
    """
    if not plan.is_asked_for:
        return
    if plan.place == "disk":
        if not _is_writable(plan.root):
            raise RecipeError(_not_writable(plan.root, "no right to write there"))
        free = free_bytes(plan.root)
    else:
        if not shared_folder.SHARED_MEMORY.is_dir():
            raise RecipeError(
                f"vision_cache: memory needs {shared_folder.SHARED_MEMORY}, which this machine has not; set "
                "vision_cache: disk"
            )
        free = min(free_bytes(shared_folder.SHARED_MEMORY), free_memory())
    if free < plan.num_bytes:
        where = plan.root if plan.place == "disk" else shared_folder.SHARED_MEMORY
        raise RecipeError(
            f"vision_cache: {plan.place} needs {_gb(plan.num_bytes)} in {where}, where {_gb(free)} are free; "
            f"{_remedy(plan.place)}"
        )


@contextmanager
def opened(plan: VisionCachePlan | None) -> Iterator[FeatureWriter | None]:
    """What fills the plan's folder; at the end all that it was given is on disk, or gone from memory.

    What killed runs have left in memory is deleted first, also without a plan. Every process of the run must enter.
    Raises `RecipeError` where a folder on disk cannot be made.
    """
    with ExitStack() as stack:
        if plan is not None and plan.place == "memory":
            stack.enter_context(sigterm_raises(SystemExit(128 + signal.SIGTERM)))
        decide_on_each_machine(lambda: stack.enter_context(_folder(plan)))
        yield stack.enter_context(_writer(plan)) if plan is not None else None


@dataclass(frozen=True)
class _Choice:
    """What there is to choose from for one recipe. `num_tokens` of all photos is None where nobody has counted."""

    recipe: SftRecipe
    processor: Processor
    model_folder: Path
    hidden_size: int
    dtype: torch.dtype
    num_tokens: int | None

    def asked_for(self, place: Place) -> tuple[VisionCachePlan, str]:
        line = self._memory_line if place == "memory" else self._disk_line
        if self.num_tokens is not None and self._needed > self._budget:
            line += f"; all photos take {_gb(self._needed)}, over vision_cache_gb, so some are not kept"
        return replace(self._in_memory if place == "memory" else self._on_disk, is_asked_for=True), line

    def automatic(self, num_epochs: float) -> tuple[VisionCachePlan | None, str]:
        if self.num_tokens is None:
            return None, "vision_cache: off, streaming does not count image tokens; memory or disk keep what fits"
        if not self.num_tokens:
            return None, "vision_cache: off, no row has a photo"
        stored = self._stored if self._root.is_dir() else 0  # without a folder no weights need be read to know
        if num_epochs <= 1 and not stored:
            return None, "vision_cache: off, no photo is seen twice in one epoch; memory or disk keep features anyway"
        if self._needed <= self._room_in_memory and not stored:
            return self._in_memory, self._memory_line
        if self._needed <= self._room_on_disk(stored):
            return self._on_disk, self._disk_line
        return None, self._too_large(stored)

    @property
    def _root(self) -> Path:
        return self.recipe.vision_cache_dir or self.recipe.dataset_dir / FEATURES_FOLDER

    @property
    def _budget(self) -> int:
        return int(self.recipe.vision_cache_gb * 1e9)

    @property
    def _needed(self) -> int:
        """Bytes of all features, as far as anybody knows."""
        if self.num_tokens is None:
            return self._budget
        return self.num_tokens * self.hidden_size * self.dtype.itemsize

    @property
    def _in_memory(self) -> VisionCachePlan:
        root = memory_folder(_all_runs(), self.recipe.output_dir)
        store = FeatureStore(root, self.hidden_size, self.dtype)
        return VisionCachePlan("memory", root, store, self._budget, min(self._needed, self._budget), False)

    @property
    def _on_disk(self) -> VisionCachePlan:
        room = max(0, self._budget - self._stored_in_all)
        adds = min(max(0, self._needed - self._stored), room)
        return VisionCachePlan("disk", self._root, self._store, self._budget, adds, False)

    @cached_property
    def _store(self) -> FeatureStore:
        computed = [str(self.dtype), f"quantization_bit={self.recipe.quantization_bit}"]
        name = tower_fingerprint(self.model_folder, self.processor, computed)
        return FeatureStore(self._root / name, self.hidden_size, self.dtype)

    @cached_property
    def _stored(self) -> int:
        """Bytes of this tower's features on disk."""
        return stored_bytes(self._store.folder)

    @cached_property
    def _stored_in_all(self) -> int:
        """Bytes of all towers' features on disk."""
        return stored_bytes(self._root)

    @property
    def _room_in_memory(self) -> int:
        if not shared_folder.SHARED_MEMORY.is_dir():
            return 0
        return min(self._budget, free_bytes(shared_folder.SHARED_MEMORY) // 2, free_memory() // 2)

    def _room_on_disk(self, stored: int) -> int:
        """For features of this tower, with the `stored` ones; other towers' take their part of the budget."""
        if not _is_writable(self._root):
            return 0
        others = self._stored_in_all - stored
        return max(0, min(self._budget - others, stored + free_bytes(self._root) // 2))

    @property
    def _memory_line(self) -> str:
        return f"vision_cache: memory, up to {_gb(self._in_memory.num_bytes)} on each machine"

    @property
    def _disk_line(self) -> str:
        others = self._stored_in_all - self._stored
        also = f", and {_gb(others)} of other settings in {self._root}" if others else ""
        return (
            f"vision_cache: disk, {self._store.folder} holds {_gb(self._stored)} of features{also}; up to "
            f"{_gb(self._on_disk.num_bytes)} are added and stay for other runs, delete them whenever you like"
        )

    def _too_large(self, stored: int) -> str:
        disk = f"{_gb(self._room_on_disk(stored))} in {self._root}"
        if not _is_writable(self._root):
            disk = f"none in {self._root}, where this run may not write (vision_cache_dir names another folder)"
        return (
            f"vision_cache: off, all features take {_gb(self._needed)}, and there is room for "
            f"{_gb(self._room_in_memory)} in memory and {disk} (vision_cache_gb, and half of what is free); "
            "vision_cache: memory or disk keep a part"
        )


def _num_tokens(lengths: Sequence[Sequence[Length]] | None) -> int | None:
    return None if lengths is None else sum(int(Lengths.of(rows).num_image_tokens.sum()) for rows in lengths)


def _what_trains(recipe: SftRecipe) -> str | None:
    """Why features do not stay as they are, if they do not."""
    if not recipe.freeze_vision_tower:
        return "the vision tower trains (freeze_vision_tower: false)"
    if not recipe.freeze_multi_modal_projector:
        return "the projector trains (freeze_multi_modal_projector: false)"
    if recipe.adapter_name_or_path is not None:
        path = locate_adapter(recipe.adapter_name_or_path) / SAFETENSORS_WEIGHTS_NAME
        if path.is_file() and holds_tower_weights(path):
            return f"the adapter {recipe.adapter_name_or_path} changes the vision tower and trains on"
    return None


@contextmanager
def _folder(plan: VisionCachePlan | None) -> Iterator[None]:
    in_memory = plan.root if plan is not None and plan.place == "memory" else None
    with shared_folder.own_folder(in_memory, _all_runs()):
        if plan is not None and plan.place == "disk":
            try:
                plan.store.folder.mkdir(parents=True, exist_ok=True)
                plan.store.delete_abandoned()
            except OSError as error:
                raise RecipeError(_not_writable(plan.root, error.strerror or str(error))) from error
        yield


def _writer(plan: VisionCachePlan) -> FeatureWriter:
    return FeatureWriter(
        plan.store,
        _share(plan),
        remedy=_remedy(plan.place),
        must_find_room=plan.is_asked_for,
        ends_with_the_run=plan.place == "memory",
    )


def _share(plan: VisionCachePlan) -> int:
    """Bytes that this process may add: its part of what the budget leaves on this machine."""
    room = plan.budget - stored_bytes(plan.root)
    if not plan.is_asked_for:
        room = min(room, free_bytes(plan.root) // 2)
    return max(0, room) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _all_runs() -> Path:
    """The folder of all of this user's runs that keep features in memory."""
    return shared_folder.SHARED_MEMORY / f"riskva-features-{os.getuid()}"


def _is_writable(path: Path) -> bool:
    try:
        return os.access(nearest_folder(path), os.W_OK | os.X_OK)
    except OSError:  # a folder above it that may not be looked into
        return False


def _not_writable(root: Path, why: str) -> str:
    return f"vision_cache_dir: features cannot be kept in {root} ({why}); name a folder that this run may write"


def _remedy(place: Place) -> str:
    if place == "disk":
        return "make room there, lower vision_cache_gb, or name another folder as vision_cache_dir"
    return "give the container more (docker run --shm-size=32g), lower vision_cache_gb, or set vision_cache: disk"


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
