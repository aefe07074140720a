"""Which rows a recipe trains and evaluates on, looked through before anything is trained."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from riskva.data.datasets import ConversationDataset, open_datasets
from riskva.data.parallel import num_cores
from riskva.encoding import Processor
from riskva.encoding.survey import Survey, survey
from riskva.errors import DataError
from riskva.recipe import SftRecipe


@dataclass(frozen=True)
class Rows:
    """What to train and evaluate on, and what the first pass over the training rows found."""

    train: ConversationDataset
    train_lengths: Sequence[int]
    """Tokens of each training row."""
    evaluation: ConversationDataset | None
    survey: Survey


def open_rows(recipe: SftRecipe, processor: Processor, seed: int) -> Rows:
    """The recipe's rows, every one of them measured; `seed` decides which ones `val_size` splits off.

    Raises `DataError` that lists the rows that cannot be used, have no answer, or are over `cutoff_len`.
    """
    train = _open(recipe, recipe.dataset)
    evaluation = _open(recipe, recipe.eval_dataset) if recipe.eval_dataset else None
    if recipe.val_size:
        train, evaluation = _split_off(train, recipe.val_size, seed)
    num_workers = recipe.preprocessing_num_workers or num_cores()
    found = survey(train, processor, "training rows", num_workers)
    kept = _usable(found, recipe)
    if evaluation is not None:
        evaluation = evaluation.select(_usable(survey(evaluation, processor, "evaluation rows", num_workers), recipe))
    return Rows(train.select(kept), [found.lengths[i].total for i in kept], evaluation, found)


def _usable(found: Survey, recipe: SftRecipe) -> list[int]:
    if found.unanswered:
        raise DataError(f"{len(found.unanswered)} rows have no answer: {', '.join(found.unanswered[:10])}")
    return found.kept(recipe.cutoff_len, recipe.drop_overlong)


def _open(recipe: SftRecipe, names: Sequence[str]) -> ConversationDataset:
    return open_datasets(names, recipe.dataset_dir, recipe.media_dir, recipe.max_samples)


def _split_off(
    rows: ConversationDataset, val_size: float, seed: int
) -> tuple[ConversationDataset, ConversationDataset]:
    """Training and evaluation rows: `val_size` is a share below 1, a number of rows from 1 on."""
    num_held_out = round(val_size * len(rows)) if val_size < 1 else int(val_size)
    if not 0 < num_held_out < len(rows):
        raise DataError(f"val_size: {val_size} takes {num_held_out} of {len(rows)} rows; both parts need at least one")
    order = random.Random(seed).sample(range(len(rows)), len(rows))
    return rows.select(sorted(order[num_held_out:])), rows.select(sorted(order[:num_held_out]))
