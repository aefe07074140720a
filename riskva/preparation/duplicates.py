"""Photos that look alike, by their perceptual hashes, and rows that belong together for whatever reason.

The hash is ImageHash's `phash` of 256 bits. Measured in bits of 256, median and 95 % point of copies of one photo:

| the copy is | 59 photos of real walls | drawn photos, 400 x 300 | found within 40 bits, real and drawn |
|---|---|---|---|
| saved again at quality 60 to 95, halved, blurred, 15 % brighter or darker | 6, 14 | 6, 30 | 100 %, 97 % |
| stamped with a date | 14, 26 | 6, 28 | 100 %, 97 % |
| cropped by 2 % | 24, 36 | 26, 54 | 98 %, 87 % |
| under a watermark across the middle | 26, 40 | 10, 32 | 95 %, 96 % |
| cropped by 4 % | 48, 66 | 50, 86 | 29 %, 32 % |
| between black strips, 8 % of its height | 52, 60 | 36, 66 | 15 %, 64 % |

Two different real walls differ in 100 bits or more (1,711 pairs, median 126). Of 4.5 million pairs of different drawn
photos 390 lie within 40 bits, at most 7 in a cluster: the same railing, sockets or tiles drawn at the same place in
another colour. Within 64 bits, where nearly all copies would be found, it is six times as many, and they chain: one
cluster held 127 of 3,000 photos. The usual 64-bit phash fares worse: within 2 bits, where it merges drawn photos as
often, it misses two in three stamped copies of real photos; dHash gives some pairs of different drawn photos one and
the same hash.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from riskva.data.parallel import num_cores, ordered_map

HASH_DIGITS = 64
MAX_DISTANCE = 40
"""Two photos look alike when their hashes differ in no more than this many of their 256 bits.

