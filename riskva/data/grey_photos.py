"""Conversations whose photos show nothing: what a model still says of them, it does not have from the picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from PIL import Image

from riskva.data.conversation import Conversation, Photo
from riskva.data.datasets import ConversationDataset
from riskva.data.images import photo_size

GREY = 128


@dataclass(frozen=True)
class GreyPhotos:
    """The rows of a data set, each photo replaced by one of the same size in an even grey."""

    dataset: ConversationDataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Conversation:
        conversation = self.dataset[index]
        return replace(conversation, photos=tuple(map(_grey, conversation.photos)))

    @property
    def ids(self) -> Sequence[str]:
        """Each row's id, in order."""
        return self.dataset.ids

    def id_of(self, index: int) -> str:
        """The id of one row."""
        return self.dataset.id_of(index)


def _grey(photo: Photo) -> Photo:
    return Photo(data=_grey_png(photo_size(photo)), name=photo.name)


@lru_cache(maxsize=64)
def _grey_png(size: tuple[int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("L", size, GREY).save(stream, "PNG")
    return stream.getvalue()
