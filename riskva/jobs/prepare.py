"""`stage: prepare`: a table of photos becomes data sets that sft, predict and eval open by name."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from riskva import __version__
from riskva.console import note, progress
from riskva.data.conversation import Photo
from riskva.data.formats import BASE64_COLUMN
from riskva.data.images import EncodedPhoto, reencode
from riskva.data.manifest import Manifest, SourceTable, WrittenFile
from riskva.data.parallel import num_cores, ordered_map
from riskva.data.preview import preview
from riskva.data.registry import prepared_entry
from riskva.errors import DataError, ImageError, OutputFolderError, RecipeError, TooManyBadRowsError
from riskva.files import sha256_of, write_whole
from riskva.preparation.records import BadRow, DefectRecord, Prompt, make_prompt, to_conversation
from riskva.preparation.splits import assign_splits
from riskva.preparation.staging import QUARANTINE_NAME, Staging
from riskva.preparation.table import Table, TableLayout, open_table
from riskva.preparation.writers import (
    OWN_COLUMNS,
    JsonlWriter,
    ParquetWriter,
    PhotoFolder,
    PhotoNames,
    SplitWriter,
    certain_name,
)
from riskva.recipe import PrepareRecipe
from riskva.report import (
    DEFAULT_FORMAT,
    DEFAULT_SYSTEM_PROMPT,
    ReportFormat,
    RiskLevel,
    default_question,
)

# These say how to run, not what to make: the same data set comes out whatever they are.
_NOT_IN_MANIFEST = {"preprocessing_num_workers", "overwrite_output_dir", "preview", "preview_rows", "output_dir"}
_EXAMPLES = 3


@dataclass(frozen=True)
class _Source:
    """The table, opened, and what is made of its rows."""

    table: Table
    report_format: ReportFormat
    prompt: Prompt


@dataclass(frozen=True)
class _Survey:
    """What a first pass over the table found.

    The level and split of each good row by its line, the bad rows, and the photo files that will certainly be written.
    """

    levels: Mapping[int, RiskLevel]
    splits: Mapping[int, str]
    bad: tuple[BadRow, ...]
    photo_names: frozenset[str]

    @property
    def num_rows(self) -> int:
        return len(self.levels) + len(self.bad)


@dataclass(frozen=True)
class _Built:
    """What was written: files by split, photo files, the levels of each split's rows, and every bad row."""

    files: Mapping[str, Sequence[WrittenFile]]
    photos: Sequence[WrittenFile]
    levels: Mapping[str, Counter[RiskLevel]]
    bad: Sequence[BadRow]


def run(recipe: PrepareRecipe) -> None:
    """Read the table, split it, check and shrink its photos, and write the data sets with all that describes them.

    With `preview`, print the first rows of that file and do nothing else. Bad rows are listed in quarantine.jsonl even
    when there are too many; where that run was to overwrite a data set, whose list stays as it is, they are listed in
    quarantine.failed.jsonl. Raises `DataError` for a table that cannot be read, `TooManyBadRowsError` above
    `max_bad_share`, and `OutputFolderError` for a folder that holds something else.
    """
    if recipe.preview is not None:
        print(preview(recipe.preview, recipe.preview_rows))
        return
    source = _open(recipe)
    staging = _staging(recipe, source)
    note(f"{source.table.path}: {source.table.file.label}")
    survey = _survey(source.table, recipe)
    staging.refuse_clashes(survey.photo_names)
    _judge(survey.bad, survey.num_rows, recipe, staging.failure_list)
    with staging:
        built = _build(source, survey, recipe, staging.folder)
        _judge(built.bad, survey.num_rows, recipe, staging.failure_list)
        _list(built.bad, staging.folder / QUARANTINE_NAME)
        manifest = _manifest(source, survey, built, recipe)
        staging.publish(manifest, _registry(built, recipe))
    print("\n".join(_summary(built, survey.num_rows, recipe, staging.output_dir)))


def plan(recipe: PrepareRecipe) -> list[str]:
    """What `run` would do, as lines for a person: rows by split and level, bad rows, files. Nothing is written.

    Raises what `run` would raise before it opens a photo, `TooManyBadRowsError` for missing photos among it.
    """
    if recipe.preview is not None:
        return [f"would print the first {recipe.preview_rows} rows of {recipe.preview}"]
    source = _open(recipe)
    staging = _staging(recipe, source)
    survey = _survey(source.table, recipe)
    staging.refuse_clashes(survey.photo_names)
    _judge(survey.bad, survey.num_rows, recipe)
    levels = {name: Counter[RiskLevel]() for name in _split_names(recipe)}
    for line, split in survey.splits.items():
        levels[split][survey.levels[line]] += 1
    return [
        f"table: {source.table.path} ({source.table.file.label}), {survey.num_rows} rows",
        *_level_lines(levels),
        *_bad_lines(survey.bad, survey.num_rows),
        "photos are only looked for here; the job also decodes them",
        *(f"would write {staging.output_dir / name}" for name in _expected_names(recipe)),
    ]


