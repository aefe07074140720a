import csv
import json
import re
from base64 import b64decode
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import pytest
from demo_report import main, pair_rows, read_run
from drawn_defects.kind_score import KIND_LINE, kind_line
from drawn_defects.table import Drawing, draw_table
from PIL import Image

from evaluation.predictions import Prediction, read_predictions
from evaluation.scoring import score
from riskva.errors import DataError
from riskva.files import write_json
from riskva.report import DEFAULT_FORMAT, RiskLevel, RiskReport

NUM_ROWS = 6
NOISE = "<script>alert('x')</script> 墙上有线 & 点"
Row = dict[str, str]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_table(tmp_path_factory.mktemp("photos"), NUM_ROWS, Drawing(seed=5, size=(56, 56), houses=2)).parent


@pytest.fixture(scope="module")
def truths(photos: Path) -> list[Row]:
    """Rows of a predictions file whose answers are the labels."""
    with (photos / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        return [_truth(row) for row in csv.DictReader(stream)]


def _truth(row: Row) -> Row:
    texts = {one.label: row[one.column] for one in DEFAULT_FORMAT.fields if not one.is_level}
    label = DEFAULT_FORMAT.render(RiskReport(RiskLevel.from_label(row["data_风险等级"]), texts))
    return {"id": row["image_id"], "image": row["image_path"], "prompt": "问", "label": label, "predict": label}


def _report(level: str, description: str) -> str:
    return DEFAULT_FORMAT.render(
        RiskReport(
            RiskLevel.from_label(level), {**dict.fromkeys(DEFAULT_FORMAT.text_labels, "无"), "缺陷描述": description}
        )
    )


def _row(row_id: str, truth: str, answer: str) -> Prediction:
    return Prediction(row_id, "问", answer, truth, image=f"images/{row_id}.jpg")


def _folder(folder: Path, rows: Sequence[Row]) -> Path:
    folder.mkdir()
    path = folder / "generated_predictions.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    write_json(folder / "metrics.json", score(read_predictions(path), DEFAULT_FORMAT))
    return folder


@pytest.fixture
def report(tmp_path: Path, photos: Path, truths: list[Row]) -> Callable[..., int]:
    """Runs the command with a base that writes noise; `tuned` are the rows of the fine-tuned model."""

    def run(tuned: Sequence[Row], base: Sequence[Row] = tuple({**row, "predict": NOISE} for row in truths)) -> int:
        folders = ["--base", str(_folder(tmp_path / "base", base)), "--tuned", str(_folder(tmp_path / "tuned", tuned))]
        return main([str(tmp_path / "report.html"), *folders, "--photos", str(photos)])

    return run


def test_the_page_stands_alone_and_shows_every_photo(
    report: Callable[..., int], truths: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(truths) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count('<img src="data:image/jpeg;base64,') == NUM_ROWS
    assert all(source.startswith("data:") for source in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert "url(" not in page
    assert "@import" not in page
    assert "no measure of skill on real photos" in page
    assert "AI 辅助，不替代鉴定" in page
    table = capsys.readouterr().out
    assert re.search(rf"^{KIND_LINE} +0\.\d+ +0\.000 +1\.000$", table, re.MULTILINE)
    assert re.search(r"^reports that parse +– +0\.000 +1\.000$", table, re.MULTILINE)


def test_answers_are_shown_and_never_run(report: Callable[..., int], truths: list[Row], tmp_path: Path) -> None:
    wrong = {**truths[0], "predict": truths[0]["label"].replace("**缺陷描述**: ", "**缺陷描述**: <img onerror=x>")}
    report([wrong, *truths[1:]])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; 墙上有线 &amp; 点") == NUM_ROWS
    assert "<img onerror" not in page
    assert "&lt;img onerror=x&gt;" in page
    assert page.count("no report: missing or empty") == NUM_ROWS


def test_wrong_rows_come_first_and_the_rest_keeps_its_order(
    report: Callable[..., int], truths: list[Row], tmp_path: Path
) -> None:
    tuned = [*truths[:3], {**truths[3], "predict": ""}, truths[4], {**truths[5], "predict": NOISE}]
    assert report(tuned) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    ids = [row["id"] for row in truths]
    assert re.findall(r"<h3>(photo_\w+)</h3>", page) == [ids[3], ids[5], *ids[:3], ids[4]]
    assert page.count('class="card is-wrong"') == 2
    assert "2 of 6 with a wrong level or kind" in page
    assert "no report: the answer is empty" in page


@pytest.mark.parametrize(
    ("answer", "level_is_right", "kind_is_right"),
    [
        (_report("中等", "客厅墙面存在较长裂缝。"), True, True),
        (_report("严重", "卧室有裂缝"), False, True),
        (_report("中等", "客厅墙面存在裂缝和霉斑。"), True, False),
        (_report("中等", "客厅墙面存在霉斑。"), True, False),
        (_report("中等", "客厅墙面有问题。"), True, False),
        (_report("中等", "未发现明显缺陷。"), True, False),
        ("客厅墙面存在较长裂缝。", False, False),
        ("", False, False),
    ],
)
def test_a_kind_is_right_when_it_and_no_other_is_named(answer: str, level_is_right: bool, kind_is_right: bool) -> None:
    row = _row("1", _report("中等", "客厅墙面存在较长裂缝。"), answer)
    (pair,) = pair_rows([row], [row])
    assert (pair.tuned.level_is_right, pair.tuned.kind_is_right) == (level_is_right, kind_is_right)
    assert pair.tuned.is_right == (level_is_right and kind_is_right)
    assert (pair.tuned.report is None) == (pair.tuned.fault is not None)


def test_the_kinds_floor_is_the_commonest_kind() -> None:
    labels = [_report("轻微", text) for text in ("墙面裂缝", "顶棚渗水", "另一处裂缝", "未发现明显缺陷")]
    base = [_row(str(number), label, labels[1]) for number, label in enumerate(labels)]
    tuned = [_row(str(number), label, label if number else "") for number, label in enumerate(labels)]
    line = kind_line([base, tuned])
    assert (line.floor, line.scores) == (0.5, (0.25, 0.75))


def test_a_row_that_failed_is_wrong_and_says_why() -> None:
    label = _report("轻微", "墙面裂缝")
    failed = Prediction("1", "问", label, label, image="images/1.jpg", error="the photo is broken")
    (pair,) = pair_rows([failed], [failed])
    assert pair.tuned.fault == "the photo is broken"
    assert not pair.tuned.is_right


def test_rows_that_do_not_belong_together_are_refused() -> None:
    crack, damp = _report("轻微", "墙面裂缝"), _report("轻微", "顶棚渗水")
    one, other = _row("1", crack, crack), _row("2", crack, crack)
    with pytest.raises(DataError, match="do not answer the same rows: only one has 1, 2"):
        pair_rows([one], [other])
    with pytest.raises(DataError, match="base: id 1 stands twice"):
        pair_rows([one, one], [one])
    with pytest.raises(DataError, match="id 1: base and fine-tuned were given other labels"):
        pair_rows([one], [_row("1", damp, crack)])
    for label, message in (("一面墙", "the label is no report"), (_report("轻微", "一面墙"), "names no drawn kind")):
        with pytest.raises(DataError, match=f"id 1: .*{message}"):
            pair_rows([_row("1", label, crack)], [_row("1", label, crack)])


def test_other_rows_and_absent_photos_end_the_command(
    report: Callable[..., int], truths: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report([*truths[:-1], {**truths[-1], "id": "another"}]) == 1
    assert "error: base and fine-tuned do not answer the same rows" in capsys.readouterr().err
    folders = ["--base", str(tmp_path / "base"), "--tuned", str(tmp_path / "base")]
    assert main([str(tmp_path / "report.html"), *folders, "--photos", str(tmp_path)]) == 1
    assert f"no photo {tmp_path / 'images' / '00000.jpg'}; --photos" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_metrics_of_other_answers_are_refused(tmp_path: Path, truths: list[Row]) -> None:
    folder = _folder(tmp_path / "tuned", truths)
    assert len(read_run(folder).predictions) == NUM_ROWS
    path = folder / "generated_predictions.jsonl"
    path.write_text(path.read_text(encoding="utf-8").split("\n")[0], encoding="utf-8")
    with pytest.raises(DataError, match=r"metrics.json is of other answers than those in generated_predictions.jsonl"):
        read_run(folder)


def test_a_large_photo_is_shrunk_for_the_page(tmp_path: Path) -> None:
    from demo_report import render_page

    table = draw_table(tmp_path / "large", 1, Drawing(size=(1200, 900)))
    with table.open(encoding="utf-8", newline="") as stream:
        run = read_run(_folder(tmp_path / "run", [_truth(row) for row in csv.DictReader(stream)]))
    page = render_page(run, run, tmp_path / "large")
    (embedded,) = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page)
    with Image.open(BytesIO(b64decode(embedded))) as photo:
        assert photo.size == (480, 360)
