"""Tasks out and, once somebody has corrected them, back through `stage: prepare`."""

import io
import json
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from evaluation.evaluated import Evaluation
from evaluation.label_studio import config_xml, write_tasks
from evaluation.predictions import Prediction
from evaluation.sample_scores import SampleScore, Scoring
from riskva.data.datasets import open_datasets
from riskva.errors import DataError, ImageError
from riskva.jobs import prepare
from riskva.recipe import PrepareRecipe
from riskva.report import DEFAULT_FORMAT, Reading, ReportField, ReportFormat, RiskLevel, RiskReport

TEXTS = {"风险描述": "渗水", "纠正和预防建议": "修补", "缺陷描述": "裂缝"}
TRUTH = RiskReport(RiskLevel.SEVERE, TEXTS)
ANSWER = RiskReport(RiskLevel.MINOR, {**TEXTS, "缺陷描述": '墙面 "完好" <&'})
LABEL, PREDICT = DEFAULT_FORMAT.render(TRUTH), DEFAULT_FORMAT.render(ANSWER)


def jpeg(colour: str = "red") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (60, 40), colour).save(stream, "JPEG")
    return stream.getvalue()


def prediction(number: int, **keys: Any) -> Prediction:
    return replace(Prediction(f"r{number}", "问", PREDICT, LABEL, level_probability=0.75), **keys)


def sample(one: Prediction, expected: RiskReport | None = TRUTH, answered: RiskReport | None = ANSWER) -> SampleScore:
    return SampleScore(one.id, one.group, expected, Reading(answered), None, {}, 0.0, None, None)


def evaluation(
    predictions: Sequence[Prediction], samples: Sequence[SampleScore] | None = None, **keys: Any
) -> Evaluation:
    """Only what tasks are made of."""
    rows = {"predictions": predictions, "samples": samples or [sample(one) for one in predictions]}
    rest: dict[str, Any] = dict.fromkeys(("levels", "scores", "intervals", "baselines", "num_groups", "signature"))
    return Evaluation(**{"scoring": Scoring(), "findings": (), **rest, **rows, **keys})


def written(
    folder: Path, scored: Evaluation, names: Mapping[int, Any] | None = None, **extra: str
) -> list[dict[str, Any]]:
    def photos(row: int) -> Sequence[tuple[str, bytes]]:
        return [(name, jpeg()) for name in (names or {}).get(row, [f"images/{row}.jpg"])]

    path = write_tasks(scored, range(len(scored.predictions)), photos, folder, lambda row: extra)
    assert path == folder / "tasks.json"
    tasks: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return tasks


def test_a_task_shows_both_and_is_filled_in_with_the_reference(tmp_path: Path) -> None:
    theirs = {"房屋": "3栋", "data_风险": "旧", "image_path": "old.jpg", "riskva_group": "g9", "image_id": "x"}
    (task,) = written(tmp_path, evaluation([prediction(1, group="g0002")]), **theirs)
    assert task["data"] == {
        "image_id": "r1",
        "image_path": "photos/0.jpg",
        "房屋": "3栋",
        "riskva_photo": "/data/local-files/?d=photos/0.jpg",
        "riskva_reference": LABEL,
        "riskva_reference_level": "严重",
        "riskva_answer": PREDICT,
        "riskva_answer_level": "轻微",
        "riskva_marks": "under-called",
        "riskva_confidence": 0.75,
        "riskva_group": "g0002",
    }
    (filled_in,) = task["predictions"]
    assert set(filled_in) == {"model_version", "result"}  # a confidence would be that of the answer, which this is not
    assert {one["from_name"]: one["value"] for one in filled_in["result"]} == {
        "data_风险": {"text": ["渗水"]},
        "data_风险等级": {"choices": ["严重"]},
        "data_纠正和预防建议": {"text": ["修补"]},
        "data_缺陷描述": {"text": ["裂缝"]},
    }


