import random

import pytest

from riskva.data.image_tokens import num_image_tokens


def sizes(count: int) -> list[tuple[int, int]]:
    """Sizes of all kinds: tiny, large, narrow, and ones on the edge of rounding."""
    rng = random.Random(3)
    edges = [(28 * a + b, 28 * c + d) for a in (1, 9, 37) for b in (-14, 0, 13, 14) for c in (2, 36) for d in (0, 14)]
    edges += [(200, 1), (201, 1), (5, 1000), (5, 1001)]
    drawn = [(int(10 ** rng.uniform(0, 4)), int(10 ** rng.uniform(0, 4))) for _ in range(count)]
    return [size for size in (*edges, *drawn) if min(size) > 0]


@pytest.mark.parametrize("limits", [(56 * 56, 1024 * 1024), (28 * 28, 256 * 28 * 28), (200_704, 4_014_080), (784, 784)])
def test_tokens_are_those_of_transformers(limits: tuple[int, int]) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    processor = Qwen2VLImageProcessorPil(size={"shortest_edge": limits[0], "longest_edge": limits[1]})
    for width, height in sizes(3000):
        if max(width, height) > 200 * min(width, height):
            with pytest.raises(ValueError, match=f"{width} x {height} px: one side is over 200 times the other"):
                num_image_tokens((width, height), *limits)
            with pytest.raises(ValueError, match="aspect ratio"):
                processor.get_number_of_image_patches(height, width)
        else:
            patches = processor.get_number_of_image_patches(height, width)
            assert num_image_tokens((width, height), *limits) == patches // processor.merge_size**2
