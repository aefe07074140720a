import json
from collections.abc import Sequence
from typing import Any, get_args

import pytest
from audit_making import (
    MINOR,
    MODERATE,
    SEVERE,
    Given,
    audit_of,
    bad_row,
    codes,
    finding,
    healthy,
    row,
    settings,
    thumbnail,
)

from riskva.audit.balance import wilson_interval
from riskva.audit.builder import Audit, AuditBuilder
from riskva.audit.facts import Bin, Spread, histogram, spread, train_split
from riskva.audit.findings import Unit
from riskva.audit.rows import NO_GROUP, RowLog, texts_digest
from riskva.audit.words import SEVERITY_NAMES, UNITS, WORDS
from riskva.report import DEFAULT_FORMAT, ReportField, ReportFormat, RiskReport

LABELS = DEFAULT_FORMAT.text_labels


def changed(number: int, **changes: Any) -> list[Given]:
    """Healthy rows, of which one is made anew."""
    rows = healthy()
    old, split = rows[number]
    rows[number] = (row(number, changes.pop("level", old.report.level), **changes), split)
    return rows


def templated(num_alike: int, num_rows: int) -> list[Given]:
    """Rows of which the first ones share their texts."""
    return [(row(n, text="墙面裂缝" if n < num_alike else f"裂缝{n}号"), "train") for n in range(num_rows)]


def test_of_a_healthy_data_set_there_is_nothing_to_say() -> None:
    audit = audit_of(healthy())
    assert audit.findings == () == audit.errors
    assert audit.num_by_severity == {"error": 0, "warning": 0, "info": 0}


@pytest.mark.parametrize(
    ("rows", "code", "severity", "count"),
    [
        ([(row(n, MINOR), "train") for n in range(200)], "level_absent_from_train", "error", 2),
        ([*healthy(), (row(900), "train")], "split_without_rows", "warning", 1),
        (healthy(9), "few_rows_in_split", "warning", 3),
        (changed(5, size=(640, 223)), "small_photos", "info", 1),
        ([(row(n, size=(200, 300)), "train") for n in range(90)], "small_photos", "warning", 90),
        (changed(5, level_as_written="一般", level=MODERATE), "level_wordings", "info", 1),
        (changed(5, content="4"), "same_photo_other_report", "warning", 2),
        (changed(5, content="4", text="客厅墙面存在裂缝，编号4"), "identical_rows", "info", 1),
        (changed(4, text="客厅墙面存在裂缝，编号3"), "texts_across_splits", "warning", 1),
        (changed(7, text="客厅墙面存在裂缝，编号4", level=SEVERE), "texts_other_level", "warning", 1),
        (changed(5, text="裂缝"), "short_texts", "info", 3),
        ([(row(n, text="裂缝"), "train") for n in range(9)], "short_texts", "warning", 27),
        ([(row(n, text=f"施工质量一般{n}"), "train") for n in range(9)], "unknown_kinds", "info", 9),
        (templated(20, 20), "constant_text", "warning", 20),
        (templated(4, 20), "template_text", "info", 4),
        (templated(10, 20), "template_text", "warning", 10),
    ],
)
def test_what_is_wrong_is_found(rows: Sequence[Given], code: str, severity: str, count: int) -> None:
    splits = ("train", "val", "test", "extra") if code == "split_without_rows" else ("train", "val", "test")
    found = finding(audit_of(rows, splits=splits), code)
    assert (found.severity, found.count) == (severity, count)


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        (changed(5, size=(640, 224)), "small_photos"),
        (changed(5, text="裂缝一处"), "short_texts"),
        (changed(5, content="4", text="客厅墙面存在裂缝，编号4"), "same_photo_other_report"),
        (changed(5, text="客厅墙面存在裂缝，编号4"), "identical_rows"),
        (changed(5, text="客厅墙面存在裂缝，编号4"), "texts_across_splits"),
        (changed(4, text="客厅墙面存在裂缝，编号3"), "texts_other_level"),
        (templated(19, 100), "template_text"),
        (templated(9, 9), "constant_text"),
        ([(row(n, text=f"质量一般{n}" if n < 2 else f"裂缝{n}"), "train") for n in range(10)], "unknown_kinds"),
    ],
)
def test_what_is_fit_is_not_found_fault_with(rows: Sequence[Given], code: str) -> None:
    assert code not in codes(audit_of(rows))