def test_without_a_reference_the_answer_is_filled_in_and_without_both_nothing(tmp_path: Path) -> None:
    rows = [prediction(1, label="好"), prediction(2, label="", predict="", error="没有照片", level_probability=None)]
    samples = [sample(rows[0], expected=None), sample(rows[1], None, None)]
    answered, failed = written(tmp_path, evaluation(rows, samples))
    (filled_in,) = answered["predictions"]
    assert filled_in["score"] == 0.75
    assert {"text": ['墙面 "完好" <&']} in [one["value"] for one in filled_in["result"]]
    assert failed["predictions"] == []
    shown = {name: failed["data"][f"riskva_{name}"] for name in ("reference", "answer", "answer_level", "marks")}
    marks = "unparsed, no reference"
    assert shown == {"reference": "—", "answer": "失败：没有照片", "answer_level": "—", "marks": marks}


def test_the_config_has_a_control_for_each_column_and_shows_what_tasks_have(tmp_path: Path) -> None:
    (task,) = written(tmp_path, evaluation([prediction(1)]))
    view = ElementTree.fromstring((tmp_path / "config.xml").read_text(encoding="utf-8"))
    controls = {one.attrib["name"]: one for one in view.iter() if "toName" in one.attrib}
    assert list(controls) == [one.column for one in DEFAULT_FORMAT.fields]
    assert {name: one.tag for name, one in controls.items() if name == "data_风险等级"} == {"data_风险等级": "Choices"}
    assert [one.attrib["value"] for one in controls["data_风险等级"]] == ["轻微", "中等", "严重"]
    results = task["predictions"][0]["result"]
    assert all(controls[one["from_name"]].tag.lower() == one["type"] for one in results)
    (image,) = view.iter("Image")
    assert {one.attrib["toName"] for one in controls.values()} == {one["to_name"] for one in results}
    assert image.attrib["name"] == results[0]["to_name"]
    used = {one.attrib["value"][1:] for one in view.iter() if one.attrib.get("value", "").startswith("$")}
    assert used <= set(task["data"])
    assert all(name.isascii() for name in used)  # Label Studio's variables are


def test_names_that_mean_something_in_xml_are_escaped_and_columns_stand_once() -> None:
    fields = (
        ReportField("等级", 'a"<&', is_level=True),
        ReportField("风险 <b>", "x", default="无"),
        ReportField("风险二", "x"),
    )
    view = ElementTree.fromstring(config_xml(ReportFormat(fields)))
    controls = [one for one in view.iter() if "toName" in one.attrib]
    assert [(one.attrib["name"], one.attrib["required"]) for one in controls] == [('a"<&', "true"), ("x", "false")]
    assert "风险 <b>" in {one.attrib["value"] for one in view.iter("Header")}


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("images/客厅 1.JPG", "客厅_1.JPG"),
        ("..\\..\\a?b&c.png", "a_b_c.png"),
        ("..", "photo.jpg"),
        ("r1#0", "r1_0.jpg"),
        ("图" * 200 + ".jpg", "图" * 50 + ".jpg"),
        (".jpg", "jpg.jpg"),
        ("", "r0.jpg"),
    ],
)
def test_photos_have_names_that_are_safe(tmp_path: Path, name: str, stored: str) -> None:
    (task,) = written(tmp_path, evaluation([prediction(0)]), {0: [name]})
    assert task["data"]["image_path"] == f"photos/{stored}"
    assert (tmp_path / "photos" / stored).read_bytes() == jpeg()
    query = urllib.parse.urlsplit(task["data"]["riskva_photo"]).query
    assert query.isascii()
    assert urllib.parse.parse_qs(query) == {"d": [f"photos/{stored}"]}


def test_photos_of_one_name_are_kept_apart(tmp_path: Path) -> None:
    names = {0: ["x/a.jpg"], 1: ["y/a.jpg"], 2: ["A.jpg"], 3: ["a-2.jpg"], 4: ["a.jpg"]}
    tasks = written(tmp_path, evaluation([prediction(number) for number in range(5)]), names)
    stored = [task["data"]["image_path"] for task in tasks]
    assert stored == [f"photos/{name}" for name in ("a.jpg", "a-2.jpg", "A-3.jpg", "a-2-2.jpg", "a-4.jpg")]
    assert len({name.lower() for name in stored}) == 5


