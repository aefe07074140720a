"""The drawn photos: their rule, their table, and that nothing but the picture tells the label."""

import csv
from pathlib import Path

import numpy as np
import pytest
from draw_contact_sheet import contact_sheet
from draw_defects import size_from
from drawn_defects.captions import LOOKS, QUESTIONS, caption, phrases
from drawn_defects.catalogue import KINDS, NO_DEFECT, WORSE_IN, Kind, kinds_named
from drawn_defects.language import COPY, GO_ON, exercise
from drawn_defects.photos import Scene, random_scene
from drawn_defects.rooms import ROOMS, background
from drawn_defects.table import COLUMNS, STORED_AS, Drawing, draw_table
from PIL import Image, ImageDraw, ImageOps

from riskva.report import DEFAULT_FORMAT, DEFAULT_SYSTEM_PROMPT, LEVEL_LABELS, RiskLevel, default_question

MINOR, MODERATE, SEVERE = RiskLevel
EXTENTS = range(3)
OF_NAME = {kind.name: kind for kind in KINDS}


def read_rows(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def photo_bytes(table: Path) -> list[bytes]:
    return [(table.parent / row["image_path"]).read_bytes() for row in read_rows(table)]


# The rule


@pytest.mark.parametrize(
    ("kind", "room", "levels"),
    [  # worked out by hand from the rule: base + extent + hazard in this room
        ("裂缝", "客厅", [MINOR, MODERATE, SEVERE]),  # 1 + extent
        ("霉斑", "卧室", [MINOR, MINOR, MODERATE]),  # 0 + extent
        ("霉斑", "卫生间", [MINOR, MODERATE, SEVERE]),  # 0 + extent + wet
        ("渗水", "客厅", [MINOR, MODERATE, SEVERE]),  # 1 + extent
        ("渗水", "厨房", [MODERATE, SEVERE, SEVERE]),  # 1 + extent + wet
        ("空鼓", "卧室", [MINOR, MINOR, MODERATE]),  # 0 + extent
        ("空鼓", "外墙", [MINOR, MODERATE, SEVERE]),  # 0 + extent + can fall
        ("露筋锈蚀", "外墙", [MODERATE, SEVERE, SEVERE]),  # 2 + extent
        ("面板缺失", "卫生间", [MODERATE, SEVERE, SEVERE]),  # 1 + extent + shock
        ("透底", "楼梯间", [MINOR, MINOR, MODERATE]),  # 0 + extent, no hazard at a height either
    ],
)
def test_levels_that_the_rule_gives(kind: str, room: str, levels: list[RiskLevel]) -> None:
    assert [OF_NAME[kind].level(extent, room) for extent in EXTENTS] == levels


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_keeps_the_rule(kind: Kind) -> None:
    assert set(kind.rooms) <= set(ROOMS)
    for room in kind.rooms:
        levels = [kind.level(extent, room) for extent in EXTENTS]
        assert levels == sorted(levels)
        assert levels[0] < levels[-1]
        if room in WORSE_IN[kind.hazard]:
            assert all(kind.level(extent, room) >= kind.level(extent, "elsewhere") for extent in EXTENTS)
            assert levels != [kind.level(extent, "elsewhere") for extent in EXTENTS]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_has_texts_for_just_the_levels_that_it_can_have(kind: Kind) -> None:
    assert {kind.level(extent, room) for extent in EXTENTS for room in kind.rooms} == set(kind.findings)
    assert len(set(kind.findings.values())) == len(kind.findings)


def test_there_are_enough_kinds_and_all_eight_rooms_occur() -> None:
    assert len(KINDS) >= 14
    assert {room for kind in KINDS for room in kind.rooms} == set(ROOMS)
    assert len(ROOMS) == 8


def test_a_photo_without_a_defect_is_minor_and_says_so() -> None:
    scene = Scene("厨房", None)
    assert scene.level is MINOR
    assert kinds_named(scene.description) == {NO_DEFECT}


def test_each_description_names_its_kind_and_no_other() -> None:
    for kind in KINDS:
        for room in kind.rooms:
            for extent in EXTENTS:
                assert kinds_named(kind.description(extent, room)) == {kind.name}
    assert kinds_named("外墙存在裂缝和泛碱。") == {"裂缝", "泛碱"}
    assert kinds_named("一切如常。") == frozenset()


def test_scenes_are_balanced_enough_that_a_constant_answer_scores_low() -> None:
    rng = np.random.default_rng(5)
    levels = [random_scene(rng).level for _ in range(4000)]
    shares = [levels.count(level) / len(levels) for level in RiskLevel]
    assert max(shares) < 0.5  # measured 0.42, 0.31, 0.27: always 轻微 has a macro-F1 of 0.20
    assert min(shares) > 0.2


# The table


def test_the_table_has_the_columns_that_prepare_takes(photo_table: Path) -> None:
    rows = read_rows(photo_table)
    assert len(rows) == 24
    assert tuple(rows[0]) == COLUMNS
    assert all(value for row in rows for value in row.values())
    assert {row["data_风险等级"] for row in rows} == set(LEVEL_LABELS)
    assert len({row["房屋"] for row in rows}) == 4
    assert len({row["image_id"] for row in rows}) == 24


def test_rows_do_not_depend_on_their_number_or_on_the_processes(tmp_path: Path) -> None:
    drawing = Drawing(seed=3, size=(56, 56))
    many = draw_table(tmp_path / "many", 40, drawing, workers=2)
    few = draw_table(tmp_path / "few", 5, drawing)
    assert read_rows(few) == read_rows(many)[:5]
    assert photo_bytes(few) == photo_bytes(many)[:5]


def test_another_seed_draws_other_photos_of_other_houses(tmp_path: Path, photo_table: Path) -> None:
    other = draw_table(tmp_path / "other", 24, Drawing(seed=8, houses=4))
    assert not set(photo_bytes(other)) & set(photo_bytes(photo_table))
    houses = [{row["房屋"] for row in read_rows(table)} for table in (other, photo_table)]
    assert not houses[0] & houses[1]


def test_large_photos_are_stored_as_phones_do(tmp_path: Path) -> None:
    table = draw_table(tmp_path, 12, Drawing(seed=1, size=(400, 300), turned=True), workers=2)
    upright = draw_table(tmp_path / "upright", 12, Drawing(seed=1, size=(400, 300)))
    orientations = set()
    for row in read_rows(table):
        with Image.open(tmp_path / row["image_path"]) as photo, Image.open(upright.parent / row["image_path"]) as plain:
            orientations.add(photo.getexif()[0x0112])
            turned = np.asarray(ImageOps.exif_transpose(photo), dtype=float)
            assert turned.shape == (300, 400, 3)
            # Both are JPEGs of the same pixels; measured: 2.6 grey levels apart at most, the wrong turn 20 and more
            assert np.abs(turned - np.asarray(plain, dtype=float)).mean() < 6
    assert len(orientations) > 3
    assert set(STORED_AS) == set(range(1, 9))


def test_twelve_megapixels(tmp_path: Path) -> None:
    table = draw_table(tmp_path, 1, Drawing(size=(4000, 3000)))
    with Image.open(table.parent / read_rows(table)[0]["image_path"]) as photo:
        photo.load()
        assert photo.size == (4000, 3000)


@pytest.mark.parametrize(("text", "size"), [("112", (112, 112)), ("4000x3000", (4000, 3000))])
def test_sizes_on_the_command_line(text: str, size: tuple[int, int]) -> None:
    assert size_from(text) == size


# Nothing but the picture tells the label


def test_neither_names_nor_sizes_nor_tags_tell_a_label(photo_table: Path) -> None:
    for number, row in enumerate(read_rows(photo_table)):
        assert row["image_path"] == f"images/{number:05d}.jpg"
        assert row["image_id"] == f"photo_7_{number:05d}"
        with Image.open(photo_table.parent / row["image_path"]) as photo:
            assert (photo.size, photo.mode) == ((112, 112), "RGB")
            assert dict(photo.getexif()) == {}
            assert set(photo.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def test_nothing_is_written_into_the_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    def written(*arguments: object, **options: object) -> None:
        raise AssertionError("a photo must hold no text")

    for name in ("text", "multiline_text"):
        monkeypatch.setattr(ImageDraw.ImageDraw, name, written)
    contact_sheet(seed=4)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_extents_can_be_told_apart(kind: Kind) -> None:
    def drawn(extent: int, seed: int) -> np.ndarray:
        canvas = background(ROOMS[kind.rooms[0]], (224, 224), (0, 0, 0), np.random.default_rng(seed))
        kind.draw(canvas, extent)
        return np.asarray(canvas.image, dtype=float)

    for smaller, larger in ((0, 1), (1, 2), (0, 2)):
        differing = [np.abs(drawn(smaller, seed) - drawn(larger, seed)).max(axis=2) > 12 for seed in range(8)]
        assert np.mean(differing) > 0.005  # measured: 0.006 (a short and a long crack) and more


# What the base is taught


def test_captions_share_no_sentence_and_no_level_with_reports() -> None:
    texts = " ".join([*phrases(), *QUESTIONS])
    assert not any(word in texts for word in (*LEVEL_LABELS, *ROOMS, *DEFAULT_FORMAT.labels))
    assert not any(kind.name in texts for kind in KINDS)
    assert not set(QUESTIONS) & {DEFAULT_SYSTEM_PROMPT, default_question(DEFAULT_FORMAT)}


def test_exercises_are_no_sentence_of_a_report_and_tell_no_level() -> None:
    rng = np.random.default_rng(2)
    exercises = [exercise(("墙", "轻微"), rng) for _ in range(3000)]
    sentences = {text for kind in KINDS for finding in kind.findings.values() for text in finding}
    for one in exercises:
        if not one.question.startswith(COPY):
            assert not any(label in one.question + one.answer for label in LEVEL_LABELS)
            assert not any(sentence in one.question + one.answer for sentence in sentences)
    copied = [one for one in exercises if one.question.startswith(COPY)]
    assert all(one.question == COPY + one.answer for one in copied)
    assert {one.question[:3] for one in exercises} >= {COPY, GO_ON, "什么叫"}


def test_captions_tell_all_that_a_level_rests_on() -> None:
    scenes = [Scene(room, kind, extent) for kind in KINDS for room in kind.rooms for extent in EXTENTS]
    for seed in range(40):
        captions = [caption(scene, np.random.default_rng(seed)) for scene in scenes]
        asks_for_the_background = captions[0].question != QUESTIONS[2]
        assert (len({one.answer for one in captions}) == len(scenes)) == asks_for_the_background
    assert set(LOOKS) == set(OF_NAME)
