"""The tokenizer and the image processor of a model, and the files that they are made of.

`AutoProcessor` is not used: it needs torchvision for videos. The parts load without it, and the image processor is
pinned to the PIL backend, because torch's bicubic differs from PIL's by a grey level here and there: training and
serving must see the same pixels.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from riskva.errors import ModelError

IMAGE_BACKEND = "pil"
IMAGE_TOKEN = "<|image_pad|>"
VISION_START = "<|vision_start|>"
VISION_END = "<|vision_end|>"

DEFAULT_MAX_PIXELS = 1024 * 1024
DEFAULT_MIN_PIXELS = 56 * 56

PROCESSOR_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)


@dataclass(frozen=True)
class Processor:
    """What turns text into ids and photos into patches for one model."""

    tokenizer: PreTrainedTokenizerBase
    image_processor: Qwen2VLImageProcessorPil

    @cached_property
    def image_token_id(self) -> int:
        return self.tokenizer.get_vocab()[IMAGE_TOKEN]

    @property
    def pad_token_id(self) -> int:
        return int(self.tokenizer.pad_token_id)

    @cached_property
    def control_tokens(self) -> re.Pattern[str]:
        """Matches every token that means something to the model when it stands in a text, such as `<|im_end|>`."""
        return re.compile("|".join(re.escape(token) for token in self.tokenizer.get_added_vocab()))

    @property
    def tokens_per_patch_group(self) -> int:
        """Patches that become one image token: the square of the merge size."""
        return self.image_processor.merge_size**2

    @property
    def patch_values(self) -> int:
        """Numbers in one patch: channels x temporal patch x patch x patch, 1176 for Qwen2.5-VL."""
        processor = self.image_processor
        return 3 * processor.temporal_patch_size * processor.patch_size**2

    @cached_property
    def shades(self) -> NDArray[np.float32]:
        """(3, 256): what the image processor makes of each shade of red, green and blue."""
        processor = self.image_processor
        all_shades = np.broadcast_to(np.arange(256, dtype=np.uint8), (3, 1, 256))
        rescaled = processor.rescale(all_shades, processor.rescale_factor)
        shades: NDArray[np.float32] = processor.normalize(rescaled, processor.image_mean, processor.image_std)[:, 0]
        return shades

    def patch_grid(self, width: int, height: int) -> tuple[int, int, int]:
        """How many patches a photo of this size becomes along time (1), height and width."""
        processor = self.image_processor
        size = processor.size
        tall, wide = smart_resize(
            height,
            width,
            processor.patch_size * processor.merge_size,
            min_pixels=size["shortest_edge"],
            max_pixels=size["longest_edge"],
        )
        return 1, tall // processor.patch_size, wide // processor.patch_size

    def num_image_tokens(self, width: int, height: int) -> int:
        """Tokens that a photo of this size takes; `riskva.data.images` has refused sides that differ by over 200."""
        return self.image_processor.get_number_of_image_patches(height, width) // self.tokens_per_patch_group


def load_processor(
    model_folder: Path, image_max_pixels: int | None = None, image_min_pixels: int | None = None
) -> Processor:
    """The processor of the model in `model_folder`, with the pixel limits given or RisKVA's defaults.

    Raises `ModelError` when a file is missing or the tokenizer lacks Qwen2.5-VL's image token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(model_folder)
        image_processor = Qwen2VLImageProcessorPil.from_pretrained(model_folder)
    except (OSError, ValueError) as error:
        raise ModelError(f"{model_folder}: the tokenizer or image processor cannot be loaded: {error}") from error
    if IMAGE_TOKEN not in tokenizer.get_vocab():
        raise ModelError(f"{model_folder}: its tokenizer has no {IMAGE_TOKEN}; is this a Qwen2.5-VL?")
    if tokenizer.pad_token_id is None:
        raise ModelError(f"{model_folder}: its tokenizer has no pad token; Qwen2.5-VL uses <|endoftext|>")
    if not tokenizer("裂缝", add_special_tokens=False)["input_ids"]:
        raise ModelError(f"{model_folder}: its tokenizer has no vocabulary; is tokenizer.json missing?")
    limits = {"longest_edge": image_max_pixels or DEFAULT_MAX_PIXELS}
    limits["shortest_edge"] = image_min_pixels or DEFAULT_MIN_PIXELS
    if limits["shortest_edge"] > limits["longest_edge"]:
        raise ModelError(
            f"image_min_pixels {limits['shortest_edge']} is above image_max_pixels {limits['longest_edge']}"
        )
    image_processor.size = type(image_processor.size)(**limits)
    return Processor(tokenizer, image_processor)


def copy_processor_files(model_folder: Path, target: Path) -> None:
    """Put the tokenizer's and the image processor's files beside a checkpoint, byte for byte as the base has them.

    Re-saving them would write another generation's layout, which older readers (vLLM, LLaMA-Factory) cannot load.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name in PROCESSOR_FILES:
        if (model_folder / name).is_file():
            shutil.copyfile(model_folder / name, target / name)
