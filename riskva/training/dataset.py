"""Conversations as a torch data set: each is encoded when a DataLoader worker asks for it."""

from __future__ import annotations

from dataclasses import dataclass

from torch.utils.data import Dataset

from riskva.data.conversation import Conversations
from riskva.encoding import Encoded, Processor, encode


@dataclass(frozen=True)
class EncodedDataset(Dataset[Encoded]):
    """`conversations[i]`, encoded; nothing is kept in memory."""

    conversations: Conversations
    processor: Processor

    def __len__(self) -> int:
        return len(self.conversations)

    def __getitem__(self, index: int) -> Encoded:
        return encode(self.conversations[index], self.processor)
