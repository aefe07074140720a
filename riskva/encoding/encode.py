"""A conversation as a model takes it: token ids, labels and patches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, repeat

import torch
from PIL.Image import Image
from torch import Tensor

from riskva.data.conversation import Conversation
from riskva.data.images import open_photo, photo_size
from riskva.encoding.processor import Processor
from riskva.encoding.template import render
from riskva.errors import DataError, ImageError

IGNORED = -100
"""The label of a position that the loss leaves out."""


@dataclass(frozen=True)
class Encoded:
    """One sample. T tokens, P patches over all of its N images (P and N are 0 for text alone)."""

    id: str
    input_ids: Tensor
    """(T,) int64; an image stands as its run of `<|image_pad|>`."""
    labels: Tensor
    """(T,) int64: `input_ids` inside assistant turns, `IGNORED` elsewhere. Not shifted."""
    pixel_values: Tensor
    """(P, 1176) float32, normalised patches in the image processor's order."""
    image_grid_thw: Tensor
    """(N, 3) int64: patches of each image along time (1), height and width."""


@dataclass(frozen=True)
class Length:
    """How long a sample is, in tokens."""

    num_text_tokens: int
    num_image_tokens: int

    @property
    def total(self) -> int:
        return self.num_text_tokens + self.num_image_tokens


def encode(conversation: Conversation, processor: Processor) -> Encoded:
    """The conversation's ids, labels and patches; of a question without an answer, the prompt to generate from.

    Raises `DataError` (or `ImageError`) naming the row when a text holds a control token or a photo cannot be used.
    """
    check_texts(conversation, processor)
    pixel_values, grids = _patches(conversation, processor)
    image_lengths = (int(grid.prod()) // processor.tokens_per_patch_group for grid in grids)
    input_ids: list[int] = []
    labels: list[int] = []
    for piece in render(conversation):
        ids = list(_expand(_tokenize(piece.text, processor), image_lengths, processor.image_token_id))
        input_ids += ids
        labels += ids if piece.supervised else [IGNORED] * len(ids)
    return Encoded(conversation.id, torch.tensor(input_ids), torch.tensor(labels), pixel_values, grids)


def measure(conversation: Conversation, processor: Processor) -> Length:
    """The length that `encode` would give, from the text and the photos' headers: no photo is decoded."""
    ids = (_tokenize(piece.text, processor) for piece in render(conversation))
    num_text = sum(map(len, ids)) - len(conversation.photos)
    with _naming_the_row(conversation):
        num_image = sum(processor.num_image_tokens(*photo_size(photo)) for photo in conversation.photos)
    return Length(num_text, num_image)


def check_texts(conversation: Conversation, processor: Processor) -> None:
    """Raise `DataError` when a text holds a token such as `<|im_end|>`, which would rewrite the conversation."""
    for message in conversation.messages:
        found = processor.control_tokens.search(message.content)
        if found:
            raise DataError(
                f"{conversation.where}: the {message.role}'s text holds the control token {found.group()!r}; remove it"
            )


def _tokenize(text: str, processor: Processor) -> list[int]:
    ids: list[int] = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _expand(ids: Sequence[int], lengths: Iterator[int], image_token_id: int) -> Iterator[int]:
    return chain.from_iterable(repeat(id, next(lengths) if id == image_token_id else 1) for id in ids)


def _patches(conversation: Conversation, processor: Processor) -> tuple[Tensor, Tensor]:
    if not conversation.photos:
        return torch.empty(0, processor.patch_values), torch.empty(0, 3, dtype=torch.int64)
    with _naming_the_row(conversation):
        images: list[Image] = [open_photo(photo) for photo in conversation.photos]
    features = processor.image_processor(images=images, return_tensors="pt")
    return features["pixel_values"], features["image_grid_thw"]


@contextmanager
def _naming_the_row(conversation: Conversation) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{conversation.where}: {error}", error.reason) from error
