"""`riskva.load`: what Python code gets is what `stage: predict` writes."""

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from user_rows import drawn_photo

import riskva
from evaluation.calibration import tempered
from riskva.errors import ImageError, ModelError
from riskva.modeling.context import ModelContext
from riskva.report import DEFAULT_FORMAT, RiskLevel, RiskReport


@pytest.fixture(scope="module")
def reporter(tiny_model: Path) -> riskva.Reporter:
    return riskva.load(tiny_model, dtype=torch.float32, max_new_tokens=150, max_field_chars=6)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos") / "照片 1.png"
    path.write_bytes(drawn_photo(1).read())
    return path


def test_a_report_is_typed_and_says_how_sure_it_is(reporter: riskva.Reporter, photo: Path) -> None:
    one = reporter.report(photo)
    assert isinstance(one.report, RiskReport)
    assert (one.level, one.finish_reason, one.reason, one.error) == (one.report.level, "stop", None, None)
    assert one.report == DEFAULT_FORMAT.read_answer(one.text).report
    assert one.probabilities is not None
    assert set(one.probabilities) == set(RiskLevel)
    assert sum(one.probabilities.values()) == pytest.approx(1)
    assert one.confidence == one.probabilities[one.report.level]


def test_paths_bytes_and_pictures_are_one(reporter: riskva.Reporter, photo: Path) -> None:
    with Image.open(photo) as picture:
        reports = list(reporter.reports([str(photo), photo.read_bytes(), picture], batch_size=2))
    assert {one.text for one in reports} == {reporter.report(photo).text}


def test_a_picture_is_turned_by_its_orientation_once(reporter: riskva.Reporter) -> None:
    picture = Image.open(io.BytesIO(drawn_photo(3, 112, 84).read()))
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    exif = turned.getexif()
    exif[0x0112] = 6  # shown turned by 270 degrees: as the picture was
    stream = io.BytesIO()
    turned.save(stream, "PNG", exif=exif)
    with Image.open(io.BytesIO(stream.getvalue())) as opened:
        texts = [one.text for one in reporter.reports([picture, opened, stream.getvalue()])]
    assert texts[1:] == texts[:1] * 2


def test_a_bad_photo_fails_alone(reporter: riskva.Reporter, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    bad = [tmp_path / "text.jpg", tmp_path / "gone.jpg"]
    good, *failed = reporter.reports([photo, *bad])
    assert good.report == reporter.report(photo).report
    for path, one in zip(bad, failed, strict=True):
        assert one.report is None
        assert one.level is None
        assert one.confidence is None
        assert str(path) in str(one.error)
        with pytest.raises(ImageError, match=path.name):
            reporter.report(path)


def test_pictures_of_any_mode_are_taken_and_a_broken_one_fails_alone(reporter: riskva.Reporter, photo: Path) -> None:
    with Image.open(photo) as picture:
        others = [picture.convert(mode) for mode in ("CMYK", "YCbCr", "L", "RGBA")]
    broken = Image.open(io.BytesIO(photo.read_bytes()[:-200]))  # Pillow reads the header alone
    *taken, failed = reporter.reports([*others, broken], batch_size=5)
    assert [one.error for one in taken] == [None] * 4
    assert failed.report is None
    assert "photo 4" in str(failed.error)
    with pytest.raises(ImageError):
        reporter.report(Image.open(io.BytesIO(photo.read_bytes()[:-200])))


def test_an_answer_that_is_cut_off_is_no_report(tiny_model: Path, photo: Path) -> None:
    one = riskva.load(tiny_model, max_new_tokens=5).report(photo)
    assert (one.report, one.finish_reason, one.reason) == (None, "length", "cut off by max_new_tokens")


def test_the_models_riskva_json_says_how_it_is_asked_and_tempered(
    tiny_model: Path, photo: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny_model.iterdir():
        (folder / path.name).symlink_to(path)
    context = ModelContext(base_model="b", question="<image>哪里坏了？", system_prompt="你是检查员。")
    context.save(folder)
    raw = riskva.load(folder, dtype=torch.float32, max_new_tokens=150, max_field_chars=6)
    assert (raw.asking.question, raw.asking.system_prompt) == ("<image>哪里坏了？", "你是检查员。")
    replace(context, level_temperature=2.5).save(folder)
    calm = riskva.load(folder, dtype=torch.float32, max_new_tokens=150, max_field_chars=6)
    before, after = raw.report(photo), calm.report(photo)
    assert before.text == after.text
    assert before.probabilities
    assert after.probabilities
    expected = tempered(list(before.probabilities.values()), 2.5)
    assert list(after.probabilities.values()) == pytest.approx(expected)


def test_a_folder_that_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        riskva.load(tmp_path)


def test_importing_riskva_loads_nothing_heavy() -> None:
    code = "import riskva, sys; print(riskva.__version__, {'torch', 'transformers'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.split(maxsplit=1)[1].strip() == "set()"
