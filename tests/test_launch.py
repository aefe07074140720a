import sys

import pytest

from riskva import launch
from riskva.devices import num_processes


def test_statuses_of_processes_become_one() -> None:
    assert launch._status([0, 0]) == 0
    assert launch._status([75, 75]) == 75
    assert launch._status([-6, 2]) == 2  # an error's own status says more than the abort that it brought on another
    assert launch._status([-9, 0]) == 1


def test_processes_know_their_places(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(
        launch, "_command", lambda arguments: [sys.executable, "-c", f"import os; {arguments[0]}"], raising=True
    )
    say = "print(*(os.environ[n] for n in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR')))"
    assert launch.launch([say], 2) == 0
    assert sorted(capfd.readouterr().out.splitlines()) == ["0 0 2 127.0.0.1", "1 1 2 127.0.0.1"]


def test_a_hanging_process_is_ended_after_another_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(launch, "_command", lambda arguments: [sys.executable, "-c", arguments[0]])
    program = "import os, sys, time\nsys.exit(3) if os.environ['RANK'] == '1' else time.sleep(60)"
    assert launch.launch([program], 2) == 3


def test_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert num_processes(3) == 3
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    assert not launch.is_launched()
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert launch.is_launched()
