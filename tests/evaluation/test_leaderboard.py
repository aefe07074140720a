from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from report_rows import MINOR, MODERATE, SEVERE, answering, expected, right_rows

from evaluation.evaluated import Evaluation
from evaluation.leaderboard import check_board, put_on_board, read_board
from evaluation.sample_scores import Scoring
from evaluation.scoring import score
from riskva.errors import DataError

ROWS = right_rows([MINOR, MODERATE, SEVERE] * 2)


@pytest.fixture(scope="module")
def right() -> Evaluation:
    return score(ROWS, Scoring())


@pytest.fixture(scope="module")
def worse() -> Evaluation:
    return score([answering(ROWS[0], replace(expected(ROWS[0]), level=SEVERE)), *ROWS[1:]], Scoring())


def test_runs_are_ranked_and_the_newest_is_marked(right: Evaluation, worse: Evaluation, tmp_path: Path) -> None:
    board = tmp_path / "runs" / "leaderboard.jsonl"
    check_board(board)
    put_on_board(board, "outputs/right", right)
    lines = put_on_board(board, "outputs/worse", worse).split("\n")
    assert [line.split()[:2] for line in lines[1:]] == [["1", "outputs/right"], ["2", "outputs/worse"]]
    assert "outputs/worse ←" in lines[2]
    assert "1.000" in lines[1]


def test_runs_on_other_rows_are_not_ranked_but_told(right: Evaluation, tmp_path: Path) -> None:
    board = tmp_path / "leaderboard.jsonl"
    put_on_board(board, "other", score(ROWS[:-1], Scoring()))
    text = put_on_board(board, "this", right)
    assert "other  " not in text
    assert "1 other run(s) on the board answer other rows or are scored otherwise" in text


def test_a_run_that_comes_a_second_time_has_one_line(right: Evaluation, worse: Evaluation, tmp_path: Path) -> None:
    board = tmp_path / "leaderboard.jsonl"
    for _ in range(2):
        put_on_board(board, "run", right)
    put_on_board(board, "run", worse)
    assert len(read_board(board)) == 2


def test_lines_of_several_runs_at_once_stay_whole(right: Evaluation, tmp_path: Path) -> None:
    board = tmp_path / "leaderboard.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: put_on_board(board, f"run {number}\u2028", right), range(24)))
    assert {one.name for one in read_board(board)} == {f"run {number}\u2028" for number in range(24)}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no json\n", "no line of a leaderboard"),
        (b"[1]\n", "expected time, name, scores"),
        (b'{"time": 1, "name": "a", "scores": {}, "intervals": {}, "signature": {}}\n', "expected time, name"),
        (
            b'{"time": "t", "name": "a", "scores": {"bleu": "x"}, "intervals": {}, "signature": {}}\n',
            "a score is no number",
        ),
        (b"\xff\xfe\x00", "is no text"),
    ],
)
def test_what_is_no_board_is_named(content: bytes, words: str, tmp_path: Path) -> None:
    board = tmp_path / "leaderboard.jsonl"
    board.write_bytes(content)
    with pytest.raises(DataError, match=words):
        check_board(board)
    assert board.read_bytes() == content


def test_places_where_no_board_can_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder"):
        check_board(tmp_path)
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be written"):
        check_board(tmp_path / "file" / "board.jsonl")
