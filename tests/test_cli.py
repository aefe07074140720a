import subprocess
import sys
from pathlib import Path

import pytest
from running import REPOSITORY

from riskva.cli import main
from riskva.version import __version__

HEAVY = ("torch", "transformers", "datasets", "evaluate", "pyarrow", "PIL", "numpy")


def imported_by(*arguments: str) -> tuple[int, list[str]]:
    """The exit status of a command line, and which heavy libraries it had imported at its end."""
    script = (
        "import sys\nfrom riskva.cli import main\n"
        f"try:\n    status = main({list(arguments)!r})\nexcept SystemExit as stop:\n    status = stop.code\n"
        f"print('HEAVY', status, *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    words = run.stdout.splitlines()[-1].split()
    return int(words[1]), words[2:]


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--help",), 0),
        (("--version",), 0),
        (("recipes/nothing.yaml",), 2),
        (("recipes/sft_lora.yaml", "learning_rat=1"), 2),
        (("recipes/sft_lora.yaml", "lora_rank=many", "--dry-run"), 2),
    ],
)
def test_quick_answers_load_no_heavy_library(arguments: tuple[str, ...], status: int) -> None:
    assert imported_by(*arguments) == (status, [])


def test_version_and_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert __version__ in capsys.readouterr().out
    assert main([]) == 2
    assert "name a recipe" in capsys.readouterr().err


def test_unexpected_error_is_one_line_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("something nobody thought of\nand more")

    monkeypatch.setattr("riskva.cli.load_recipe", broken)
    assert main(["recipes/eval.yaml"]) == 1
    said = capsys.readouterr().err.strip()
    assert "ZeroDivisionError: something nobody thought of (unexpected; details in " in said
    assert "\n" not in said
    trace = Path(said.rsplit(" ", 1)[-1].rstrip(")"))
    assert "Traceback" in trace.read_text(encoding="utf-8")
    trace.unlink()


def test_json_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json-schema"]) == 0
    assert capsys.readouterr().out == (REPOSITORY / "recipes/recipe.schema.json").read_text(encoding="utf-8")
