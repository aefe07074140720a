"""What every test may ask for: a tiny model in both layouts, a table of drawn photos, the real photos."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before any library of Hugging Face reads it
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Qwen2.5-VL as transformers 5 saves it."""
    from make_tiny_model import build_tiny_model

    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def tiny_model_hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights, laid out as the hub's Qwen2.5-VL repository is."""
    from make_tiny_model import build_tiny_model

    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny_hub", layout="hub")


@pytest.fixture(scope="session")
def photo_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV of 24 rows with drawn photos of 112 px beside it; four houses in the column 房屋."""
    from drawn_defects.table import Drawing, draw_table

    return draw_table(tmp_path_factory.mktemp("photos"), 24, Drawing(seed=7, houses=4))


@pytest.fixture(scope="session")
def real_photos() -> Path:
    """The folder of real photographs with `metadata.csv`; they are not part of this repository."""
    folder = REPOSITORY.parent / "shared" / "real_photos"
    if not (folder / "metadata.csv").is_file():
        pytest.skip(f"no real photos at {folder}: the test needs metadata.csv and its images there")
    return folder
