"""A conversation as a model takes it: token ids, labels and patches."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, repeat
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.image_utils import SizeDict

from riskva.data.conversation import Conversation, Photo
from riskva.data.images import in_memory, open_photo, photo_size
from riskva.encoding.processor import Processor
from riskva.encoding.template import render
from riskva.errors import DataError, ImageError

IGNORED = -100
"""The label of a position that the loss leaves out."""

_MOST_QUESTIONS = 1000
"""Whose lengths `measure` remembers: few are asked again and again, or each is another."""


Pixels = NDArray[np.uint8]
"""A photo at the size that the model sees it in: (height, width, 3), RGB, both sides multiples of 28."""


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
    photo_features: tuple[Tensor | None, ...] = ()
    """What the vision tower made of each photo, (tokens, H), if a cache has it: `pixel_values` lacks those photos."""
    photo_keys: tuple[str, ...] = ()
    """The name of each photo in the cache; empty without one."""


@dataclass(frozen=True, slots=True)
class Length:
    """How long a sample is, in tokens."""

    num_text_tokens: int
    num_image_tokens: int

    @property
    def total(self) -> int:
        return self.num_text_tokens + self.num_image_tokens


FindFeatures = Callable[[bytes, int], tuple[str, Tensor | None]]
"""Asks a cache for a photo, by its encoded bytes and its number of image tokens: its key there, and what the vision
tower made of it, (tokens, H), or None where the cache has not got that yet."""


def encode(
    conversation: Conversation,
    processor: Processor,
    pixels: Sequence[Pixels] | None = None,
    find_features: FindFeatures | None = None,
) -> Encoded:
    """The conversation's ids, labels and patches; of a question without an answer, the prompt to generate from.

    `pixels` are what `photo_pixels` gave for it, where someone has kept them: then no photo is opened. With
    `find_features` a photo is decoded only if its features are not found.

    Raises `DataError` (or `ImageError`) naming the row when a text holds a control token or a photo cannot be used.
    """
    check_texts(conversation, processor)
    if find_features is not None:
        with _naming_the_row(conversation):
            images = _found(conversation.photos, processor, find_features)
    else:
        images = _Images(*_patches(photo_pixels(conversation, processor) if pixels is None else pixels, processor))
    image_lengths = (int(grid.prod()) // processor.tokens_per_patch_group for grid in images.grids)
    input_ids: list[int] = []
    labels: list[int] = []
    for piece in render(conversation):
        ids = list(_expand(_tokenize(piece.text, processor), image_lengths, processor.image_token_id))
        input_ids += ids
        labels += ids if piece.supervised else [IGNORED] * len(ids)
    return Encoded(
        conversation.id,
        torch.tensor(input_ids),
        torch.tensor(labels),
        images.pixel_values,
        images.grids,
        images.features,
        images.keys,
    )


def photo_pixels(conversation: Conversation, processor: Processor) -> list[Pixels]:
    """Every photo decoded, turned and resized to what the model sees; only normalising and cutting up is left to do.

    Raises `ImageError` naming the row when a photo cannot be used.
    """
    with _naming_the_row(conversation):
        return [_resized(photo, processor) for photo in conversation.photos]


def measure(conversation: Conversation, processor: Processor, question_lengths: dict[str, int] | None = None) -> Length:
    """The length that `encode` would give, from the text and the photos' headers: no photo is decoded.

    `question_lengths` collects the tokens of questions where many rows are asked alike.
    """
    known = question_lengths if question_lengths is not None else {}
    num_tokens = 0
    for piece in render(conversation):
        number = known.get(piece.text)
        if number is None:
            number = len(_tokenize(piece.text, processor))
            if not piece.supervised and len(known) < _MOST_QUESTIONS:
                known[piece.text] = number
        num_tokens += number
    num_text = num_tokens - len(conversation.photos)
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


@dataclass(frozen=True)
class _Images:
    """A row's photos as `Encoded` holds them."""

    pixel_values: Tensor
    grids: Tensor
    features: tuple[Tensor | None, ...] = ()
    keys: tuple[str, ...] = ()


def _found(photos: Sequence[Photo], processor: Processor, find_features: FindFeatures) -> _Images:
    """The photos' features where there are any, and the patches of the others; grids come from the photos' headers."""
    photos = [in_memory(photo) for photo in photos]  # read once, to be looked up and then perhaps decoded
    grids = [processor.patch_grid(*photo_size(photo)) for photo in photos]
    num_tokens = [math.prod(grid) // processor.tokens_per_patch_group for grid in grids]
    found = [find_features(photo.read(), number) for photo, number in zip(photos, num_tokens, strict=True)]
    features = tuple(one for _, one in found)
    for photo, one, number in zip(photos, features, num_tokens, strict=True):
        if one is not None and len(one) != number:
            raise ImageError(
                f"{photo.name or 'a photo'}: takes {number} image tokens, but {len(one)} features were kept of it"
            )
    missing = [photo for photo, one in zip(photos, features, strict=True) if one is None]
    pixel_values, _ = _patches([_resized(photo, processor) for photo in missing], processor)
    all_grids = torch.tensor(grids, dtype=torch.int64).reshape(-1, 3)
    return _Images(pixel_values, all_grids, features, tuple(key for key, _ in found))


def _resized(photo: Photo, processor: Processor) -> Pixels:
    """The photo after the image processor's own first step; between its steps arrays are (3, height, width)."""
    image_processor = processor.image_processor
    resized = image_processor.resize(
        image_processor.process_image(open_photo(photo), do_convert_rgb=True),
        size=cast(SizeDict, image_processor.size),
        resample=image_processor.resample,
        factor=image_processor.patch_size * image_processor.merge_size,
    )
    return np.moveaxis(resized, 0, -1)


def _patches(photos: Sequence[Pixels], processor: Processor) -> tuple[Tensor, Tensor]:
    """The patches (P, 1176) of all photos, and each one's grid.

    What the image processor makes of them, bit for bit and three times as fast: a photo has 256 shades of each colour,
    so that each shade is normalised once and the patches are cut while a number is still one byte.
    """
    patch = processor.image_processor.patch_size
    grids = torch.tensor([(1, one.shape[0] // patch, one.shape[1] // patch) for one in photos], dtype=torch.int64)
    values = np.empty((int(grids.prod(dim=1).sum()) if photos else 0, processor.patch_values), np.float32)
    first = 0
    for pixels, grid in zip(photos, grids.tolist(), strict=True):
        end = first + grid[1] * grid[2]
        _fill(values[first:end], pixels, processor)
        first = end
    return torch.from_numpy(values), grids.reshape(-1, 3)


def _fill(values: NDArray[np.float32], pixels: Pixels, processor: Processor) -> None:
    """Write one photo's patches into `values`, in the order of Qwen2-VL: groups that become a token stay together."""
    patch, merge = processor.image_processor.patch_size, processor.image_processor.merge_size
    height, width, _ = pixels.shape
    sides = (height // patch // merge, merge, patch, width // patch // merge, merge, patch, 3)
    patches = pixels.reshape(sides).transpose(0, 3, 1, 4, 6, 2, 5).reshape(len(values), 3, patch * patch)
    frames = values.reshape(len(values), 3, processor.image_processor.temporal_patch_size, patch * patch)
    for colour in range(3):
        shades = np.take(processor.shades[colour], patches[:, colour])
        for frame in range(frames.shape[2]):  # a photo is a film of equal frames
            frames[:, colour, frame] = shades


@contextmanager
def _naming_the_row(conversation: Conversation) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{conversation.where}: {error}", error.reason) from error
