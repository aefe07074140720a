"""Photos to be answered that stand in no registry: one, a folder's, those that fit a pattern, a list's, a file's rows.

Opening looks at names alone; only a file of rows is read for its ids. Each photo is opened when it is its turn, so one
that is not there or is no picture costs its own row and no other.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from riskva.columns import ID_COLUMN as TABLE_ID_COLUMN
from riskva.console import note
from riskva.csvfile import text_encoding
from riskva.data.asking import Asking
from riskva.data.conversation import Conversation, Photo
from riskva.data.datasets import numbered, open_files
from riskva.data.formats import BASE64_COLUMN, RowPlace, read_row
from riskva.data.photo_scan import (
    PICTURE_SUFFIXES,
    Scan,
    counted,
    is_pattern,
    is_picture,
    readable,
    scan_folder,
    scan_pattern,
    shown,
)
from riskva.data.registry import DATA_SUFFIXES, REGISTRY_NAME, Columns, DatasetEntry, Tags, closest
from riskva.data.sources import ParquetSource, Row, RowSource, open_source
from riskva.errors import DataError, MissingDataError
from riskva.paths import is_file, is_folder

LIST_SUFFIX = ".txt"

PHOTO_COLUMNS = (
    *("images", "image", "image_path", "photo", "photos", BASE64_COLUMN),
    *("图片", "照片", "图像", "图片路径", "照片路径", "图像路径", "图片名称", "照片名称"),
)
"""What a column of photos may be called, in capitals or not; the first of these that a file has counts."""

_MESSAGE_COLUMNS = ("messages", "conversations")
_OPENAI_TAGS = Tags("role", "content", "user", "assistant")
_QUESTION, _SYSTEM = "<question>", "<system>"  # no file calls a column so

_ROWS_LOOKED_AT = 64
"""JSON names columns in every row; those of the first rows stand for all."""

_MOST_NEIGHBOURS = 5000
"""Names that are compared with one that is not there."""

_KINDS = (
    f"a folder, a pattern such as site/**/*.jpg, a list ({LIST_SUFFIX}), a file of rows "
    f"({', '.join(DATA_SUFFIXES)}) or a picture ({', '.join(PICTURE_SUFFIXES)})"
)


class Inputs(Protocol):
    """What is to be answered, by number and by id: prompts, or conversations with an answer to compare with."""

    @property
    def ids(self) -> Sequence[str]:
        """Each sample's id, in order and all different."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Conversation: ...

    def id_of(self, index: int) -> str:
        """The id of one sample."""
        ...


class PhotoFiles:
    """Photos in files of their own, all asked alike; picklable, and some bytes more a photo than its path has.

    A name is looked for in `folders`, one after the other; a photo that is in none is missing when it is opened.
    """

    def __init__(
        self, names: Sequence[str], asking: Asking, folders: Sequence[Path], places: tuple[Path, Sequence[int]] | None
    ) -> None:
        """`names` are paths relative to `folders`; `places` a list's file and the line of each, where there is one."""
        # As bytes, since not every name is text that can be written; as Arrow, so that no object is made for each.
        self._names = pa.array((os.fsencode(name) for name in names), pa.large_binary())
        self._asking = asking
        self._folders = tuple(folders)
        self._places = (places[0], array("q", places[1])) if places else None
        self._ids = _distinct([readable(name) for name in names])

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Conversation:
        name = os.fsdecode(self._names[index].as_py())
        source = f"{self._places[0]}:{self._places[1][index]}" if self._places else ""
        return self._asking.conversation(self._photo(name), self.id_of(index), source)

    @property
    def ids(self) -> list[str]:
        """Each photo's path as it is listed, or relative to its folder; one that occurs again gets a number."""
        return self._ids.to_pylist()  # type: ignore[no-any-return]

    def id_of(self, index: int) -> str:
        """The id of one photo."""
        return self._ids[index].as_py()  # type: ignore[no-any-return]

    def _photo(self, name: str) -> Photo:
        candidates = tuple(_candidates(name, self._folders))
        for number, path in enumerate(candidates):
            if is_file(path):
                return Photo(path=path, name=readable(path.as_posix()), passed_over=candidates[:number])
        return Photo(path=candidates[0], name=readable(name), passed_over=candidates[1:])


