"""The first half of prepare: every row's photo is read, proven to decode and made fit, and the rows go into pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter

from riskva.console import note, progress
from riskva.data.images import reencode
from riskva.data.parallel import num_cores, ordered_map
from riskva.errors import ImageError
from riskva.parts import Part
from riskva.preparation.pieces import DoneRow, PieceFolder, file_state, in_pieces
from riskva.preparation.survey import Survey
from riskva.recipe import PrepareRecipe
from riskva.tables.records import BadRow, DefectRecord, GoodRow, PreparedRow, StoredPhoto, name_of_row


def work_off(
    rows: Iterable[DefectRecord | BadRow], part: Part, folder: PieceFolder, survey: Survey, recipe: PrepareRecipe
) -> None:
    """Prepare the part's rows that are still to do, several photos at a time, piece by piece."""
    folder.open()
    if survey.finished_pieces:
        note(f"going on: {survey.num_done} of {survey.num_own} rows stand in {folder.path}")

    def to_do() -> Iterator[tuple[int, DefectRecord | BadRow]]:
        for number, piece in enumerate(in_pieces(row for row in rows if part.holds(name_of_row(row)))):
            if number not in survey.finished_pieces:
                yield from ((number, row) for row in piece)

    def work(item: tuple[int, DefectRecord | BadRow]) -> tuple[int, DoneRow]:
        return item[0], prepare_row(item[1], recipe)

    done = ordered_map(work, to_do(), recipe.preprocessing_num_workers or num_cores())
    shown = progress(done, survey.num_own - survey.num_done, "prepare", "row")
    for number, piece in groupby(shown, key=itemgetter(0)):
        with folder.writing(number) as writer:
            for _, row in piece:
                writer.add(row)


def prepare_row(row: DefectRecord | BadRow, recipe: PrepareRecipe) -> DoneRow:
    """The row with its photo fit for the data set, or with what is wrong with the photo."""
    if isinstance(row, BadRow):
        return DoneRow(row)
    state = file_state(row.photo)
    try:
        made = reencode(row.photo, recipe.max_image_size, recipe.image_quality)
    except ImageError as error:
        bad = BadRow(row.number, row.table, row.line, row.id, row.photo.name, error.reason, str(error))
        return DoneRow(bad, state=state)
    photo = StoredPhoto(
        name=row.photo.name,
        # As seen from anywhere: another process may merge the parts.
        source=None if row.photo.path is None else row.photo.path.absolute(),
        size=made.size,
        num_bytes=len(made.data),
        sha256=made.sha256,
        perceptual_hash=made.perceptual_hash,
        is_unchanged=made.is_unchanged,
    )
    facts = {name: getattr(row, name) for name in GoodRow.__dataclass_fields__}
    stays = made.is_unchanged and photo.source is not None
    return DoneRow(PreparedRow(photo=photo, **facts), None if stays else made.data, state)