def test_rows_in_are_rows_out_and_quarantined() -> None:
    audit = audit_of(healthy(), [bad_row(900), bad_row(901, "empty_field"), bad_row(902)])
    rows = audit.facts.rows
    assert (rows.num_in, rows.num_out, rows.num_quarantined) == (903, 900, 3)
    assert list(rows.reasons.items()) == [("image_missing", 2), ("empty_field", 1)]
    assert rows.splits == {"train": 300, "val": 300, "test": 300}
    assert [(one.file, one.label, one.num_out, one.num_quarantined) for one in rows.tables] == [
        ("t.csv", "CSV, UTF-8", 900, 3)
    ]
    found = finding(audit, "quarantined_rows")
    assert found.severity == "info"
    assert found.share == pytest.approx(3 / 903)
    assert [one.note for one in found.examples][-1] == "empty_field: no such file"
    assert "找不到照片 2、必填内容为空 1" in found.detail_zh


def test_many_bad_rows_are_a_warning_with_a_few_examples_of_each_reason() -> None:
    found = finding(audit_of(healthy(), map(bad_row, range(900, 910))), "quarantined_rows")
    assert (found.severity, found.count, len(found.examples)) == ("warning", 10, 5)


def test_levels_stand_beside_the_floor_of_their_split() -> None:
    audit = audit_of([(row(n, SEVERE if n < 6 else MINOR), "train" if n % 2 else "test") for n in range(200)])
    assert audit.facts.levels.splits["test"] == {"轻微": 97, "中等": 0, "严重": 3}
    assert audit.facts.levels.floors["test"].level == "轻微"
    assert audit.facts.levels.floors["test"].accuracy == pytest.approx(0.97)
    assert "val" not in audit.facts.levels.floors
    found = finding(audit, "majority_dominates")
    assert (found.severity, found.count) == ("warning", 97)


def test_a_floor_below_nine_tenths_is_an_info_and_an_even_one_nothing() -> None:
    uneven = [(row(n, MINOR if n % 20 < 17 else SEVERE), "train") for n in range(200)]
    assert finding(audit_of(uneven), "majority_dominates").severity == "info"
    assert "majority_dominates" not in codes(audit_of(healthy()))


def test_a_level_that_the_test_lacks_is_worse_than_a_rare_one() -> None:
    rows = [given for given in healthy() if not (given[1] == "test" and given[0].report.level == SEVERE)]
    found = finding(audit_of(rows), "level_absent_from_test")
    assert "严重" in found.detail_zh
    assert "level_absent_from_test" not in codes(audit_of(healthy()))


def test_a_rare_level_of_the_test_has_its_interval_spelled_out() -> None:
    rare = [one for one, split in healthy() if split == "test" and one.report.level == SEVERE][7:]
    found = finding(audit_of([given for given in healthy() if given[0] not in rare]), "few_test_rows_of_level")
    assert found.detail == (
        "with 7 rows of 严重 in test, a measured recall of 0.86 (6 of 7) may lie anywhere between 0.49 and 0.97."
    )
    assert "7 行：测得召回率 0.86（6/7）" in found.detail_zh
    assert (found.unit, found.count) == ("levels", 1)


def test_fifty_rows_of_a_level_are_enough() -> None:
    rows = healthy(450)
    assert audit_of(rows).facts.levels.splits["test"]["严重"] == 50
    assert "few_test_rows_of_level" not in codes(audit_of(rows))
    assert "few_test_rows_of_level" in codes(audit_of(rows[:-1]))


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (6, 7, 0.4869, 0.9743), (1, 1, 0.2065, 1.0), (0, 5, 0.0, 0.4345)],
)
def test_wilson_intervals_are_those_of_scipy(successes: int, trials: int, low: float, high: float) -> None:
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)
    expected = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_split_of_one_level_is_found() -> None:
    single = [(row(n, MINOR), "val") if split == "val" else (one, split) for n, (one, split) in enumerate(healthy())]
    assert finding(audit_of(single), "single_level_split").detail.startswith("val (轻微)")