def test_rows_without_exactly_one_photo_are_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = evaluation([prediction(number) for number in range(4)])

    def photos(row: int) -> Sequence[tuple[str, bytes]]:
        if row == 3:
            raise ImageError("gone.jpg: no image file")
        return [(f"{number}.jpg", jpeg()) for number in range(row)]

    path = write_tasks(scored, range(4), photos, tmp_path, lambda row: {})
    assert [task["data"]["image_id"] for task in json.loads(path.read_text(encoding="utf-8"))] == ["r1"]
    said = capsys.readouterr().err
    for part in (
        "3 rows left out",
        "id r0: 0 photos",
        "id r2: 2 photos",
        "id r3: gone.jpg: no image file",
        "1 tasks in",
    ):
        assert part in said
    assert f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={tmp_path}" in said
    with pytest.raises(DataError, match="none of 1 rows can be a task for Label Studio"):
        write_tasks(scored, [0], photos, tmp_path / "none", lambda row: {})
    assert not (tmp_path / "none").exists()


def annotated(task: dict[str, Any], number: int, **corrections: str) -> dict[str, Any]:
    """What Label Studio exports once somebody has opened the task, changed some controls and submitted it."""
    results = json.loads(json.dumps(task["predictions"][0]["result"]))
    for one in results:
        if one["from_name"] in corrections:
            kind = "choices" if one["type"] == "choices" else "text"
            one["value"] = {kind: [corrections[one["from_name"]]]}
    annotation = {"id": number, "completed_by": 1, "result": results, "was_cancelled": False, "lead_time": 3.5}
    times = {"created_at": "2026-05-06T07:00:00.000000Z", "updated_at": "2026-05-06T07:08:09.123456Z"}
    return {"id": number, "data": task["data"], "predictions": [1], "annotations": [annotation | times], "meta": {}}


def test_corrected_tasks_come_back_as_training_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, out = tmp_path / "label_studio", tmp_path / "out"
    scored = evaluation([prediction(number, group=f"g{number:04d}") for number in range(4)])
    tasks = written(folder, scored, 房屋="3栋")
    exported: list[dict[str, Any]] = [
        annotated(tasks[0], 1, data_缺陷描述="墙面“竖向”裂缝", data_风险等级="中等"),
        annotated(tasks[1], 2),
        {**annotated(tasks[2], 3), "annotations": []},
        annotated(tasks[3], 4, data_风险="漏水\n发霉"),
    ]
    export = tmp_path / "project-1.json"
    export.write_text(json.dumps(exported, ensure_ascii=False), encoding="utf-8")
    keys: dict[str, Any] = {"split": {"train": 1.0}, "near_duplicates": "report", "max_bad_share": 0.25}
    prepare.run(
        PrepareRecipe(stage="prepare", csv_path=export, image_base_path=folder, output_dir=out, group_by="房屋", **keys)
    )
    rows = {one.id: one for one in open_datasets(["building_defect_train"], out)}
    reports = {name: DEFAULT_FORMAT.parse(row.answer or "") for name, row in rows.items()}
    assert reports == {
        "r0": RiskReport(RiskLevel.MODERATE, {**TEXTS, "缺陷描述": "墙面“竖向”裂缝"}),
        "r1": TRUTH,
        "r3": RiskReport(RiskLevel.SEVERE, {**TEXTS, "风险描述": "漏水 发霉"}),
    }
    columns = {"image_id", "image_path", "房屋", *(one.column for one in DEFAULT_FORMAT.fields), "riskva_group"}
    assert all(set(row.extra) == columns for row in rows.values())
    assert {row.extra["riskva_group"] for row in rows.values()} == {"g0001"}
    assert rows["r0"].photos[0].read() == jpeg()
    (bad,) = (json.loads(line) for line in (out / "quarantine.jsonl").read_text(encoding="utf-8").splitlines())
    assert (bad["id"], bad["reason"]) == ("r2", "not_annotated")