Small enough that even two photos of one cluster, at most twice as far apart, are closer than different real walls.
"""

Words = NDArray[np.uint64]
Indices = NDArray[np.int64]

# Hashes that differ in at most 40 bits differ, in at least one of 14 bands of 18 or 19 bits, in at most 40 // 14 = 2.
_NUM_BANDS = 14
_BAND_DISTANCE = MAX_DISTANCE // _NUM_BANDS
# So many candidates or links are held at a time.
_CHUNK = 1 << 18
_MOST_LINKS = 1 << 20


def look_alikes(hashes: Sequence[str]) -> list[list[int]]:
    """Clusters of two or more photos that look alike: ascending indices, ordered by their first.

    `hashes` are those of `riskva.data.images.reencode`. Every pair within `MAX_DISTANCE` is found. Pairs that share a
    photo grow together, as long as no two photos of a cluster lie further apart than twice that; a chain that drifts
    further is cut into stars: its first photo with all that look like it, then the first of the rest, and so on. So
    walls that each resemble the next never become one giant cluster; the price is that a cut may part a pair.

    Raises `ValueError` for a hash that is not 64 hexadecimal digits.
    """
    if not hashes:
        return []
    distinct, first, inverse = np.unique(_words(hashes), axis=0, return_index=True, return_inverse=True)
    # By first appearance, so that stars do, too; photos with one and the same hash are one point from here on.
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    stars = _cut(distinct[order], _components(_all_links(distinct[order]), len(order)))
    return _members(stars[rank[inverse.ravel()]])


def join_units(num_rows: int, groups: Sequence[str | None], clusters: Iterable[Sequence[int]]) -> list[int]:
    """For each row the number of its unit, counted from 0 by first appearance: what must not be torn apart.

    Rows share a unit when they share a group (None: no group) or a cluster of row indices, also by way of other rows.
    Raises `ValueError` when there are not as many groups as rows, or a cluster names a row that is not there.
    """
    if len(groups) != num_rows:
        raise ValueError(f"{num_rows} rows, but {len(groups)} groups; give None for a row without one")
    pairs = list(_group_links(groups))
    for cluster in clusters:
        if not all(0 <= row < num_rows for row in cluster):
            raise ValueError(f"cluster {list(cluster)}: expected rows 0 to {num_rows - 1}")
        pairs += ((cluster[0], row) for row in cluster[1:])
    links = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    units: list[int] = _numbered(_components(links, num_rows)).tolist()
    return units


def _group_links(groups: Sequence[str | None]) -> Iterator[tuple[int, int]]:
    """Each row with the first of its group."""
    first: dict[str, int] = {}
    for row, group in enumerate(groups):
        if group is not None:
            yield first.setdefault(group, row), row


def _words(hashes: Sequence[str]) -> Words:
    """The hashes as rows of four words of 64 bits."""
    for one in hashes:
        if len(one) != HASH_DIGITS:
            raise ValueError(f"perceptual hash {one!r}: expected {HASH_DIGITS} hexadecimal digits")
    return np.frombuffer(bytes.fromhex("".join(hashes)), dtype=">u8").reshape(len(hashes), -1).astype(np.uint64)


def _distances(left: Words, right: Words) -> Indices:
    """In how many bits the rows differ."""
    distances: Indices = np.bitwise_count(left ^ right).sum(axis=-1, dtype=np.int64)
    return distances


def _all_links(words: Words) -> Indices:
    """Pairs of rows that join all that look alike: not every such pair, but a path along such pairs between its two."""
    found = ordered_map(partial(_band_links, words), range(_NUM_BANDS), num_cores())
    return np.concatenate(list(found))


def _band_links(words: Words, band: int) -> Indices:
    """`_all_links` among the rows that are alike in one band."""
    keys, width = _band_keys(words, band)
    order = np.argsort(keys, kind="stable")
    keys, sorted_words = keys[order], words[order]
    # Of each possible key, where the rows that have it begin
    starts = np.searchsorted(keys, np.arange((1 << width) + 1))
    links = [np.empty((0, 2), np.int64)]
    for mask in _masks(width):
        for left, right in _candidates(keys, starts, mask):
            near = _near(sorted_words, left, right)
            links.append(np.stack([order[left[near]], order[right[near]]], axis=1))
            if sum(map(len, links)) > _MOST_LINKS:
                links = [_thinned(np.concatenate(links), len(words))]
    return _thinned(np.concatenate(links), len(words))


def _band_keys(words: Words, band: int) -> tuple[Indices, int]:
    """One band's bits of each hash as a number, and how many they are.

    Every 14th bit, so that each band holds slow and fast waves: the slowest are much the same in many photos.
    """
    bits = range(band, 4 * 64, _NUM_BANDS)
    keys = np.zeros(len(words), np.int64)
    for bit in bits:
        keys = keys << 1 | (words[:, bit // 64] >> np.uint64(63 - bit % 64) & np.uint64(1)).astype(np.int64)
    return keys, len(bits)


def _masks(width: int) -> Iterator[int]:
    """All numbers of `width` bits of which at most `_BAND_DISTANCE` are 1."""
    for num_bits in range(_BAND_DISTANCE + 1):
        for bits in combinations(range(width), num_bits):
            yield sum(1 << bit for bit in bits)


def _candidates(keys: Indices, starts: Indices, mask: int) -> Iterator[tuple[Indices, Indices]]:
    """Pairs of positions in the sorted `keys` whose keys differ in exactly the bits of `mask`, each pair once."""
    if mask:
        # Of the two keys, the one that lacks the mask's highest bit looks for the other.
        left = np.flatnonzero(keys >> (mask.bit_length() - 1) & 1 ^ 1)
        begin = starts[keys[left] ^ mask]
    else:
        left = np.arange(len(keys))
        begin = left + 1
    counts = starts[(keys[left] ^ mask) + 1] - begin
    ends = np.cumsum(counts)
    at = 0
    while at < len(left):
        done = ends[at] - counts[at]
        until = max(at + 1, int(np.searchsorted(ends, done + _CHUNK)))
        some = counts[at:until]
        offsets = np.arange(ends[until - 1] - done) - np.repeat(ends[at:until] - some - done, some)
        yield np.repeat(left[at:until], some), np.repeat(begin[at:until], some) + offsets
        at = until


def _near(words: Words, left: Indices, right: Indices) -> Indices:
    """Which of the pairs look alike. Half of the bits rules out nearly all that do not."""
    maybe = np.flatnonzero(_distances(words[left, :2], words[right, :2]) <= MAX_DISTANCE)
    return maybe[_distances(words[left[maybe]], words[right[maybe]]) <= MAX_DISTANCE]


def _thinned(links: Indices, num_points: int) -> Indices:
    """As few links as join the same points."""
    labels = _components(links, num_points)
    _, first = np.unique(labels, return_index=True)
    root = first[labels]
    points = np.flatnonzero(root != np.arange(num_points))
    return np.stack([root[points], points], axis=1)


def _components(links: Indices, num_points: int) -> Indices:
    """A label for each point; points that links join have the same."""
    from scipy.sparse import coo_array  # type: ignore[import-untyped]
    from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

    ones = np.ones(len(links), np.int8)
    graph = coo_array((ones, (links[:, 0], links[:, 1])), shape=(num_points, num_points))
    labels: Indices = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels


def _cut(words: Words, labels: Indices) -> Indices:
    """The labels, after those that drift too far have been cut into stars."""
    result, fresh = labels.copy(), len(words)
    for members in map(np.array, _members(labels)):
        if _drifts(words[members]):
            result[members] = fresh + _stars(words[members])
            fresh += len(members)
    return result


def _drifts(words: Words) -> bool:
    """Whether any two of the hashes differ in more than twice `MAX_DISTANCE` bits."""
    return any((_distances(words, one) > 2 * MAX_DISTANCE).any() for one in words)


def _stars(words: Words) -> Indices:
    """A label for each hash: that of the first hash in no earlier star, which all within `MAX_DISTANCE` of it share."""
    labels, left = np.empty(len(words), np.int64), np.arange(len(words))
    while len(left):
        near = _distances(words[left], words[left[0]]) <= MAX_DISTANCE
        labels[left[near]] = left[0]
        left = left[~near]
    return labels


def _members(labels: Indices) -> list[list[int]]:
    """The points of each label that has at least two, ascending, ordered by their first."""
    order = np.argsort(_numbered(labels), kind="stable")
    sizes = np.bincount(_numbered(labels))
    ends = np.cumsum(sizes)
    large = np.flatnonzero(sizes > 1)
    return [order[ends[one] - sizes[one] : ends[one]].tolist() for one in large]


def _numbered(labels: Indices) -> Indices:
    """The labels numbered from 0 by first appearance."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty_like(first)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