def test_a_train_split_without_rows_is_an_error() -> None:
    audit = audit_of([(one, "test") for one, _ in healthy()])
    assert finding(audit, "split_without_rows").severity == "error"


def test_only_training_is_worth_a_word() -> None:
    rows = [(one, "train") for one, _ in healthy()]
    assert codes(audit_of(rows, splits=("train",))) == ["no_test_split"]


def test_groups_are_counted_and_the_largest_named() -> None:
    rows = [(row(n, one.report.level, group=f"{n % 7}栋"), "train") for n, (one, _) in enumerate(healthy(90))]
    audit = audit_of(rows)
    groups = audit.facts.groups
    assert groups is not None
    assert (groups.num_groups, groups.num_without) == (7, 0)
    assert next(iter(groups.largest.items())) == ("0栋", 13)
    assert not {"group_dominates", "rows_without_group", "group_across_splits"} & set(codes(audit))
    assert audit_of(healthy(90)).facts.groups is None


def test_a_group_that_holds_over_a_third_is_found() -> None:
    rows = [(row(n, group="甲" if n < 34 else f"{n}"), "train") for n in range(100)]
    assert finding(audit_of(rows), "group_dominates").count == 34
    rows = [(row(n, group="甲" if n < 33 else f"{n}"), "train") for n in range(100)]
    assert "group_dominates" not in codes(audit_of(rows))


def test_rows_without_a_group_and_torn_groups_are_found() -> None:
    rows = [(row(n, group=f"{n // 3}栋" if n > 1 else None), ("train", "test")[n > 3]) for n in range(12)]
    audit = audit_of(rows)
    assert [one.number for one in finding(audit, "rows_without_group").examples] == [0, 1]
    torn = finding(audit, "group_across_splits")
    assert (torn.severity, torn.count, [one.number for one in torn.examples]) == ("error", 1, [3, 4, 5])
    assert "1栋" in torn.detail


def test_look_alikes_in_two_splits_are_an_error_and_in_one_an_info() -> None:
    audit = audit_of(healthy(), look_alikes=[[0, 3, 6], [2, 4]])
    torn, whole = finding(audit, "look_alikes_across_splits"), finding(audit, "look_alikes")
    assert (torn.severity, torn.count, [one.number for one in torn.examples]) == ("error", 2, [2, 4])
    assert (whole.severity, whole.count, {one.cluster for one in whole.examples}) == ("info", 3, {1})
    facts = audit.facts.look_alikes
    assert (facts.num_clusters, facts.num_rows, facts.num_across_splits, facts.num_several_levels) == (2, 5, 1, 2)


def test_look_alikes_with_other_levels_are_shown_with_what_differs() -> None:
    audit = audit_of(healthy(), look_alikes=[[0, 3, 9, 18, 27, 36]])
    found = finding(audit, "look_alikes_other_level")
    assert (found.count, sorted({one.level for one in found.examples})) == (1, ["中等", "轻微"])
    assert len(found.examples) == 4
    assert "look_alikes_other_level" not in codes(audit_of(healthy(), look_alikes=[[0, 9]]))


def test_look_alikes_must_be_good_rows() -> None:
    with pytest.raises(ValueError, match=r"rows \[3, 900\]: the audit did not take all of them as good ones"):
        audit_of(healthy(), [bad_row(900)], look_alikes=[[3, 900]])
    with pytest.raises(ValueError, match=r"rows \[0, 1\]"):
        audit_of([(row(0), "train"), (row(2), "train")], [bad_row(1)], look_alikes=[[0, 1]])


def test_shared_texts_say_how_many_rows_of_each_split() -> None:
    rows = [
        (row(n, one.report.level, text=f"裂缝{n // 2}号墙面" if n < 12 else f"裂缝{n}"), split)
        for n, (one, split) in enumerate(healthy())
    ]
    found = finding(audit_of(rows), "texts_across_splits")
    assert found.count == 4
    assert "val 2/300 (0.7%), test 2/300 (0.7%)" in found.detail
    assert [(one.split, one.cluster) for one in found.examples[:2]] == [("train", 1), ("val", 1)]


