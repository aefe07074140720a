"""Conversation -> token ids, labels and pixel patches, the same for training and generation."""

from riskva.encoding.collator import Collator
from riskva.encoding.encode import IGNORED, Encoded, Length, Pixels, encode, measure, photo_pixels
from riskva.encoding.packed import PackedCollator
from riskva.encoding.processor import Processor, load_processor

__all__ = [
    "IGNORED",
    "Collator",
    "Encoded",
    "Length",
    "PackedCollator",
    "Pixels",
    "Processor",
    "encode",
    "load_processor",
    "measure",
    "photo_pixels",
]
