"""The lengths of many rows, in eight bytes a row."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from riskva.encoding.encode import Length


@dataclass(frozen=True, eq=False)
class Lengths(Sequence[Length]):
    """N rows' lengths in tokens, as arrays of shape (N,) and as a sequence of `Length`.

    A hundred thousand `Length`s would be a hundred thousand objects to keep and to send to every process.
    """

    num_text_tokens: NDArray[np.int32]
    num_image_tokens: NDArray[np.int32]

    @classmethod
    def of(cls, lengths: Iterable[Length]) -> Lengths:
        """These lengths, in their order."""
        if isinstance(lengths, cls):
            return lengths
        pairs = np.array([(one.num_text_tokens, one.num_image_tokens) for one in lengths], np.int32).reshape(-1, 2)
        return cls(pairs[:, 0].copy(), pairs[:, 1].copy())

    @property
    def totals(self) -> NDArray[np.int64]:
        """(N,): text and image tokens together."""
        return self.num_text_tokens.astype(np.int64) + self.num_image_tokens

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> Lengths:
        """The lengths of the rows with these numbers, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return Lengths(self.num_text_tokens[chosen], self.num_image_tokens[chosen])

    def __len__(self) -> int:
        return len(self.num_text_tokens)

    @overload
    def __getitem__(self, index: int) -> Length: ...

    @overload
    def __getitem__(self, index: slice) -> Lengths: ...

    def __getitem__(self, index: int | slice) -> Length | Lengths:
        if isinstance(index, slice):
            return Lengths(self.num_text_tokens[index], self.num_image_tokens[index])
        return Length(int(self.num_text_tokens[index]), int(self.num_image_tokens[index]))