def test_examples_are_few_and_in_order() -> None:
    rows = [(row(n, text="裂缝" if n % 2 else f"墙面裂缝{n}"), "train") for n in range(100)]
    found = finding(audit_of(rows), "short_texts")
    assert [one.number for one in found.examples] == list(range(1, 40, 2))
    assert found.examples[0].texts == dict.fromkeys(LABELS, "裂缝")
    assert (found.examples[0].id, found.examples[0].line, found.examples[0].split) == ("p1", 3, "train")


def test_errors_come_first_and_the_largest_of_equals() -> None:
    rows = [*changed(5, size=(100, 100), text="裂"), (row(900, text="裂缝"), "val")]
    found = audit_of(rows, look_alikes=[[2, 4]]).findings
    ranks = [(list(SEVERITY_NAMES).index(one.severity), -one.share) for one in found]
    assert ranks == sorted(ranks)
    assert {severity for severity, _ in ranks} == {0, 1, 2}
    assert len({one.title for one in found}) == len(found)


def test_kinds_are_counted_by_split_and_level() -> None:
    rows = [(row(0, SEVERE, text="外墙饰面砖脱落"), "train"), (row(1, text="看不清楚"), "test")]
    kinds = {one.kind: one for one in audit_of(rows).facts.kinds}
    assert kinds["饰面砖脱落"].splits == {"train": 1, "val": 0, "test": 0}
    assert kinds["饰面砖脱落"].levels == {"轻微": 0, "中等": 0, "严重": 1}
    assert kinds["unknown"].count == 1


def test_without_a_field_of_descriptions_the_last_text_names_the_kind() -> None:
    fields = (ReportField("风险等级", "a", is_level=True), ReportField("位置", "b"), ReportField("问题", "c"))
    report = RiskReport(MINOR, {"位置": "阳台积水", "问题": "墙面裂缝"})
    audit = audit_of([(row(0, report=report), "train")], report_format=ReportFormat(fields))
    assert (audit.facts.kind_label, [one.kind for one in audit.facts.kinds]) == ("问题", ["裂缝"])
    only_level = audit_of([(row(0), "train")], report_format=ReportFormat(fields[:1]))
    assert (only_level.facts.kind_label, only_level.facts.kinds, only_level.facts.texts) == (None, (), ())


def test_texts_are_measured_in_characters() -> None:
    texts = [f"墙面裂缝{'长' * n}" for n in (0, 0, 1, 6)]
    rows = [(row(n, text=text), "train") for n, text in enumerate(texts)]
    facts = audit_of(rows).facts.texts[0]
    assert facts.label == LABELS[0]
    assert facts.chars == Spread(4, 4, 10)
    assert (facts.num_distinct, facts.commonest, facts.commonest_count) == (3, "墙面裂缝", 2)
    assert sum(one.count for one in facts.histogram) == 4


def test_photos_are_counted_by_size_and_kept_or_written_anew() -> None:
    rows = [(row(n, size=size), "train") for n, size in enumerate([(640, 480), (480, 640), (640, 480), (300, 300)])]
    rows.append((row(4, is_unchanged=False), "train"))
    photos = audit_of(rows).facts.photos
    assert (photos.sizes[0].width, photos.sizes[0].height, photos.sizes[0].count) == (640, 480, 3)
    assert photos.orientations == {"landscape": 3, "portrait": 1, "square": 1}
    assert (photos.num_unchanged, photos.num_reencoded, photos.num_bytes) == (4, 1, 5000)
    assert photos.short_side == Spread(300, 480, 480)
    assert (photos.tokens, photos.num_tokens) == (Spread(121, 391, 391), 4 * 391 + 121)


def test_histograms_hold_everything_in_round_bins() -> None:
    counts = {3: 1, 10: 5, 47: 2}
    bins = histogram(counts, most_bins=5)
    assert bins == (Bin(0, 9, 1), Bin(10, 19, 5), Bin(20, 29, 0), Bin(30, 39, 0), Bin(40, 49, 2))
    assert spread({5: 1, 7: 1}) == Spread(5, 5, 7)


