"""Conversations as a torch data set: each is encoded when a DataLoader worker asks for it."""

from __future__ import annotations

import gc
import signal
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch.utils.data import Dataset, get_worker_info

from riskva.data.conversation import Conversation, Conversations
from riskva.data.datasets import Runs
from riskva.encoding import Encoded, Processor, encode, photo_pixels
from riskva.encoding.lengths import Lengths
from riskva.errors import DataError
from riskva.training.feature_store import FeatureStore
from riskva.training.pixel_cache import PixelCache


@dataclass(frozen=True)
class EncodedDataset(Dataset[Encoded]):
    """`conversations[i]`, encoded; nothing is kept but what `cache` keeps.

    `dataset[i]` raises `DataError` that names the row when it cannot be used.
    """

    conversations: Conversations
    processor: Processor
    lengths: Lengths | None = None
    """Those of the rows, where they are known: packing and `group_by_length` need them."""
    cutoff_len: int | None = None
    """Given where nobody has looked through the rows: a longer one, and one without an answer, is an error."""
    runs: Runs | None = None
    """Given where rows are to be trained on in the order of the files; see `FileOrderSampler`."""
    cache: PixelCache | None = None
    features: FeatureStore | None = None
    """Given where features of a frozen vision tower are kept: a photo that has some is not decoded."""

    def __len__(self) -> int:
        return len(self.conversations)

    def __getitem__(self, index: int) -> Encoded:
        if get_worker_info() is not None:
            # Schedulers send SIGTERM to every process of a job; the main one still needs its rows to end the step.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        conversation = self.conversations[index]
        pixels = None
        if self.cache is not None:
            pixels = self.cache.pixels(index, lambda: photo_pixels(conversation, self.processor))
        find_features = self.features.find if self.features is not None else None
        encoded = encode(conversation, self.processor, pixels, find_features)
        if self.cutoff_len is not None:
            _require_trainable(conversation, len(encoded.input_ids), self.cutoff_len)
        return encoded

    def __getitems__(self, indices: Sequence[int | tuple[int, ...]]) -> list[Encoded]:
        """The rows of a batch; a tuple is a bin of several rows that are packed together."""
        bins = (index if isinstance(index, tuple) else (index,) for index in indices)
        return [self[index] for one in bins for index in one]


def _require_trainable(conversation: Conversation, length: int, cutoff_len: int) -> None:
    if conversation.answer is None:
        raise DataError(f"{conversation.where}: has no answer")
    if length > cutoff_len:
        raise DataError(
            f"{conversation.where}: {length} tokens, over cutoff_len={cutoff_len}; raise cutoff_len or lower "
            "image_max_pixels"
        )


@contextmanager
def letting_workers_go() -> Iterator[None]:
    """Within, an exception that comes in the middle of an epoch ends the DataLoader's workers.

    They pass over SIGTERM, the only thing that the interpreter sends them when it ends, and it would wait for them for
    ever. What ends them is their iterator when it goes, and then only the exception's frames still hold it.
    """
    try:
        yield
    except BaseException as error:
        link: BaseException | None = error
        while link is not None:
            traceback.clear_frames(link.__traceback__)
            link = link.__cause__ or link.__context__
        gc.collect()
        raise
