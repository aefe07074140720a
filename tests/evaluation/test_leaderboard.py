from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from report_rows import MINOR, MODERATE, SEVERE, answering, expected, right_rows

from evaluation.evaluated import Evaluation
from evaluation.leaderboard import append, read_board, render_board
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
    append(board, "outputs/right", right)
    newest = append(board, "outputs/worse", worse)
    lines = render_board(read_board(board), newest).split("\n")
    assert [line.split()[:2] for line in lines[1:]] == [["1", "outputs/right"], ["2", "outputs/worse"]]
    assert "outputs/worse ←" in lines[2]
    assert "1.000" in lines[1]


def test_runs_on_other_rows_are_not_ranked_but_told(right: Evaluation, tmp_path: Path) -> None:
    board = tmp_path / "leaderboard.jsonl"
    append(board, "other", score(ROWS[:-1], Scoring()))
    newest = append(board, "this", right)
    text = render_board(read_board(board), newest)
    assert "other  " not in text
    assert "1 other run(s) on the board answer other rows or are scored otherwise" in text


def test_lines_of_several_runs_at_once_stay_whole(right: Evaluation, tmp_path: Path) -> None:
    board = tmp_path / "leaderboard.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: append(board, f"run {number}", right), range(24)))
    assert {one.name for one in read_board(board)} == {f"run {number}" for number in range(24)}


def test_a_line_that_was_cut_off_is_named_and_spoils_no_other(right: Evaluation, tmp_path: Path) -> None:
    board = tmp_path / "leaderboard.jsonl"
    append(board, "first", right)
    board.write_text(board.read_text(encoding="utf-8")[:-50], encoding="utf-8")
    append(board, "second", right)
    assert len(board.read_text(encoding="utf-8").splitlines()) == 2
    with pytest.raises(DataError, match=r"leaderboard.jsonl:1: no line of a leaderboard .* remove it"):
        read_board(board)