def full() -> Audit:
    rows = [
        (row(n, one.report.level, group=f"{n % 5}栋", content=str(n // 2), level_as_written="一般"), split)
        for n, (one, split) in enumerate(healthy(60))
    ]
    return audit_of(rows, [bad_row(60)], look_alikes=[[0, 1], [9, 3]])


def test_the_same_rows_give_the_same_audit() -> None:
    first, again = full(), full()
    assert first == again
    assert json.dumps(first.to_json(), ensure_ascii=False) == json.dumps(again.to_json(), ensure_ascii=False)


def test_json_holds_everything_but_the_pictures() -> None:
    held = json.loads(json.dumps(full().to_json()))
    assert held["verdict"] == full().num_by_severity
    assert held["rows"]["num_in"] == held["rows"]["num_out"] + held["rows"]["num_quarantined"] == 61
    assert {"code", "severity", "count", "share", "title_zh", "remedy_zh"} <= set(held["findings"][0])
    (torn,) = [one for one in held["findings"] if one["code"] == "look_alikes_across_splits"]
    assert torn["examples"][0]["texts"]["缺陷描述"] == "客厅墙面存在裂缝，编号0"
    assert [one["label"] for one in held["texts"]] == list(LABELS)
    assert "jpeg" not in json.dumps(held)


def test_thumbnails_are_asked_for_once_and_only_for_rows_that_are_shown() -> None:
    asked: list[int] = []

    def noted(number: int) -> bytes:
        asked.append(number)
        return thumbnail(number)

    builder = AuditBuilder(settings())
    for one, split in healthy():
        builder.add(one, split)
    audit = builder.finish([[0, 1], [0, 1]], noted)
    assert len(asked) == len(set(asked)) == len(audit.thumbnails)
    assert {0, 1} <= set(asked)
    assert len(asked) <= 26
    assert {one.level for one in audit.samples} == {"轻微", "中等", "严重"}


def test_rows_out_of_order_and_unknown_splits_are_refused() -> None:
    builder = AuditBuilder(settings())
    builder.add(row(4), "train")
    with pytest.raises(ValueError, match="row 4 after row 4: the audit takes rows in order of number"):
        builder.add(row(4), "train")
    with pytest.raises(ValueError, match="row 5: split 'validation' is none of train, val, test"):
        builder.add(row(5), "validation")


def test_the_log_gives_back_what_it_was_given_and_stays_small() -> None:
    log = RowLog(("train",), LABELS)
    for n in range(2000):
        log.add(row(n, group=f"{n % 9}栋" if n % 2 else None, text="很长的描述" * 40), "train")
    assert log.example(1000).id == "p1000"
    assert log.example(1999).texts[LABELS[0]] == ("很长的描述" * 40)[:119] + "…"
    assert (log.group(1001), int(log.group_keys[1000])) == ("2栋", NO_GROUP)
    assert log.indices([5, 7, 1999]).tolist() == [5, 7, 1999]
    assert sum(len(block) for block in log._words._blocks) < 40 * len(log)


def test_texts_are_the_same_whatever_the_level_and_the_white_space() -> None:
    report = RiskReport(MINOR, {"缺陷描述": "墙面 裂缝", "建议": "修补"})
    same = RiskReport(SEVERE, {"缺陷描述": " 墙面\n裂缝 ", "建议": "修补"})
    assert texts_digest(report) == texts_digest(same)
    for texts in ({"缺陷描述": "墙面裂缝", "建议": "修补"}, {"描述": "墙面 裂缝", "建议": "修补"}):
        assert texts_digest(RiskReport(MINOR, texts)) != texts_digest(report)


@pytest.mark.parametrize(
    ("splits", "train", "test"),
    [
        (("train", "val", "test"), "train", "test"),
        (("test", "train"), "train", "test"),
        (("a", "b", "c"), "a", "c"),
        (("test", "other"), "test", "test"),
        (("train",), "train", None),
    ],
)
def test_one_split_is_to_learn_from_and_one_to_judge_by(splits: tuple[str, ...], train: str, test: str | None) -> None:
    assert (settings(splits=splits).train_split, settings(splits=splits).test_split) == (train, test)
    assert train_split(splits) == train


def test_every_finding_has_words_in_both_languages_and_every_unit_a_name() -> None:
    for words in WORDS.values():
        assert all(vars(words).values())
    assert set(UNITS) == set(get_args(Unit))
