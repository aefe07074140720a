"""What the pages hold, read from their files; what they do is in test_pages_in_browser.py."""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from evaluation_making import (
    NO_INTERVAL,
    SCORING,
    drawn_comparison,
    drawn_evaluation,
    evaluation,
    prediction,
    read,
    report,
    sample,
    small_photo,
)

from evaluation.compared import Comparison, Difference
from evaluation.evaluated import Evaluation
from evaluation.naming import Named
from evaluation.pages import photo_files
from evaluation.pages.comparison_page import write_comparison
from evaluation.pages.differences import differences
from evaluation.pages.environment import script_json
from evaluation.pages.photo_files import photo_sources
from evaluation.pages.report_page import write_report
from evaluation.pages.rows import MOST_CHARACTERS, rows_to_show
from evaluation.pages.score_views import main_groups, other_scores
from evaluation.pages.words import MARKS, TOLERATED
from evaluation.sample_scores import Mark, SampleScore
from evaluation.score_names import score_names
from evaluation.verdict import Finding
from riskva.labelled_text import Tolerance
from riskva.report import Reading, RiskReport

HOSTILE = "</script><img src=x onerror=alert(1)>'\"&\u2028\u2029\x00\x1b"


def no_photos(row: int) -> Sequence[bytes]:
    return ()


