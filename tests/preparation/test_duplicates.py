import io
import itertools
import time

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from riskva.data.conversation import Photo
from riskva.data.images import reencode
from riskva.preparation.duplicates import MAX_DISTANCE, join_units, look_alikes

Bits = NDArray[np.uint8]


def hashes(bits: Bits) -> list[str]:
    return [row.tobytes().hex() for row in np.packbits(bits, axis=1)]


def random_bits(num_rows: int, seed: int = 0) -> Bits:
    return np.random.default_rng(seed).integers(0, 2, (num_rows, 256), dtype=np.uint8)


def flipped(bits: Bits, *places: int) -> Bits:
    copy = bits.copy()
    copy[list(places)] ^= 1
    return copy


def pairs_within(bits: Bits, distance: int) -> set[tuple[int, int]]:
    return {
        (i, j)
        for i, j in itertools.combinations(range(len(bits)), 2)
        if np.count_nonzero(bits[i] != bits[j]) <= distance
    }


def pairs_of(clusters: list[list[int]]) -> set[tuple[int, int]]:
    return {pair for cluster in clusters for pair in itertools.combinations(cluster, 2)}


@pytest.mark.parametrize("seed", range(3))
def test_pairs_are_those_that_comparing_all_with_all_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bits = random_bits(600, seed)
    # Partners at every distance around the limit, each pair on its own, the flips spread at random.
    for number in range(200):
        places = rng.choice(256, MAX_DISTANCE - 20 + number % 41, replace=False)
        bits[2 * number + 1] = flipped(bits[2 * number], *places)
    assert pairs_of(look_alikes(hashes(bits))) == pairs_within(bits, MAX_DISTANCE)


def test_flips_in_one_corner_of_the_hash_or_at_equal_steps_are_found_up_to_the_limit() -> None:
    for step in range(1, 6):
        for num_flips in (MAX_DISTANCE, MAX_DISTANCE + 1):
            (one,) = random_bits(1, step)
            two = flipped(one, *range(0, step * num_flips, step))
            assert bool(look_alikes(hashes(np.stack([one, two])))) == (num_flips == MAX_DISTANCE)


def test_pairs_that_share_a_photo_grow_together() -> None:
    (one,) = random_bits(1)
    others = (flipped(one, *range(40)), flipped(one, *range(40, 80)))
    assert look_alikes(hashes(np.stack([others[0], one, random_bits(1, seed=9)[0], others[1]]))) == [[0, 1, 3]]


def test_a_chain_is_cut_into_stars_before_its_ends_are_far_apart() -> None:
    (start,) = random_bits(1)
    chain = np.stack([flipped(start, *range(20 * link)) for link in range(12)])
    assert look_alikes(hashes(chain[:5])) == [[0, 1, 2, 3, 4]]
    clusters = look_alikes(hashes(chain))
    assert clusters == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


def test_clusters_and_their_members_ascend_and_equal_hashes_are_one_cluster() -> None:
    one, two, three = random_bits(3)
    assert look_alikes(hashes(np.stack([three, two, one, two, three, three]))) == [[0, 4, 5], [1, 3]]


def test_photos_without_a_look_alike_form_no_cluster() -> None:
    assert look_alikes([]) == []
    assert look_alikes(hashes(random_bits(1))) == []
    assert look_alikes(hashes(random_bits(50))) == []


@pytest.mark.parametrize("broken", ["", "abc", "0" * 16, "x" * 64])
def test_hash_of_another_kind_is_refused(broken: str) -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        look_alikes([*hashes(random_bits(2)), broken])


def test_twenty_thousand_hashes_take_seconds() -> None:
    bits = random_bits(20_000)
    bits[10_000:10_100] = bits[:100]
    start = time.perf_counter()
    assert look_alikes(hashes(bits)) == [[row, row + 10_000] for row in range(100)]
    # Measured: 0.9 s on two cores, of which a machine shared with other work needs several times as much.
    assert time.perf_counter() - start < 15


def wall(seed: int) -> Image.Image:
    """A plastered wall in uneven light, with a few marks: what no two photos have in common."""
    rng = np.random.default_rng(seed)
    light = Image.fromarray(rng.integers(150, 220, (5, 7, 3), dtype=np.uint8)).resize(
        (400, 300), Image.Resampling.BICUBIC
    )
    for _ in range(12):
        x, y, width, height = (int(value) for value in rng.integers((0, 0, 4, 4), (380, 280, 90, 60)))
        light.paste(tuple(int(value) for value in rng.integers(40, 200, 3)), (x, y, x + width, y + height))
    return light


def saved(image: Image.Image, quality: int = 90) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return reencode(Photo(data=buffer.getvalue(), name="wall.jpg"), (1024, 1024), 85).perceptual_hash


def test_copies_of_a_photo_look_alike_and_other_walls_do_not() -> None:
    walls = [wall(seed) for seed in range(8)]
    copies = [
        [saved(one) for one in walls],
        [saved(one, quality=60) for one in walls],
        [saved(one.resize((200, 150))) for one in walls],
        [saved(one.resize((1600, 1200))) for one in walls],
        [saved(ImageEnhance.Brightness(one).enhance(0.85)) for one in walls],
        [saved(one.filter(ImageFilter.GaussianBlur(1))) for one in walls],
    ]
    expected = [list(range(number, len(copies) * len(walls), len(walls))) for number in range(len(walls))]
    assert look_alikes([one for many in copies for one in many]) == expected


def test_nearly_blank_walls_do_not_chain() -> None:
    rng = np.random.default_rng(0)
    photos = [
        Image.fromarray(rng.normal(grey, 3, (300, 400, 3)).clip(0, 255).astype(np.uint8))
        for grey in np.linspace(150, 230, 60)
    ]
    assert look_alikes([saved(photo) for photo in photos]) == []


@pytest.mark.parametrize(
    ("groups", "clusters", "expected"),
    [
        ((), [], []),
        ((None, None, None), [], [0, 1, 2]),
        (("b", "a", "b"), [], [0, 1, 0]),
        ((None, None, None, None), [[1, 3]], [0, 1, 2, 1]),
        (("a", "b", "c", "a", None), [[1, 3], [2, 4]], [0, 0, 1, 0, 1]),
        (("", "", None), [[2]], [0, 0, 1]),
        ((None, "x", None, "x"), iter([(0, 1), (), (2, 3)]), [0, 0, 0, 0]),
    ],
)
def test_rows_that_share_a_group_or_a_cluster_share_a_unit(
    groups: tuple[str | None, ...], clusters: list[list[int]], expected: list[int]
) -> None:
    assert join_units(len(groups), groups, clusters) == expected


def test_units_join_along_a_long_chain_and_not_beyond() -> None:
    num_rows = 5000
    groups = [str(row // 2) for row in range(num_rows)]
    chain = [[row, row + 1] for row in range(1, num_rows // 2 - 1, 2)]
    units = join_units(num_rows, groups, chain)
    assert set(units[: num_rows // 2]) == {0}
    assert units[num_rows // 2 :] == [1 + row // 2 for row in range(num_rows // 2)]


def test_groups_and_clusters_must_be_of_these_rows() -> None:
    with pytest.raises(ValueError, match="3 rows, but 2 groups"):
        join_units(3, ["a", None], [])
    with pytest.raises(ValueError, match="expected rows 0 to 2"):
        join_units(3, [None] * 3, [[0, 3]])
