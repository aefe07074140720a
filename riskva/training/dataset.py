"""Conversations as a torch data set: each is encoded when a DataLoader worker asks for it."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass

from torch.utils.data import Dataset, get_worker_info

from riskva.data.conversation import Conversations
from riskva.encoding import Encoded, Processor, encode


@dataclass(frozen=True)
class EncodedDataset(Dataset[Encoded]):
    """`conversations[i]`, encoded; nothing is kept in memory."""

    conversations: Conversations
    processor: Processor
    lengths: Sequence[int] | None = None
    """Tokens of each row, where they are known: `group_by_length` needs them."""

    def __len__(self) -> int:
        return len(self.conversations)

    def __getitem__(self, index: int) -> Encoded:
        if get_worker_info() is not None:
            # Schedulers send SIGTERM to every process of a job; the main one still needs its rows to end the step.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return encode(self.conversations[index], self.processor)
