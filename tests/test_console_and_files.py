from pathlib import Path

import pytest

from riskva import console
from riskva.files import sha256_of, write_json, write_whole


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "sub" / "a.json"

    def write_half() -> None:
        with write_whole(target) as stream:
            stream.write("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert list(target.parent.iterdir()) == []
    write_json(target, {"级": 1})
    assert target.read_text(encoding="utf-8") == '{\n  "级": 1\n}\n'
    with pytest.raises(TypeError):
        write_json(target, object())
    assert target.read_text(encoding="utf-8") == '{\n  "级": 1\n}\n'
    assert [path.name for path in target.parent.iterdir()] == ["a.json"]


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_progress_gives_every_item_and_shows_rate_and_eta(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.0)
    assert list(console.progress(iter("abc"), 3, "reading", "file")) == ["a", "b", "c"]
    said = capsys.readouterr().err
    assert "reading: 1/3 files, " in said
    assert "ETA 0:0" in said
    assert "reading: 3 files in 0:00" in said


def test_slow_work_is_paced_by_the_item(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter([0.0, 90.0, 180.0, 180.0])
    monkeypatch.setattr("riskva.console.time.monotonic", lambda: next(clock))
    assert list(console.progress([1, 2], 2, "learning curve", "fine-tune")) == [1, 2]
    said = capsys.readouterr().err
    assert "learning curve: 1/2 fine-tunes, 90 s each, ETA 1:30" in said
    assert "learning curve: 2 fine-tunes in 3:00, 90 s each" in said


def test_only_the_main_process_speaks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    console.warn("unheard")
    assert list(console.progress([1, 2], 2, "x")) == [1, 2]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (60, "1:00"), (3661, "1:01:01")])
def test_duration(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text
