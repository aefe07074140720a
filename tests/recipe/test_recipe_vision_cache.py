"""What `vision_cache` goes together with."""

from __future__ import annotations

import pytest
from recipe_loading import Faults, Load


@pytest.mark.parametrize("place", ["memory", "disk"])
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "freeze_vision_tower: false",
            "keeps what the vision tower makes, which trains (freeze_vision_tower: false) and so changes",
        ),
        (
            "freeze_multi_modal_projector: false",
            "keeps what the projector makes, which trains (freeze_multi_modal_projector: false) and",
        ),
        ("cache_images: disk", "makes cache_images useless: a photo whose features are kept is not decoded; keep one"),
    ],
)
def test_a_cache_that_was_asked_for_is_refused(faults: Faults, sft: str, place: str, line: str, message: str) -> None:
    (found,) = faults(f"{sft}vision_cache: {place}\n{line}\n")
    assert found.startswith(f"r.yaml:5: vision_cache: {place} {message}")


@pytest.mark.parametrize("place", ["off", "auto"])
@pytest.mark.parametrize(
    "line",
    ["freeze_vision_tower: false", "freeze_multi_modal_projector: false", "cache_images: disk", "streaming: true"],
)
def test_auto_gives_way(load: Load, sft: str, place: str, line: str) -> None:
    assert load(f"{sft}vision_cache: {place}\n{line}\n").recipe.vision_cache == place  # type: ignore[attr-defined]


def test_a_folder_is_for_disk(faults: Faults, load: Load, sft: str) -> None:
    (found,) = faults(f"{sft}vision_cache: memory\nvision_cache_dir: x\n")
    assert found.startswith("r.yaml:6: vision_cache_dir: is for vision_cache: disk")
    for place in ("off", "disk", "auto"):
        assert load(f"{sft}vision_cache: {place}\nvision_cache_dir: x\n")