class Page(HTMLParser):
    """The elements of a page, and its text without scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.inside = ""
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts.append(data)
        elif self.inside != "style":
            self.text += data

    @property
    def data(self) -> dict[str, Any]:
        """What the script finds in the page."""
        return json.loads(self.scripts[0])  # type: ignore[no-any-return]


def hostile_run() -> Any:
    expected = report(2, "裂缝", "卧室")
    answered = RiskReport(expected.level, dict.fromkeys(expected.texts, HOSTILE))
    row = prediction(HOSTILE, expected, HOSTILE, group=HOSTILE)
    wrong = Reading(None, HOSTILE, {"缺陷描述": HOSTILE, HOSTILE: HOSTILE}, (HOSTILE,), (HOSTILE,))
    rows = [row, row, replace(row, id="half \ud83d of a pair", error=HOSTILE, finish_reason=HOSTILE)]
    samples = [
        sample(HOSTILE, expected, read(answered), group=HOSTILE, kind=Named(HOSTILE, HOSTILE, False)),
        sample(HOSTILE, expected, wrong, group=HOSTILE),
        sample("half", expected, wrong, group=None),
    ]
    run = evaluation(rows, samples)
    return replace(
        run,
        findings=(Finding("hostile", "error", HOSTILE, HOSTILE, (0,)),),
        signature={HOSTILE: HOSTILE},
        baselines=(replace(run.baselines[0], zh=HOSTILE, en=HOSTILE),),
    )


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    run = hostile_run()
    page = Page(write_report(run, no_photos, tmp_path, title=HOSTILE))
    [image] = [attributes for tag, attributes in page.tags if tag == "img"]
    assert image == {"alt": ""}, "the large photo's place is the only image"
    assert len(page.scripts) == 2
    assert not {name for _, attributes in page.tags for name in attributes if name.startswith("on")}
    row = page.data["rows"][0]
    assert row["id"] == HOSTILE.replace("\x00", "␀").replace("\x1b", "␛")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\ud800-\udfff\u2028\u2029]", page.scripts[0])
    assert page.data["rows"][2]["id"] == "half \ufffd of a pair"


def test_hostile_names_of_runs_stay_text(tmp_path: Path) -> None:
    comparison = drawn_comparison(3)
    first = next(iter(comparison.runs.values()))
    hostile = replace(
        comparison,
        runs={HOSTILE: first, HOSTILE + "2": first},
        rivals=(replace(comparison.rivals[0], name=HOSTILE + "2"),),
    )
    page = Page(write_comparison(hostile, no_photos, tmp_path, title=HOSTILE))
    assert len([tag for tag, _ in page.tags if tag == "img"]) == 1
    assert len(page.scripts) == 2


def test_json_in_a_script_is_the_same_value() -> None:
    value = {"<a>&": [HOSTILE[:-2], 1.5, None, True, {"深": ["层"]}]}
    written = script_json(value)
    assert json.loads(written) == value
    assert not set("<>&\u2028\u2029") & set(written)


def test_a_page_fetches_nothing_and_runs_one_script(tmp_path: Path) -> None:
    page = Page(write_report(drawn_evaluation(5), lambda row: [small_photo(row)], tmp_path, title="t"))
    policy = next(one["content"] for tag, one in page.tags if one.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in page.source.replace("http-equiv", "")
    assert [one["href"] for tag, one in page.tags if tag == "link"] == ["data:,"], "or a server is asked for an icon"
    assert not [tag for tag, attributes in page.tags if tag in {"iframe", "base"} or attributes.get("src")]


def test_the_counts_of_a_page_are_those_of_its_rows(tmp_path: Path) -> None:
    run = drawn_evaluation(80)
    page = Page(write_report(run, no_photos, tmp_path, title="t"))
    rows = page.data["rows"]
    cells = {one["data-value"]: one for _, one in page.tags if one.get("data-filter") == "cell"}
    assert len(cells) == 12
    for place, cell in cells.items():
        count = sum(f"{row['level']}-{row['answers'][0]['level']}" == place for row in rows)
        assert f"：{count} 行" in (cell["aria-label"] or "")
        assert ("disabled" in cell) == (count == 0)
    names = [mark["name"] for mark in page.data["marks"]]
    assert names == [mark.value for mark in Mark]
    for mark in {one for row in run.samples for one in row.marks}:
        found = sum(names.index(mark.value) in row["answers"][0]["marks"] for row in rows)
        assert f"{found}</b>" in page.source.split(f'data-value="{mark.value}"')[1].split("</button>")[0]
    assert page.data["sets"]["finding-0"] == list(run.findings[0].rows)
    assert f"{len(run.samples)} 行" in page.text


def test_every_score_is_shown_once_with_its_interval_and_floors(tmp_path: Path) -> None:
    run = drawn_evaluation(30)
    views = [*(one for group in main_groups(run) for one in group.scores), *other_scores(run)]
    assert sorted(one.name.name for one in views) == sorted(
        one.name for one in score_names(SCORING.report_format.text_labels)
    )
    text = Page(write_report(run, no_photos, tmp_path, title="t")).text
    for view in views:
        assert view.shown in text
        assert view.interval in text
    assert all(floor.shown in text for one in other_scores(run) for floor in one.floors)


@pytest.mark.parametrize(
    ("lead", "standing"), [((0.01, 0.2), "above"), ((-0.1, 0.2), "level"), ((-0.3, -0.1), "below"), (None, "above")]
)
def test_a_score_stands_to_the_constant_answer_by_its_lead(lead: tuple[float, float] | None, standing: str) -> None:
    run = drawn_evaluation(30)
    led = replace(run, leads={"risk_level.macro_f1": lead, "risk_level.expected_cost": lead})
    [score, *_] = main_groups(led)[0].scores
    assert score.standing == standing


def test_less_is_better_where_the_score_says_so() -> None:
    run = replace(drawn_evaluation(30), leads={"risk_level.expected_cost": (-0.5, -0.1)})
    cost = next(one for one in main_groups(run)[0].scores if one.name.name == "risk_level.expected_cost")
    assert cost.standing == "above"


def test_a_floor_that_cannot_be_beaten_says_nothing() -> None:
    form = main_groups(drawn_evaluation(30))[1].scores[0]
    assert (form.floors[0].shown, form.standing) == ("1.000", "unknown")


def test_scores_that_cannot_be_told_are_dashes(tmp_path: Path) -> None:
    run = drawn_evaluation(10)
    unknown = replace(
        run,
        scores=dict.fromkeys(run.scores),
        intervals={},
        baselines=(replace(run.baselines[0], scores={}),),
        num_groups=None,
        levels={**run.levels, "probabilities": None},  # type: ignore[typeddict-item]
    )
    text = Page(write_report(unknown, no_photos, tmp_path, title="t")).text
    assert "–" in text
    assert "Brier" not in text


def test_few_photos_stand_in_the_page(tmp_path: Path) -> None:
    page = Page(write_report(drawn_evaluation(4), lambda row: [small_photo(row)] * (row % 3), tmp_path, title="t"))
    assert [len(row["photos"]) for row in page.data["rows"]] == [0, 1, 2, 0]
    assert page.data["rows"][1]["photos"][0].startswith("data:image/jpeg;base64,")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_many_photos_are_files_beside_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_files, "MOST_EMBEDDED", 2 * len(small_photo()))
    page = Page(write_report(drawn_evaluation(4), lambda row: [small_photo(row)] * (row % 3), tmp_path, title="t"))
    sources = [row["photos"] for row in page.data["rows"]]
    assert sources[2] == ["report_photos/00002-0.jpg", "report_photos/00002-1.jpg"]
    assert (tmp_path / sources[1][0]).read_bytes() == small_photo(1)
    assert len(list((tmp_path / "report_photos").iterdir())) == 3


def test_photos_are_asked_for_one_row_at_a_time(tmp_path: Path) -> None:
    asked = []

    def photos(row: int) -> Sequence[bytes]:
        asked.append(row)
        return [bytes(3_000_000)]

    with photo_sources(range(6), photos, tmp_path / "photos") as sources:
        assert asked == list(range(6))
        assert not (tmp_path / "photos").exists()
        assert list(sources) == list(range(6))
    assert len(list((tmp_path / "photos").iterdir())) == 6


def test_photos_of_an_earlier_run_go(tmp_path: Path) -> None:
    stale = tmp_path / "report_photos"
    stale.mkdir()
    (stale / "00000-0.jpg").write_bytes(b"old")
    write_report(drawn_evaluation(2), lambda row: [small_photo()], tmp_path, title="t")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_page_that_fails_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_files, "MOST_EMBEDDED", 1)
    path = write_report(drawn_evaluation(2), lambda row: [small_photo()], tmp_path, title="first")
    before = {one: one.read_bytes() for one in tmp_path.rglob("*") if one.is_file()}

    def broken(row: int) -> Sequence[bytes]:
        if row == 1:
            raise OSError("no such photo")
        return [small_photo(9)]

    with pytest.raises(OSError, match="no such photo"):
        write_report(drawn_evaluation(2), broken, tmp_path, title="second")
    assert {one: one.read_bytes() for one in tmp_path.rglob("*") if one.is_file()} == before
    assert path in before


def test_right_rows_are_left_out_first(tmp_path: Path) -> None:
    run = drawn_evaluation(200)
    wrong = {row for row, one in enumerate(run.samples) if one.marks}
    shown = rows_to_show([run], len(wrong) + 5)
    assert wrong < set(shown)
    assert len(shown) == len(wrong) + 5
    assert list(shown) == sorted(shown)
    costliest = max(one.cost or 0 for one in run.samples)
    assert {run.samples[row].cost for row in rows_to_show([run], 1)} == {costliest}
    page = Page(write_report(run, no_photos, tmp_path, title="t", most_rows=len(wrong) + 5))
    assert len(page.data["rows"]) == len(shown)
    assert f"另有 {200 - len(shown)} 行未列出" in page.text


def test_rows_that_are_left_out_are_in_no_set(tmp_path: Path) -> None:
    page = Page(write_comparison(drawn_comparison(60), no_photos, tmp_path, title="t", most_rows=10))
    shown = {row["n"] for row in page.data["rows"]}
    assert all(set(rows) <= shown for rows in page.data["sets"].values())


@pytest.mark.parametrize(
    ("expected", "answered", "left", "right"),
    [
        ("卧室墙面裂缝", "卧室墙面裂缝", ["卧室墙面裂缝"], ["卧室墙面裂缝"]),
        ("卧室墙面裂缝", "厨房墙面裂缝", ["", "卧室", "墙面裂缝"], ["", "厨房", "墙面裂缝"]),
        ("卧室墙面裂缝", "卧室墙面", ["卧室墙面", "裂缝"], ["卧室墙面"]),
        ("卧室", "", ["", "卧室"], []),
        ("卧室渗水", "卧室积水", ["卧室", "渗水"], ["卧室", "积水"]),
        ("厨房空鼓不影响", "厨房空鼓会影响", ["厨房空鼓", "不", "影响"], ["厨房空鼓", "会", "影响"]),
    ],
)
def test_differences_are_marked_by_words(expected: str, answered: str, left: list[str], right: list[str]) -> None:
    assert differences(expected, answered) == (left, right)


@pytest.mark.parametrize("looping", ["裂缝，" * 3000, "缝" * 9000, "".join(chr(0x4E00 + one) for one in range(9000))])
def test_an_answer_that_loops_costs_no_time(looping: str) -> None:
    expected = "卧室墙面存在贯穿性裂缝，" * 40
    differences("词", "典")  # loads jieba's dictionary
    began = time.perf_counter()
    left, right = differences(expected, looping)
    assert time.perf_counter() - began < 3
    assert "".join(left) == expected
    assert "".join(right) == looping


def test_an_answer_that_loops_is_cut_and_says_so(tmp_path: Path) -> None:
    expected, looping = report(1, "渗水", "厨房"), "渗水，" * 3000
    reading = Reading(None, "missing or empty: 风险等级", {"缺陷描述": looping})
    run = evaluation([prediction("a", expected, looping)], [sample("a", expected, reading)])
    [row] = Page(write_report(run, no_photos, tmp_path, title="t")).data["rows"]
    [answer] = row["answers"]
    assert (len(answer["raw"]["text"]), answer["raw"]["more"]) == (MOST_CHARACTERS, 9000)
    field = answer["fields"]["缺陷描述"]
    assert ("".join(field["pieces"]), field["more"]) == (looping[:MOST_CHARACTERS], 9000)


def test_a_row_has_what_its_card_tells(tmp_path: Path) -> None:
    expected, answered = report(2, "裂缝", "卧室"), report(0, "裂缝", "卧室")
    row = replace(prediction("a", expected, "raw", group="1-1-101"), level_probabilities=(0.7, 0.2, 0.1))
    one = sample("a", expected, replace(read(answered), tolerated=("json", "blanks")), group="1-1-101", overlap=40.04)
    unlabelled = sample("b", None, read(answered))
    run = evaluation([row, prediction("b", None, "raw")], [one, unlabelled])
    first, second = Page(write_report(run, no_photos, tmp_path, title="t")).data["rows"]
    assert (first["id"], first["group"], first["level"], first["label"]) == ("a", "1-1-101", 2, None)
    [answer] = first["answers"]
    assert (answer["level"], answer["cost"], answer["confidence"], answer["defect"]) == (0, 10, 0.7, 40.0)
    assert answer["marks"] == [list(Mark).index(Mark.UNDER_CALLED)]
    assert answer["notes"]["tolerated"] == ["JSON 格式", "空白不同"]
    assert (second["level"], second["label"]["text"], second["texts"]) == (None, "这不是报告", {})
    assert second["answers"][0]["fields"]["缺陷描述"]["truth"] is None
    assert second["answers"][0]["marks"] == [list(Mark).index(Mark.NO_REFERENCE)]


def test_every_tolerated_form_has_a_chinese_name() -> None:
    assert set(TOLERATED) == set(Tolerance)


def test_every_mark_has_a_name() -> None:
    assert set(MARKS) == set(Mark)


def test_a_comparison_has_a_column_a_run_and_its_differences(tmp_path: Path) -> None:
    comparison = drawn_comparison(40)
    page = Page(write_comparison(comparison, no_photos, tmp_path, title="t"))
    assert page.data["runs"] == list(comparison.runs)
    assert all(len(row["answers"]) == 3 for row in page.data["rows"])
    for place, rival in enumerate(comparison.rivals, start=1):
        assert page.data["sets"][f"wins-{place}"] == list(rival.wins)
        assert page.data["sets"][f"losses-{place}"] == list(rival.losses)
        both = [page.data["sets"][f"both-{what}-{place}"] for what in ("right", "wrong")]
        judged = {row for row, one in enumerate(next(iter(comparison.runs.values())).samples) if one.expected}
        assert judged >= {row for rows in both for row in rows}
        assert sum(map(len, both)) + rival.num_only_first + rival.num_only_this == len(judged) < 40
        assert f"判对 {rival.num_only_first} 行" in page.text
    text = " ".join(page.text.split())
    assert "p = 0.002" in text
    difference = comparison.rivals[1].differences["risk_level.macro_f1"]
    assert difference is not None
    assert f"+{difference.value:.3f}" in text
    assert "▲" in text
    macro = page.source.split("等级 macro-F1")[1].split("</tr>")[0]
    assert macro.count("▲") + macro.count("▼") == 2


def test_a_difference_whose_interval_holds_zero_has_no_mark(tmp_path: Path) -> None:
    comparison = drawn_comparison(40)
    source = write_comparison(comparison, no_photos, tmp_path, title="t").read_text(encoding="utf-8")
    bleu = source.split("BLEU-4 全文")[1].split("</tr>")[0]
    assert "+0.0" in bleu
    assert not re.search("[▲▼]", bleu)


def test_a_difference_without_an_interval_is_shown_without_a_mark(tmp_path: Path) -> None:
    comparison = drawn_comparison(40)
    source = write_comparison(comparison, no_photos, tmp_path, title="t").read_text(encoding="utf-8")
    line = source.split("二次加权 kappa")[1].split("</tr>")[0]
    difference = comparison.rivals[0].differences[NO_INTERVAL]
    assert difference is not None
    assert f"+{difference.value:.3f}" in line
    assert not re.search("[▲▼]", line)


@pytest.mark.parametrize(
    ("num_groups", "interval", "said", "not_said"),
    [
        (None, (-0.1, 0.3), ["p = 0.002", "差别不像偶然", "hardly chance"], ["同组"]),
        (9, (0.01, 0.3), ["p = 0.002；同组的行彼此相似", "+0.200（+0.010 … +0.300），差别不像偶然"], []),
        (9, (-0.1, 0.3), ["p = 0.002；同组的行彼此相似", "可能只是偶然", "may be chance"], ["不像偶然", "hardly"]),
        (9, None, ["p = 0.002；同组的行彼此相似", "区间无法得出"], ["不像偶然", "只是偶然"]),
    ],
)
def test_with_groups_the_interval_says_whether_it_is_chance(
    tmp_path: Path,
    num_groups: int | None,
    interval: tuple[float, float] | None,
    said: list[str],
    not_said: list[str],
) -> None:
    drawn = drawn_comparison(20, ("a", "b"))
    rival = replace(drawn.rivals[0], differences={"risk_level.accuracy": Difference(0.2, interval)})
    runs = {name: replace(run, num_groups=num_groups) for name, run in drawn.runs.items()}
    page = Page(write_comparison(Comparison(runs, (rival,)), no_photos, tmp_path, title="t"))
    assert all(text in page.text for text in said)
    assert not any(text in page.text for text in not_said)


def test_a_comparison_says_what_better_means(tmp_path: Path) -> None:
    text = Page(write_comparison(drawn_comparison(10), no_photos, tmp_path, title="t")).text
    assert "ROUGE-L 的均值至少相差 10 分" in text


def run_of(*samples: SampleScore) -> Evaluation:
    """A run of these rows whose one finding is good."""
    run = evaluation([prediction(one.id, one.expected, "raw") for one in samples], samples)
    return replace(run, findings=tuple(one for one in run.findings if one.severity == "good"))


def test_a_good_run_still_has_its_mistakes_counted(tmp_path: Path) -> None:
    expected, other = report(0, "裂缝", "卧室"), report(1, "裂缝", "卧室")
    right, wrong, unjudged = (
        sample("a", expected, read(expected)),
        sample("b", expected, read(other)),
        sample("c", None, read(other)),
    )
    page = Page(write_report(run_of(right, wrong, unjudged), no_photos, tmp_path, title="t"))
    assert "好于固定答案；仍有 1 行有误" in page.text
    assert "1 row still has a mistake" in page.text
    text = Page(write_report(run_of(right, unjudged), no_photos, tmp_path, title="t")).text
    assert "各行未见错误" in text
    assert "没有发现问题" not in text


def test_rows_that_failed_or_cannot_be_judged_are_counted_on_top(tmp_path: Path) -> None:
    expected = report(0, "裂缝", "卧室")
    run = run_of(sample("a", expected, read(expected)), sample("b", None, read(expected)))
    failed = replace(run, predictions=[replace(run.predictions[0], error="no memory"), run.predictions[1]])
    text = Page(write_report(failed, no_photos, tmp_path, title="t")).text
    assert "1 行未能预测" in text
    assert "1 行的标准不是报告" in text
    text = Page(write_report(run_of(run.samples[0]), no_photos, tmp_path, title="t")).text
    assert "未能预测，" not in text
    assert "标准不是报告" not in text
    comparison = drawn_comparison(200)
    text = Page(write_comparison(comparison, no_photos, tmp_path, title="t")).text
    for name, one in comparison.runs.items():
        if count := sum(row.error is not None for row in one.predictions):
            assert f"{name}：{count} 行未能预测" in text


def test_a_level_without_rows_has_no_recall(tmp_path: Path) -> None:
    expected = report(0, "裂缝", "卧室")
    source = write_report(run_of(sample("a", expected, read(expected))), no_photos, tmp_path, title="t").read_text(
        encoding="utf-8"
    )
    assert re.search(
        r'严重</span></td><td class="num">0.000</td>(<td class="num">–</td>){2}<td class="num">0</td>', source
    )
    assert re.search(r'轻微</span></td>(<td class="num">1.000</td>){3}<td class="num">1</td>', source)


def test_the_nearest_training_report_is_called_no_floor(tmp_path: Path) -> None:
    run = drawn_evaluation(10)
    page = Page(write_report(run, no_photos, tmp_path, title="t"))
    assert page.text.count("不是基线") == 1
    drawn = {one.get("class") for tag, one in page.tags if tag == "i"}
    assert {f"floor {one.kind}" for one in run.baselines} <= drawn
    without = replace(run, baselines=run.baselines[:1])
    assert "不是基线" not in Page(write_report(without, no_photos, tmp_path, title="t")).text


@pytest.mark.parametrize("which", ["report", "comparison"])
def test_a_page_says_that_some_marks_are_chance(tmp_path: Path, which: str) -> None:
    path = (
        write_report(drawn_evaluation(10), no_photos, tmp_path, title="t")
        if which == "report"
        else write_comparison(drawn_comparison(10), no_photos, tmp_path, title="t")
    )
    [count] = re.findall(r"这里看 (\d+) 个 95% 区间", Page(path).text)
    num_scores = len(score_names(SCORING.report_format.text_labels))
    assert int(count) == 2 * (num_scores - 1) if which == "comparison" else 0 < int(count) < num_scores
