"""The drawn photos: their rule, their table, and that nothing but the picture tells the label."""

import csv
from argparse import ArgumentTypeError
from collections import Counter
from difflib import SequenceMatcher
from pathlib import Path

import draw_defects
import numpy as np
import pytest
from command_line import file_to_write, folder_to_write, size
from draw_contact_sheet import contact_sheet
from drawn_defects.captions import GROUNDS, MANNERS, MARKS, QUESTIONS, SIZES, caption, parts, phrases
from drawn_defects.catalogue import KINDS, NO_DEFECT, WORSE_IN, Kind, kinds_named
from drawn_defects.language import COPY, GO_ON, OTHER_KINDS, SENTENCES, exercise, long_caption
from drawn_defects.photos import SCENES, Scene, dealt_scene, random_scene
from drawn_defects.rooms import ROOMS, background
from drawn_defects.table import COLUMNS, STORED_AS, Drawing, draw_table
from drawn_defects.things import bricks, railing, seal, socket, tile, window
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
        ("渗水", "卧室", [MINOR, MODERATE, SEVERE]),  # 1 + extent
        ("渗水", "卫生间", [MODERATE, SEVERE, SEVERE]),  # 1 + extent + wet
        ("空鼓", "客厅", [MINOR, MINOR, MODERATE]),  # 0 + extent
        ("空鼓", "外墙", [MINOR, MODERATE, SEVERE]),  # 0 + extent + can fall
        ("露筋锈蚀", "外墙", [MODERATE, SEVERE, SEVERE]),  # 2 + extent
        ("面板缺失", "厨房", [MODERATE, SEVERE, SEVERE]),  # 1 + extent + shock
        ("透底", "楼梯间", [MINOR, MINOR, MODERATE]),  # 0 + extent, no hazard at a height either
    ],
)
def test_levels_that_the_rule_gives(kind: str, room: str, levels: list[RiskLevel]) -> None:
    assert [OF_NAME[kind].level(extent, room) for extent in EXTENTS] == levels


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_keeps_the_rule(kind: Kind) -> None:
    assert set(kind.rooms) <= set(ROOMS)
    assert not any(label in size for size in kind.sizes for label in LEVEL_LABELS)
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
    levels = [scene.level for scene in SCENES]
    shares = [levels.count(level) / len(levels) for level in RiskLevel]
    assert max(shares) < 0.5  # 0.43, 0.31, 0.26: always 轻微 has a macro-F1 of 0.20
    assert min(shares) > 0.2


def test_every_scene_is_dealt_once_before_any_comes_again() -> None:
    def round_of(seed: int, time: int) -> list[str]:
        return [dealt_scene(seed, time * len(SCENES) + place).description for place in range(len(SCENES))]

    all_scenes = {scene.description for scene in SCENES}
    assert len(all_scenes) == len(SCENES)
    assert set(round_of(3, 0)) == set(round_of(3, 1)) == all_scenes
    assert round_of(3, 0) != round_of(3, 1)
    assert round_of(3, 0) != round_of(4, 0)


def test_random_scenes_are_of_every_kind_about_as_often() -> None:
    rng = np.random.default_rng(5)
    kinds = Counter(scene.kind.name if scene.kind else None for scene in (random_scene(rng) for _ in range(3600)))
    assert kinds.keys() == {*OF_NAME, None}
    assert all(150 < number < 250 for number in kinds.values())  # 200 expected, standard deviation 14


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "0"], "--rows: expected a whole number above 0, found '0'"),
        (["--rows", "-3"], "expected a whole number above 0, found '-3'"),
        (["--workers", "0"], "--workers: expected a whole number above 0"),
        (["--houses", "0"], "--houses: expected a whole number above 0"),
        (["--houses", "900"], "900 houses: expected 1 to 800"),
        (["--seed", "-1"], "seed -1: expected 0 or more"),
        (["--size", "x112"], "expected a size such as 112 or 4000x3000, found 'x112'"),
        (["--size", "4x4x4"], "expected a size such as 112 or 4000x3000"),
        (["--size", "5"], "size (5, 5): expected sides of 28 to 20000 pixels"),
        (["--size", "10x4000"], "size (10, 4000): expected sides of 28 to 20000 pixels"),
    ],
)
def test_wrong_values_end_in_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["draw_defects.py", str(tmp_path / "out"), *arguments])
    with pytest.raises(SystemExit) as ended:
        draw_defects.main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("sys.argv", ["draw_defects.py", str(tmp_path / "file")])
    with pytest.raises(SystemExit):
        draw_defects.main()
    assert "is a file; name a folder" in capsys.readouterr().err


def test_a_table_that_was_not_drawn_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "metadata.csv"
    table.write_text("image_id,image_path\np-001,images/00000.jpg\n", encoding="gbk")
    before = table.read_bytes()
    monkeypatch.setattr("sys.argv", ["draw_defects.py", str(tmp_path), "--rows", "1"])
    with pytest.raises(SystemExit):
        draw_defects.main()
    assert "is no table of drawn photos" in capsys.readouterr().err
    assert table.read_bytes() == before
    assert list(tmp_path.iterdir()) == [table]


