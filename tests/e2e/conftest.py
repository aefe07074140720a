"""What end-to-end tests start from: the repository's root as working folder, and prepared data."""

from pathlib import Path

import pytest
from running import REPOSITORY, riskva_run


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes name paths such as recipes/deepspeed/zero2.json relative to the repository's root."""
    monkeypatch.chdir(REPOSITORY)


@pytest.fixture(scope="session")
def prepared(photo_table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`recipes/prepare_parquet.yaml` run on 24 drawn photos."""
    out = tmp_path_factory.mktemp("prepared") / "parquet"
    places = (f"csv_path={photo_table}", f"image_base_path={photo_table.parent}", f"output_dir={out}")
    assert riskva_run("prepare_parquet.yaml", *places, "split={train: 0.6, val: 0.2, test: 0.2}") == 0
    return out