class PhotoRows:
    """The rows of a file with a column of photos and no questions; picklable. Other columns travel as `extra`."""

    def __init__(
        self, source: RowSource, column: str, asking: Asking, folders: Sequence[Path], max_samples: int | None
    ) -> None:
        self._source = source
        self._asked: Row = {_QUESTION: asking.question, _SYSTEM: asking.system_prompt}
        self._folders = tuple(folders)
        columns = Columns(prompt=_QUESTION, query=None, response=None, system=_SYSTEM, images=column)
        self._entry = DatasetEntry(source.path.stem, (source.path,), "alpaca", columns)
        self._ids = _distinct(_ids_of(source))[:max_samples]

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Conversation:
        sample_id, row = self.id_of(index), range(len(self))[index]
        place = RowPlace(f"{self._source.path}:{self._source.line(row)}", sample_id, self._folders)
        return read_row({**self._source.row(row), **self._asked}, self._entry, place)

    @property
    def ids(self) -> list[str]:
        """Each row's `id` or `image_id`, or else `file-line`; one that occurs again gets a number."""
        return self._ids.to_pylist()  # type: ignore[no-any-return]

    def id_of(self, index: int) -> str:
        """The id of one row."""
        return self._ids[index].as_py()  # type: ignore[no-any-return]


def one_photo(path: Path, asking: Asking) -> PhotoFiles:
    """The photo that a recipe's `image` names, asked as `asking` says.

    Raises `MissingDataError` when it is not there, and `DataError` when what lies there is no single photo.
    """
    path = path.expanduser()
    if is_folder(path) or path.suffix.lower() in (LIST_SUFFIX, *DATA_SUFFIXES):
        raise DataError(f"image: {path}: image names one photo; for many, name folders, lists and files as images")
    if not is_file(path):
        raise MissingDataError(f"image: {path}: no such file{_near(path)}")
    return PhotoFiles([path.name], asking, [path.parent], None)


def open_inputs(source: Path, asking: Asking, max_samples: int | None = None, media_dir: Path | None = None) -> Inputs:
    """What a recipe's `images` names: a folder with all below it, a pattern, a list, a file of rows, or one photo.

    Photos are asked as `asking` says; rows with messages, or with an instruction, bring their own questions and
    answers. Paths in lists and rows are relative to `media_dir`, if there is one, to the folder of the file that names
    them, or to the working directory (the last not in rows with their own questions). `max_samples` takes the first.

    Raises `MissingDataError` when nothing is there or fits, and `DataError` when nothing in it can be answered.
    """
    source = source.expanduser()
    folders = [*([media_dir] if media_dir else []), source.parent, Path()]
    if is_folder(source):
        return _of_scan(source, _checked(source, scan_folder(source)), asking, max_samples)
    if is_file(source):
        return _of_file(source, asking, folders, max_samples)
    if is_pattern(source):
        return _of_scan(source, _checked(source, scan_pattern(source)), asking, max_samples)
    raise MissingDataError(f"images: {source}: no such file or folder{_near(source)}; name {_KINDS}")


def _of_scan(source: Path, scan: Scan, asking: Asking, max_samples: int | None) -> PhotoFiles:
    if scan.others:
        note(f"{source}: left out, no picture by its name: {counted(scan.others)} ({shown(scan.others)})")
    if is_file(source / REGISTRY_NAME):
        note(f"{source}: its pictures alone are taken{_data_sets_in(source)}")
    return PhotoFiles(scan.pictures[:max_samples], asking, [scan.folder], None)


def _checked(source: Path, scan: Scan) -> Scan:
    if scan.pictures:
        return scan
    found = f"{counted(scan.others)}, none a picture: {shown(scan.others)}" if scan.others else "no file"
    hint = _data_sets_in(source) if is_file(source / REGISTRY_NAME) else _row_file_in(scan)
    raise DataError(f"images: {source} holds {found}; pictures end in {', '.join(PICTURE_SUFFIXES)}{hint}")


def _data_sets_in(folder: Path) -> str:
    return f"; for the data sets in its {REGISTRY_NAME}, set dataset_dir: {folder} and eval_dataset to their names"


def _row_file_in(scan: Scan) -> str:
    files = [name for name in scan.others if name.lower().endswith((LIST_SUFFIX, *DATA_SUFFIXES))]
    return f"; for the rows of a file, name it: images: {readable(str(scan.folder / files[0]))}" if files else ""


def _of_file(source: Path, asking: Asking, folders: Sequence[Path], max_samples: int | None) -> Inputs:
    suffix = source.suffix.lower()
    if suffix == LIST_SUFFIX:
        entries = list(islice(_listed(source), max_samples))
        if not entries:
            raise DataError(f"images: {source}: the list names no photo; write one path a line (# begins a remark)")
        return PhotoFiles([name for _, name in entries], asking, folders, (source, [line for line, _ in entries]))
    if suffix in DATA_SUFFIXES:
        return _of_rows(source, asking, folders, max_samples)
    if is_picture(source.name):
        return PhotoFiles([source.name], asking, [source.parent], None)
    raise DataError(f"images: {source}: {suffix or 'such'} files are not read; name {_KINDS}")


