"""Which rows a recipe trains and evaluates on, looked through before anything is trained, unless they are streamed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

from riskva.data.datasets import ConversationDataset, open_datasets
from riskva.data.manifest import Manifest, read_manifest
from riskva.data.parallel import num_cores
from riskva.data.registry import LENGTHS_FOLDER
from riskva.data.verification import Verify, verify_datasets
from riskva.encoding import Processor
from riskva.encoding.length_cache import LengthCache
from riskva.encoding.lengths import Lengths
from riskva.encoding.survey import Asked, Survey, how_asked
from riskva.errors import DataError
from riskva.recipe import SftRecipe


@dataclass(frozen=True)
class Rows:
    """What to train and evaluate on, how the training rows are asked, and what was found when they were measured.

    The lengths run parallel to the rows. `survey` counts the rows that were left out, too. Streamed rows are not
    measured: then there is neither.
    """

    train: ConversationDataset
    evaluation: ConversationDataset | None
    asked: Asked
    survey: Survey | None = None
    train_lengths: Lengths | None = None
    evaluation_lengths: Lengths | None = None


def open_rows(
    recipe: SftRecipe, processor: Processor, seed: int, verify: Verify, *, keeps_lengths: bool = True
) -> Rows:
    """The recipe's rows, their files compared with the manifest as `verify` says.

    Every row is measured; with `streaming` none is. Lengths that an earlier run has kept in `dataset_dir` are used, and
    new ones are kept there if `keeps_lengths`. `seed` decides which rows `val_size` splits off. Raises
    `DataError` for files that differ, and one that lists the rows that cannot be used, have no answer, or are over
    `cutoff_len`.
    """
    names = (*recipe.dataset, *recipe.eval_dataset)
    verify_datasets(names, recipe.dataset_dir, recipe.media_dir, verify)
    train = _open(recipe, recipe.dataset)
    evaluation = _open(recipe, recipe.eval_dataset) if recipe.eval_dataset else None
    if recipe.streaming:
        return Rows(train, evaluation, _asked(train, read_manifest(recipe.dataset_dir), recipe))
    if recipe.val_size:
        train, evaluation = _split_off(train, recipe.val_size, seed)
    cache = LengthCache(recipe.dataset_dir / LENGTHS_FOLDER, processor, keeps_lengths)
    return _measured(train, evaluation, recipe, cache)


def _measured(
    train: ConversationDataset, evaluation: ConversationDataset | None, recipe: SftRecipe, cache: LengthCache
) -> Rows:
    num_workers = recipe.preprocessing_num_workers or num_cores()
    found = cache.survey(train, "training rows", num_workers)
    train, train_lengths = _usable(train, found, recipe)
    evaluation_lengths = None
    if evaluation is not None:
        found_there = cache.survey(evaluation, "evaluation rows", num_workers)
        evaluation, evaluation_lengths = _usable(evaluation, found_there, recipe)
    return Rows(train, evaluation, found.asked, found, train_lengths, evaluation_lengths)


def _usable(rows: ConversationDataset, found: Survey, recipe: SftRecipe) -> tuple[ConversationDataset, Lengths]:
    if found.unanswered:
        named = ", ".join(rows.id_of(number) for number in found.unanswered[:10])
        raise DataError(f"{len(found.unanswered)} rows have no answer: {named}")
    kept = found.kept(rows, recipe.cutoff_len, recipe.drop_overlong)
    return rows.select(kept), found.lengths.select(kept)


def _asked(rows: ConversationDataset, manifest: Manifest | None, recipe: SftRecipe) -> Asked:
    """How rows are asked, as the manifest says, or the first row of each file where it lists not all of them."""
    listed = {recipe.dataset_dir / one.name for one in manifest.files} if manifest else set()
    if manifest is not None and listed.issuperset(rows.paths):
        return Asked(frozenset({manifest.system_prompt or None}), frozenset({manifest.question}))
    return reduce(or_, map(how_asked, rows.first_rows()))


def _open(recipe: SftRecipe, names: Sequence[str]) -> ConversationDataset:
    return open_datasets(
        names, recipe.dataset_dir, recipe.media_dir, recipe.max_samples, in_order_of_files=recipe.streaming
    )


def _split_off(
    rows: ConversationDataset, val_size: float, seed: int
) -> tuple[ConversationDataset, ConversationDataset]:
    """Training and evaluation rows: `val_size` is a share below 1, a number of rows from 1 on."""
    num_held_out = round(val_size * len(rows)) if val_size < 1 else int(val_size)
    if not 0 < num_held_out < len(rows):
        raise DataError(f"val_size: {val_size} takes {num_held_out} of {len(rows)} rows; both parts need at least one")
    order = random.Random(seed).sample(range(len(rows)), len(rows))
    return rows.select(sorted(order[num_held_out:])), rows.select(sorted(order[:num_held_out]))
