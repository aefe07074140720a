"""What a finished prepare or merge says on the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from riskva.audit.facts import train_split
from riskva.preparation.assembly import Assembled
from riskva.preparation.quarantine import bad_lines
from riskva.preparation.recipe_readings import split_names
from riskva.preparation.staging import AUDIT_PAGE_NAME
from riskva.recipe import PrepareRecipe
from riskva.report import RiskLevel


def summary(made: Assembled, recipe: PrepareRecipe, output_dir: Path) -> Iterator[str]:
    """Rows by split and level, bad rows, files, what the audit found, and the command that comes next."""
    yield from level_lines(levels_by_split(made.splits, made.index.levels, split_names(recipe)))
    yield from bad_lines(made.index.bad, made.index.num_rows)
    for split, files in made.files.items():
        for one in files:
            name = f"{recipe.dataset_name}_{split}"
            yield f"{output_dir / one.name}  {one.rows} rows, {one.bytes / 1e6:.2f} MB, data set {name}"
    if made.photos:
        yield f"{len(made.photos)} photos beside them, {sum(one.bytes for one in made.photos) / 1e6:.2f} MB"
    yield from _audit_lines(made, output_dir)
    yield f"next: riskva-run recipes/sft_lora.yaml dataset_dir={output_dir}{_dataset_keys(recipe, list(made.files))}"


def levels_by_split(
    splits: Sequence[str], levels: Sequence[RiskLevel], names: Sequence[str]
) -> dict[str, Counter[RiskLevel]]:
    """How many rows of each level each of the splits called `names` has, given every row's split and level."""
    counts = {name: Counter[RiskLevel]() for name in names}
    for split, level in zip(splits, levels, strict=True):
        counts[split][level] += 1
    return counts


def level_lines(levels: Mapping[str, Counter[RiskLevel]]) -> Iterator[str]:
    """Rows by split and level; the majority's share is what always answering that level would score."""
    for split, counts in levels.items():
        total = counts.total()
        if not total:
            yield f"{split}: no rows"
            continue
        shown = ", ".join(f"{level.label} {counts[level]}" for level in RiskLevel)
        commonest, number = max(counts.items(), key=lambda item: (item[1], -item[0]))
        yield f"{split}: {total} rows ({shown}); always {commonest.label} would be right in {number / total:.1%}"


def _audit_lines(made: Assembled, output_dir: Path) -> Iterator[str]:
    """The errors and warnings, a line each, and where the page is."""
    found = Counter(one.severity for one in made.audit.findings)
    yield (
        f"audit: {found['error']} errors, {found['warning']} warnings; the page to look at: "
        f"{output_dir / AUDIT_PAGE_NAME}"
    )
    for one in made.audit.findings:
        if one.severity != "info":
            yield f"  {one.severity}: {one.title} ({one.count})"


def _dataset_keys(recipe: PrepareRecipe, splits: Sequence[str]) -> str:
    """The overrides that sft_lora.yaml needs for these splits, where its own values would not name them."""
    if recipe.dataset_name == "building_defect" and {"train", "val"} <= set(splits):
        return ""
    evaluation = f"eval_dataset={recipe.dataset_name}_val" if "val" in splits else "eval_dataset=null eval_strategy=no"
    return f" dataset={recipe.dataset_name}_{train_split(splits)} {evaluation}"