@pytest.mark.parametrize(("path", "message"), [("", "expected a path"), ("file/below", "is a file, so")])
def test_paths_that_cannot_be_written(path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    for kind in (folder_to_write, file_to_write):
        with pytest.raises(ArgumentTypeError, match=message):
            kind(path)


@pytest.mark.parametrize(("text", "expected"), [("112", (112, 112)), ("4000x3000", (4000, 3000))])
def test_sizes_on_the_command_line(text: str, expected: tuple[int, int]) -> None:
    assert size(text) == expected


def test_an_interrupted_drawing_leaves_no_table_of_other_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_table(tmp_path, 3, Drawing(seed=1, size=(56, 56)))

    def fail(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("drawn_defects.table._draw_row", fail)
    with pytest.raises(KeyboardInterrupt):
        draw_table(tmp_path, 3, Drawing(seed=2, size=(56, 56)))
    assert not (tmp_path / "metadata.csv").exists()


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
    written: list[tuple[object, ...]] = []
    for name in ("text", "multiline_text"):
        monkeypatch.setattr(ImageDraw.ImageDraw, name, lambda *arguments, **options: written.append(arguments))
    contact_sheet(seed=4)
    assert written == []


WHOLE = {
    "打胶缺失": seal, "玻璃破损": window, "杆距过大": railing, "面板缺失": socket, "饰面砖脱落": bricks, "缺角": tile,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_extents_can_be_told_apart(kind: Kind) -> None:
    """The damaged share of the picture grows clearly with the extent, on average over eight photos."""

    def damaged(extent: int) -> float:
        shares = []
        for seed in range(8):
            marked, whole = (
                background(ROOMS[kind.rooms[0]], (224, 224), (0, 0, 0), np.random.default_rng(seed)) for _ in "ab"
            )
            kind.draw(marked, extent)
            if kind.name in WHOLE:
                WHOLE[kind.name](whole)
            difference = np.abs(np.asarray(marked.image, dtype=float) - np.asarray(whole.image, dtype=float))
            shares.append(float((difference.max(axis=2) > 12).mean()))
        return float(np.mean(shares))

    small, medium, large = map(damaged, EXTENTS)
    assert small > 0
    assert medium > 1.2 * small  # measured: 1.24 times (bricks) to 4.0
    assert large > 1.2 * medium  # 1.43 (bricks) to 5.5


# What the base is taught


def longest_in_common(one: str, other: str) -> int:
    """Length of the longest text that stands in both."""
    return SequenceMatcher(None, one, other, autojunk=False).find_longest_match().size


def test_captions_share_no_sentence_and_no_level_with_reports() -> None:
    texts = " ".join([*phrases(), *QUESTIONS])
    assert not any(word in texts for word in (*LEVEL_LABELS, *ROOMS, *DEFAULT_FORMAT.labels))
    assert not any(kind.name in texts for kind in KINDS)
    assert not set(QUESTIONS) & {DEFAULT_SYSTEM_PROMPT, default_question(DEFAULT_FORMAT)}


def test_exercises_tell_no_level_and_are_no_part_of_a_report() -> None:
    rng = np.random.default_rng(2)
    reports = {text for kind in KINDS for finding in kind.findings.values() for text in finding} | {NO_DEFECT}
    reports |= {kind.description(extent, room) for kind in KINDS for room in kind.rooms for extent in EXTENTS}
    lessons = {
        one for _ in range(2000) for one in (exercise(("墙", "轻微"), rng), long_caption(random_scene(rng), rng))
    }
    taught = [
        one for one in lessons if one.question != COPY + one.answer
    ]  # the words of levels are among those to copy
    assert not any(label in one.question + one.answer for one in taught for label in LEVEL_LABELS)
    sentences = {sentence for template in SENTENCES for sentence in (template.format(place="", kind=""),)}
    assert max(longest_in_common(sentence, report) for sentence in sentences for report in reports) <= 3
    assert not set(OTHER_KINDS) & set(OF_NAME)
    assert {one.question[:3] for one in lessons} >= {COPY, GO_ON, "什么叫"}


def test_long_captions_hold_the_description_after_other_words() -> None:
    rng = np.random.default_rng(3)
    for _ in range(300):
        scene = random_scene(rng)
        described = long_caption(scene, rng)
        manner = next(number for number in (2, 1, 0) if MANNERS[number] in described.question)
        mark, size, ground = parts(scene, manner).values()
        assert mark in described.answer
        assert size in described.answer
        assert ground in described.answer or QUESTIONS[2] in described.question


def test_captions_tell_all_that_a_level_rests_on() -> None:
    scenes = [Scene(room, kind, extent) for kind in KINDS for room in kind.rooms for extent in EXTENTS]
    for seed in range(40):
        captions = [caption(scene, np.random.default_rng(seed)) for scene in scenes]
        asks_for_the_background = not captions[0].question.endswith(QUESTIONS[2])
        assert (len({one.answer for one in captions}) == len(scenes)) == asks_for_the_background


def test_wordings_tell_kinds_extents_and_rooms_apart_in_every_manner() -> None:
    assert set(MARKS) == set(OF_NAME)
    assert set(GROUNDS) == set(ROOMS)
    for manner in range(len(MANNERS)):
        assert len({wordings[manner] for wordings in MARKS.values()}) == len(MARKS)
        assert len({wordings[manner] for wordings in GROUNDS.values()}) == len(GROUNDS)
        assert len({wordings[manner] for wordings in SIZES}) == len(SIZES)
