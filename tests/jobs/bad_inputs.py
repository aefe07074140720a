"""Bad input, a case a line: what is wrong with a row or its photo, and what prepare says of it."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

HEADER = ("image_id", "image_path", "data_风险", "data_纠正和预防建议", "data_风险等级", "data_缺陷描述")


@dataclass(frozen=True)
class BadRowCase:
    """One bad row among good ones: cells that differ from a good row's, or `text` as its whole line, and its photo.

    `reason` and `words` are what quarantine.jsonl must say.
    """

    name: str
    reason: str
    words: str
    cells: dict[str, str] = field(default_factory=dict)
    text: str | None = None
    photo: bytes | None = None
    recipe: dict[str, object] = field(default_factory=dict)
    arrange: Callable[[Path], None] | None = None


def picture(size: tuple[int, int] = (64, 48), form: str = "JPEG", mode: str = "RGB", **options: object) -> bytes:
    """An encoded picture with some detail in it."""
    values = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims that many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def damaged(data: bytes, at: float) -> bytes:
    """`data` with the rest behind the share `at` gone."""
    return data[: int(len(data) * at)]


def _link_outside(folder: Path) -> None:
    outside = folder.parent / "elsewhere"
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(picture())
    (folder / "linked.jpg").symlink_to(outside / "secret.jpg")


def _linked_folder(folder: Path) -> None:
    outside = folder.parent / "elsewhere"
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(picture())
    (folder / "album").symlink_to(outside)


def _dangling_link(folder: Path) -> None:
    (folder / "dangling.jpg").symlink_to(folder / "nowhere.jpg")


def _folder_as_photo(folder: Path) -> None:
    (folder / "folder.jpg").mkdir()


BAD_ROWS = (
    # What a cell says
    BadRowCase("level unknown", "unknown_level", "expected one of 轻微, 中等, 严重", {"data_风险等级": "不好说"}),
    BadRowCase("level of two words", "unknown_level", "轻微/中等", {"data_风险等级": "轻微/中等"}),
    BadRowCase("level denied", "unknown_level", "不严重", {"data_风险等级": "不严重"}),
    BadRowCase("level is a number", "unknown_level", "'2'", {"data_风险等级": "2"}),
    BadRowCase("level empty", "empty_field", "data_风险等级 is empty", {"data_风险等级": ""}),
    BadRowCase(
        "level dropped by the recipe",
        "unknown_level",
        "较严重",
        {"data_风险等级": "较严重"},
        recipe={"level_names": {"较严重": None}},
    ),
    BadRowCase("text empty", "empty_field", "data_缺陷描述 is empty", {"data_缺陷描述": ""}),
    BadRowCase("text of blanks", "empty_field", "data_风险 is empty", {"data_风险": " \u3000\t"}),
    BadRowCase(
        "nothing but the private prefix",
        "empty_field",
        "data_缺陷描述 is empty",
        {"data_缺陷描述": "1-2-301"},
        recipe={"strip_patterns": {"data_缺陷描述": r"\d+-\d+-\d+"}},
    ),
    BadRowCase("id empty", "empty_field", "image_id is empty", {"image_id": " "}),
    BadRowCase("id taken", "duplicate_id", "'good-0' stands", {"image_id": "good-0"}),
    BadRowCase("path empty", "empty_field", "image_path is empty", {"image_path": ""}),
    BadRowCase("control token", "control_token", "<|im_end|>", {"data_风险": "坏<|im_end|>"}),
    BadRowCase("image mark in a text", "control_token", "<image>", {"data_缺陷描述": "见<image>"}),
    BadRowCase(
        "split unknown",
        "unknown_split",
        "none of the splits train, val, test",
        {"划分": "holdout"},
        recipe={"split_column": "划分"},
    ),
    BadRowCase(
        "split empty", "unknown_split", "'' is none of the splits", {"划分": ""}, recipe={"split_column": "划分"}
    ),
    BadRowCase("group empty", "empty_field", "房屋 is empty", {"房屋": ""}, recipe={"group_by": "房屋"}),
    # What the line looks like
    BadRowCase("cells missing", "wrong_cell_count", "3 cells, the header has", text="bad,bad.jpg,风险"),
    BadRowCase(
        "a cell too many", "wrong_cell_count", "quote cells with commas", text="bad,bad.jpg,a,b,轻微,c,1,train,x"
    ),
    BadRowCase(
        "quotes that do not fit", "malformed_row", "quotes do not fit", text='bad,bad.jpg,"a"b,c,轻微,d,1,train'
    ),
    # Where the photo is
    BadRowCase("photo missing", "image_missing", "no such file", {"image_path": "gone.jpg"}),
    BadRowCase("photo above the folder", "image_outside", "leads out of", {"image_path": "../elsewhere/secret.jpg"}),
    BadRowCase("photo by an absolute path", "image_outside", "outside", {"image_path": "/etc/hostname"}),
    BadRowCase("photo on another drive", "image_outside", "C:", {"image_path": "C:\\photos\\1.jpg"}),
    BadRowCase("photo on a file server", "image_outside", "server", {"image_path": "\\\\server\\photos\\1.jpg"}),
    BadRowCase(
        "link out of the folder", "image_outside", "linked.jpg", {"image_path": "linked.jpg"}, arrange=_link_outside
    ),
    BadRowCase(
        "folder linked out",
        "image_outside",
        "album/secret.jpg",
        {"image_path": "album/secret.jpg"},
        arrange=_linked_folder,
    ),
    BadRowCase(
        "link to nothing", "image_missing", "dangling.jpg", {"image_path": "dangling.jpg"}, arrange=_dangling_link
    ),
    BadRowCase(
        "a folder for a photo", "image_missing", "folder.jpg", {"image_path": "folder.jpg"}, arrange=_folder_as_photo
    ),
    BadRowCase("the photo folder itself", "image_missing", "no such file", {"image_path": "."}),
    BadRowCase("a name too long", "image_missing", "no such file", {"image_path": "x" * 300 + ".jpg"}),
    BadRowCase("a web address", "image_missing", "no such file", {"image_path": "https://example.com/1.jpg"}),
    # What the photo's file holds
    BadRowCase("photo empty", "image_unreadable", "the file is empty", photo=b""),
    BadRowCase("a web page as a photo", "image_unreadable", "not a picture", photo=b"<!doctype html><p>404"),
    BadRowCase("a video as a photo", "image_unreadable", "not a picture", photo=b"\0\0\0\x18ftypmp42" + b"\0" * 64),
    BadRowCase("a PDF as a photo", "image_unreadable", "not a picture", photo=b"%PDF-1.7\n" + b"x" * 64),
    BadRowCase("JPEG cut off early", "image_truncated", "", photo=damaged(picture(), 0.1)),
    BadRowCase("JPEG cut off in the middle", "image_truncated", "", photo=damaged(picture(), 0.5)),
    BadRowCase("JPEG cut off at the end", "image_truncated", "", photo=damaged(picture((200, 150)), 0.97)),
    BadRowCase(
        "progressive JPEG cut off", "image_truncated", "", photo=damaged(picture((200, 150), progressive=True), 0.6)
    ),
    BadRowCase("large JPEG cut off", "image_truncated", "", photo=damaged(picture((1600, 1200)), 0.9)),
    BadRowCase("PNG cut off", "image_truncated", "", photo=damaged(picture(form="PNG"), 0.5)),
    BadRowCase("WebP cut off", "image_truncated", "", photo=damaged(picture(form="WEBP"), 0.5)),
    BadRowCase("TIFF cut off", "image_truncated", "", photo=damaged(picture(form="TIFF"), 0.5)),
    BadRowCase("BMP cut off", "image_truncated", "", photo=damaged(picture(form="BMP"), 0.5)),
    BadRowCase("more pixels than can be", "image_too_large", "shrink it", photo=claiming(60000, 60000)),
    BadRowCase("a strip", "image_aspect", "over 200 times", photo=picture((1005, 5))),
    BadRowCase("no pixels", "image_unreadable", "", photo=claiming(0, 10)),
    BadRowCase("floating-point pixels", "image_unsupported", "floating-point", photo=picture(form="TIFF", mode="F")),
)