def _open(recipe: PrepareRecipe) -> _Source:
    report_format = recipe.report_format() or DEFAULT_FORMAT
    layout = TableLayout(report_format, recipe.id_column, recipe.image_column, recipe.group_by)
    table = open_table(_required(recipe.csv_path, "csv_path"), layout, recipe.image_base_path)
    taken = [name for name in table.file.columns if name in OWN_COLUMNS and name != recipe.id_column]
    if taken:
        raise DataError(f"{table.path}: prepared rows have columns {', '.join(taken)} of their own; rename the table's")
    prompt = make_prompt(
        DEFAULT_SYSTEM_PROMPT if recipe.system_prompt is None else recipe.system_prompt,
        default_question(report_format) if recipe.question is None else recipe.question,
    )
    return _Source(table, report_format, prompt)


def _required(path: Path | None, key: str) -> Path:
    if path is None:
        raise RecipeError(f"{key} is missing; prepare needs it unless preview names a file to show")
    return path


def _staging(recipe: PrepareRecipe, source: _Source) -> Staging:
    """The output folder, checked before any work is done."""
    output_dir = _required(recipe.output_dir, "output_dir")
    for key, path in (("csv_path", source.table.path), ("image_base_path", source.table.photo_folder)):
        if path.resolve().is_relative_to(output_dir.resolve()):
            raise OutputFolderError(
                f"{output_dir}: output_dir holds {key} ({path}), which prepare might overwrite; name another output_dir"
            )
    return Staging(output_dir, recipe.overwrite_output_dir, _expected_names(recipe))


def _survey(table: Table, recipe: PrepareRecipe) -> _Survey:
    levels: dict[int, RiskLevel] = {}
    groups: list[str] = []
    bad: list[BadRow] = []
    photo_names: set[str] = set()
    for row in table.rows():
        if isinstance(row, BadRow):
            bad.append(row)
        else:
            levels[row.line] = row.report.level
            groups.append(row.group or "")
            if _stores_photos(recipe) and (name := certain_name(row.photo_name)):
                photo_names.add(name)
    if not levels and not bad:
        raise DataError(f"{table.path}: the table has a header and no rows")
    splits = assign_splits(list(levels.values()), recipe.split, recipe.seed, groups if recipe.group_by else None)
    return _Survey(levels, dict(zip(levels, splits, strict=True)), tuple(bad), frozenset(photo_names))


def _judge(bad: Sequence[BadRow], num_rows: int, recipe: PrepareRecipe, path: Path | None = None) -> None:
    """Raise `TooManyBadRowsError` when there are too many bad rows to go on, and list them in `path`, if given."""
    if len(bad) < num_rows and len(bad) <= recipe.max_bad_share * num_rows:
        return
    if path is not None:
        _list(bad, path)
    raise TooManyBadRowsError(
        f"{recipe.csv_path}: max_bad_share allows {recipe.max_bad_share:.1%} of the rows to be bad\n"
        + "\n".join(_bad_lines(bad, num_rows))
        + (f"\nAll are listed in {path}; mend" if path else "\nMend")
        + " the table or its photos, or raise max_bad_share"
    )


def _list(bad: Sequence[BadRow], path: Path) -> None:
    with write_whole(path) as stream:
        for one in bad:
            stream.write(json.dumps(asdict(one), ensure_ascii=False) + "\n")


def _build(source: _Source, survey: _Survey, recipe: PrepareRecipe, folder: Path) -> _Built:
    """Everything but the manifest, in `folder`. Photos pass through one by one, several being worked on at a time."""
    writers = {name: _writer(recipe, folder, name, source.table.file.columns) for name in _used_splits(survey, recipe)}
    names, photos = PhotoNames(), PhotoFolder(folder, recipe.image_storage)
    levels = {name: Counter[RiskLevel]() for name in _split_names(recipe)}
    bad: list[BadRow] = []
    for row, result in _encoded_rows(source.table, survey, recipe):
        if isinstance(result, BadRow):
            bad.append(result)
            continue
        photo = _photo(row)
        name = names.name(photo, result)
        if _stores_photos(recipe):
            photos.store(photo, result, name)
        stored = Photo(data=result.data, name=name)
        split = survey.splits[row.line]
        writers[split].add(to_conversation(row, stored, source.prompt, source.report_format))
        levels[split][row.report.level] += 1
    closed = {name: writer.close() for name, writer in writers.items()}
    # A split whose photos all turned out bad is left out: a data set without rows would only fail later.
    files = {name: files for name, files in closed.items() if levels[name]}
    return _Built(files, list(photos.files.values()), levels, sorted([*survey.bad, *bad], key=lambda one: one.line))


def _encoded_rows(
    table: Table, survey: _Survey, recipe: PrepareRecipe
) -> Iterator[tuple[DefectRecord, EncodedPhoto | BadRow]]:
    """Each row that the survey found good, with its photo fit for the data set or with what is wrong with the photo."""

    def encode(row: DefectRecord) -> tuple[DefectRecord, EncodedPhoto | BadRow]:
        try:
            return row, reencode(_photo(row), recipe.max_image_size, recipe.image_quality)
        except ImageError as error:
            return row, BadRow(row.line, row.id, row.photo_name, error.reason, str(error))

    good = (row for row in table.rows() if isinstance(row, DefectRecord) and row.line in survey.splits)
    encoded = ordered_map(encode, good, recipe.preprocessing_num_workers or num_cores())
    return progress(encoded, len(survey.splits), "prepare", "photo")


