"""What a packed row holds: each sample as it is alone, and where it stands."""

import dataclasses
from pathlib import Path

import pytest
import torch
from mixed_samples import mixed_conversations, with_features

from riskva.encoding import IGNORED, Encoded, PackedCollator, Processor, encode, load_processor
from riskva.encoding.positions import mrope_positions


@pytest.fixture(scope="module")
def processor(tiny_model: Path) -> Processor:
    return load_processor(tiny_model)


@pytest.fixture(scope="module")
def rows(processor: Processor) -> list[Encoded]:
    return [encode(conversation, processor) for conversation in mixed_conversations()]


def test_samples_stand_one_after_the_other(processor: Processor, rows: list[Encoded]) -> None:
    batch = PackedCollator(processor)(rows)
    lengths = [len(row.input_ids) for row in rows]
    total = sum(lengths)
    assert batch["input_ids"].shape == batch["labels"].shape == (1, total)
    assert batch["position_ids"].shape == (4, 1, total)
    assert batch["cu_seqlens"].dtype == torch.int32
    assert batch["cu_seqlens"].diff().tolist() == lengths
    assert batch["cu_seqlens"][0] == 0
    assert batch["image_grid_thw"].equal(torch.cat([row.image_grid_thw for row in rows]))
    assert batch["pixel_values"].equal(torch.cat([row.pixel_values for row in rows]))
    assert {"attention_mask", "image_features", "has_features", "photo_keys"}.isdisjoint(batch)
    places = zip(*(batch[name].split(lengths, dim=-1) for name in ("input_ids", "labels", "position_ids")), strict=True)
    for row, (ids, labels, positions) in zip(rows, places, strict=True):
        assert ids[0].equal(row.input_ids)
        assert labels[0].equal(row.labels)
        assert positions[0, 0].equal(torch.arange(len(row.input_ids)))
        is_image = row.input_ids == processor.image_token_id
        assert positions[1:, 0].equal(mrope_positions(is_image, row.image_grid_thw, 2))


def test_a_samples_first_token_is_never_learned(processor: Processor, rows: list[Encoded]) -> None:
    """The token before it is another sample's last one."""
    learned = [dataclasses.replace(row, labels=row.input_ids.clone()) for row in rows]
    labels = PackedCollator(processor)(learned)["labels"][0]
    starts = PackedCollator(processor)(learned)["cu_seqlens"][:-1].long()
    assert (labels == IGNORED).nonzero().flatten().equal(starts)
    assert all(row.labels.equal(row.input_ids) for row in learned)  # the rows themselves are left alone


def test_text_alone_has_no_images(processor: Processor, rows: list[Encoded]) -> None:
    batch = PackedCollator(processor)([rows[0], rows[3]])
    assert batch.keys() == {"input_ids", "labels", "position_ids", "cu_seqlens"}


def test_cached_photos_stand_beside_others(processor: Processor, rows: list[Encoded]) -> None:
    lengths = torch.cat([row.image_grid_thw for row in rows]).prod(dim=1).tolist()
    features = {str(i): torch.full((length // 4, 8), float(i)) for i, length in enumerate(lengths)}
    is_kept = {str(i): i in {1, 4, 5} for i in range(6)}
    batch = PackedCollator(processor)(with_features(rows, features, is_kept))
    assert batch["photo_keys"] == ["0", "1", "2", "3", "4", "5"]
    assert batch["has_features"] == [False, True, False, False, True, True]
    assert batch["image_features"].equal(torch.cat([features[key] for key in ("1", "4", "5")]))
    patches = torch.cat([row.pixel_values for row in rows]).split(lengths)
    assert batch["pixel_values"].equal(torch.cat([patches[i] for i in (0, 2, 3)]))
    assert batch["image_grid_thw"].equal(torch.cat([row.image_grid_thw for row in rows]))


def test_all_photos_cached_leaves_no_patches_and_none_leaves_no_features(
    processor: Processor, rows: list[Encoded]
) -> None:
    features = {str(i): torch.ones(1, 8) for i in range(6)}
    everything = PackedCollator(processor)(with_features(rows, features, dict.fromkeys(features, True)))
    assert "pixel_values" not in everything
    assert everything["has_features"] == [True] * 6
    nothing = PackedCollator(processor)(with_features(rows, features, dict.fromkeys(features, False)))
    assert "image_features" not in nothing
    assert nothing["has_features"] == [False] * 6
    assert nothing["photo_keys"] == list(features)
