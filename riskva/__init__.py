"""RisKVA: photos of building defects become Chinese risk reports, with a fine-tuned Qwen2.5-VL."""

__version__ = "0.1.0"