def _stores_photos(recipe: PrepareRecipe) -> bool:
    return recipe.output_format == "jsonl" and recipe.image_encoding == "bytes"


def _photo(row: DefectRecord) -> Photo:
    return Photo(path=row.photo, name=row.photo_name)


def _writer(recipe: PrepareRecipe, folder: Path, split: str, columns: Sequence[str]) -> SplitWriter:
    if recipe.output_format == "jsonl":
        return JsonlWriter(folder, split, recipe.image_encoding)
    return ParquetWriter(
        folder, split, recipe.image_encoding, compression=recipe.parquet_compression, extra_columns=columns
    )


def _split_names(recipe: PrepareRecipe) -> list[str]:
    return [name for name, share in recipe.split.items() if share > 0]


def _used_splits(survey: _Survey, recipe: PrepareRecipe) -> list[str]:
    used = set(survey.splits.values())
    return [name for name in _split_names(recipe) if name in used]


def _expected_names(recipe: PrepareRecipe) -> list[str]:
    suffix = ".jsonl" if recipe.output_format == "jsonl" else "-00000-of-00001.parquet"
    return [*(f"{name}{suffix}" for name in _split_names(recipe)), "manifest.json", "dataset_info.json"]


def _manifest(source: _Source, survey: _Survey, built: _Built, recipe: PrepareRecipe) -> Manifest:
    path = source.table.path
    return Manifest(
        riskva_version=__version__,
        table=SourceTable(
            str(path), sha256_of(path), source.table.file.label, rows=survey.num_rows, bad_rows=len(built.bad)
        ),
        recipe=recipe.model_dump(mode="json", exclude=_NOT_IN_MANIFEST),
        report_format=source.report_format,
        system_prompt=source.prompt.system,
        question=source.prompt.question,
        files=tuple(one for files in built.files.values() for one in files),
        photos=tuple(built.photos),
    )


def _registry(built: _Built, recipe: PrepareRecipe) -> dict[str, Any]:
    images = BASE64_COLUMN if recipe.image_encoding == "base64" else "images"
    return {
        f"{recipe.dataset_name}_{split}": prepared_entry(
            files[0].name if len(files) == 1 else f"{split}-*-of-{len(files):05d}.parquet", images
        )
        for split, files in built.files.items()
    }


def _summary(built: _Built, num_rows: int, recipe: PrepareRecipe, output_dir: Path) -> Iterator[str]:
    yield from _level_lines(built.levels)
    yield from _bad_lines(built.bad, num_rows)
    for split, files in built.files.items():
        for one in files:
            name = f"{recipe.dataset_name}_{split}"
            yield f"{output_dir / one.name}  {one.rows} rows, {one.bytes / 1e6:.2f} MB, data set {name}"
    if built.photos:
        yield f"{len(built.photos)} photos beside them, {sum(one.bytes for one in built.photos) / 1e6:.2f} MB"
    yield f"next: riskva-run recipes/sft_lora.yaml dataset_dir={output_dir}{_dataset_keys(recipe, list(built.files))}"


def _dataset_keys(recipe: PrepareRecipe, splits: Sequence[str]) -> str:
    """The overrides that sft_lora.yaml needs for these splits, where its own values would not name them."""
    if recipe.dataset_name == "building_defect" and {"train", "val"} <= set(splits):
        return ""
    evaluation = f"eval_dataset={recipe.dataset_name}_val" if "val" in splits else "eval_dataset=null eval_strategy=no"
    return f" dataset={recipe.dataset_name}_{splits[0]} {evaluation}"


def _level_lines(levels: Mapping[str, Counter[RiskLevel]]) -> Iterator[str]:
    """Rows by split and level; the majority's share is what always answering that level would score."""
    for split, counts in levels.items():
        total = counts.total()
        if not total:
            yield f"{split}: no rows"
            continue
        shown = ", ".join(f"{level.label} {counts[level]}" for level in RiskLevel)
        commonest, number = max(counts.items(), key=lambda item: (item[1], -item[0]))
        yield f"{split}: {total} rows ({shown}); always {commonest.label} would be right in {number / total:.1%}"


def _bad_lines(bad: Sequence[BadRow], num_rows: int) -> Iterator[str]:
    if not bad:
        yield f"bad rows: none of {num_rows}"
        return
    reasons = ", ".join(f"{reason} {number}" for reason, number in Counter(one.reason for one in bad).most_common())
    yield f"bad rows: {len(bad)} of {num_rows} ({len(bad) / num_rows:.1%}): {reasons}"
    for one in bad[:_EXAMPLES]:
        yield f"  line {one.line} (id {one.id or '?'}): {one.reason}: {one.message}"