def _listed(path: Path) -> Iterator[tuple[int, str]]:
    """The list's entries, each with its line, from 1."""
    with path.open(encoding=text_encoding(path)) as stream:
        for line, text in enumerate(stream, start=1):
            entry = text.strip()
            if not entry or entry.startswith("#"):
                continue
            is_quoted = len(entry) > 2 and entry[0] == entry[-1] and entry[0] in "\"'"
            yield line, entry[1:-1] if is_quoted else entry


def _candidates(name: str, folders: Sequence[Path]) -> Iterator[Path]:
    """Where the photo may be; a name from Windows has the other slashes."""
    for spelling in dict.fromkeys((name, name.replace("\\", "/"))):
        yield from (folder / spelling for folder in folders)


def _of_rows(path: Path, asking: Asking, folders: Sequence[Path], max_samples: int | None) -> Inputs:
    source = open_source(path)
    if not len(source):
        raise DataError(f"images: {path}: the file holds no rows")
    columns = _columns(source)
    photos = next((name for known in PHOTO_COLUMNS for name in columns if name.strip().lower() == known), None)
    if photos is None:
        raise DataError(
            f"images: {path}: no column of photos among {', '.join(columns)}; name it one of {', '.join(PHOTO_COLUMNS)}"
        )
    entry = _entry(source, columns, photos)
    if entry is None:
        return PhotoRows(source, photos, asking, folders, max_samples)
    rows = open_files(entry, folders[0])
    return rows if max_samples is None else rows.select(range(min(max_samples, len(rows))))


def _columns(source: RowSource) -> list[str]:
    if isinstance(source, ParquetSource):
        return list(pq.read_schema(source.path).names)
    columns: dict[str, None] = {}
    faults = []
    for row in range(min(len(source), _ROWS_LOOKED_AT)):
        try:
            columns.update(dict.fromkeys(source.row(row)))
        except DataError as error:  # it is told again when the row is read
            faults.append(error)
    if not columns and faults:
        raise faults[0]
    return list(columns)


def _entry(source: RowSource, columns: Sequence[str], photos: str) -> DatasetEntry | None:
    """How rows that bring their own questions are to be read; None where they bring none."""

    def known(name: str) -> str | None:
        return name if name in columns else None

    name, files = source.path.stem, (source.path,)
    if messages := next((one for one in _MESSAGE_COLUMNS if one in columns), None):
        named = Columns(messages=messages, system=known("system"), tools=known("tools"), images=photos)
        return DatasetEntry(name, files, "sharegpt", named, _tags(source, messages))
    if "instruction" not in columns:
        return None
    named = Columns(
        query=known("input"),
        response=known("output"),
        history=known("history"),
        system=known("system"),
        tools=known("tools"),
        images=photos,
    )
    return DatasetEntry(name, files, "alpaca", named)


def _tags(source: RowSource, messages: str) -> Tags:
    """By the keys of the first turn that can be read; in a CSV turns are text, and their column's name tells."""
    for row in range(min(len(source), _ROWS_LOOKED_AT)):
        try:
            turns = source.row(row).get(messages)
        except DataError:  # it is told again when the row is read
            continue
        if isinstance(turns, list) and turns and isinstance(turns[0], dict):
            return _OPENAI_TAGS if _OPENAI_TAGS.role in turns[0] else Tags()
    return _OPENAI_TAGS if messages == "messages" else Tags()


def _ids_of(source: RowSource) -> list[str]:
    own = source.ids.to_pylist()
    if not any(own):
        cells = (row.get(TABLE_ID_COLUMN) for row in source.rows_of(TABLE_ID_COLUMN))
        own = [None if cell in (None, "") else str(cell) for cell in cells]
    return [one or f"{source.path.stem}-{source.line(row)}" for row, one in enumerate(own)]


def _distinct(ids: Sequence[str]) -> pa.Array:
    """The ids, all different, as Arrow keeps them: no object for each of a folder's photos."""
    return pa.array(ids if len(set(ids)) == len(ids) else numbered(ids), pa.large_string())


def _near(path: Path) -> str:
    """What stands in for `path` in a message: a like name beside it, or which folder is not there either."""
    if not is_folder(path.parent):
        return f" (nor is there a folder {path.parent})"
    try:
        names = islice(sorted(one.name for one in path.parent.iterdir()), _MOST_NEIGHBOURS)
    except OSError:
        return ""  # that the file cannot be found is told in any case
    near = closest(path.name, list(names))
    return f"; did you mean {readable(str(path.with_name(near)))}?" if near else ""
