"""Conversation -> token ids, labels and pixel patches, the same for training and generation."""

from riskva.encoding.collator import Collator
from riskva.encoding.encode import IGNORED, Encoded, Length, encode, measure
from riskva.encoding.processor import Processor, load_processor

__all__ = ["IGNORED", "Collator", "Encoded", "Length", "Processor", "encode", "load_processor", "measure"]
