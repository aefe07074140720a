"""A tiny random Qwen2.5-VL, complete with tokenizer and processor files, for tests and the demo: no network, no GPU.

    python scripts/make_tiny_model.py OUT [--layout v5|hub] [--seed 0]

The model is real (`Qwen2_5_VLForConditionalGeneration`), only small: three non-zero M-RoPE sections, spatial merge 2, a
windowed and a full-attention vision block, and windows of 4 x 4 patches, so that a photo of 112 px already spans
several. Its vocabulary is larger than its tokenizer, as in the published models.

The layout `v5` is what transformers 5 saves, `hub` is what the repository Qwen/Qwen2.5-VL-7B-Instruct looks like (a
flat config of transformers 4, sharded weights). Both hold the same weights and tokens.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from drawn_defects.corpus import corpus
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import GenerationConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX, Qwen2Tokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.utils.logging import disable_progress_bar

Layout = Literal["v5", "hub"]

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

CHAT_TEMPLATE = """\
{%- macro part(item) -%}
    {%- if item.type == 'image' or 'image' in item or 'image_url' in item -%}
        <|vision_start|><|image_pad|><|vision_end|>
    {%- elif item.type == 'video' or 'video' in item -%}
        <|vision_start|><|video_pad|><|vision_end|>
    {%- else -%}
        {{- item.text -}}
    {%- endif -%}
{%- endmacro -%}
{%- if messages[0].role != 'system' -%}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
    {{- '<|im_start|>' + message.role + '\\n' -}}
    {%- if message.content is string -%}
        {{- message.content -}}
    {%- else -%}
        {%- for item in message.content -%}{{- part(item) -}}{%- endfor -%}
    {%- endif -%}
    {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

# What the flat config of transformers 4 shares with transformers 5, by name
TEXT_KEYS = (
    "attention_dropout",
    "hidden_act",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "max_window_layers",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "rms_norm_eps",
    "vocab_size",
)
VISION_KEYS = (
    "depth",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "num_heads",
    "out_hidden_size",
    "patch_size",
    "spatial_merge_size",
    "window_size",
    "fullatt_block_indexes",
    "tokens_per_second",
    "temporal_patch_size",
)


def build_tiny_model(
    out: Path,
    *,
    layout: Layout = "v5",
    seed: int = 0,
    hidden_size: int = 64,
    intermediate_size: int = 128,
    num_hidden_layers: int = 2,
    num_attention_heads: int = 4,
    num_key_value_heads: int = 2,
    vision_hidden_size: int = 64,
    vision_depth: int = 2,
    vision_num_heads: int = 4,
    vision_intermediate_size: int | None = None,
    full_attention_blocks: Sequence[int] | None = None,
    window_size: int = 56,
    vocab_size: int = 1400,
    embedding_rows: int | None = None,
    tie_word_embeddings: bool = False,
    initializer_range: float = 0.06,
    head_range: float = 0.25,
    dtype: str = "float32",
) -> Path:
    """The folder `out`, holding a random model with everything that loading, training and generating need.

    The same arguments give the same files. `vocab_size` bounds the tokenizer; the embedding has up to 128 rows more, or
    as many as `embedding_rows` says. Of the vision blocks the last one, or those in `full_attention_blocks`, attend to
    the whole image, the others to windows of `window_size` pixels; inside they are twice as wide as outside, or
    `vision_intermediate_size`. `head_range` is the standard deviation of the output embedding: with much less, no
    frozen head could be sure of any token, and LoRA would have nothing to learn. The head dimension (`hidden_size /
    num_attention_heads`) must be at least 8, to leave M-RoPE its three sections.
    """
    tokenizer = build_tokenizer(vocab_size)
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": embedding_rows or _round_up(len(tokenizer) + 1, 64) + 64,
            "hidden_size": hidden_size,
            "intermediate_size": intermediate_size,
            "num_hidden_layers": num_hidden_layers,
            "num_attention_heads": num_attention_heads,
            "num_key_value_heads": num_key_value_heads,
            "max_window_layers": num_hidden_layers,
            "max_position_embeddings": 8192,
            "initializer_range": initializer_range,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1_000_000.0,
                "mrope_section": mrope_section(hidden_size // num_attention_heads),
            },
            "bos_token_id": tokenizer.convert_tokens_to_ids("<|endoftext|>"),
            "eos_token_id": tokenizer.convert_tokens_to_ids("<|im_end|>"),
        },
        vision_config={
            "depth": vision_depth,
            "hidden_size": vision_hidden_size,
            "intermediate_size": vision_intermediate_size or 2 * vision_hidden_size,
            "num_heads": vision_num_heads,
            "out_hidden_size": hidden_size,
            "window_size": window_size,
            "fullatt_block_indexes": list(full_attention_blocks or [vision_depth - 1]),
            "tokens_per_second": 2,
            "initializer_range": initializer_range,
        },
        tie_word_embeddings=tie_word_embeddings,
        **_token_ids(tokenizer),
    )
    model = _random_model(config, seed, head_range).to(getattr(torch, dtype))
    model.generation_config = _generation_config(tokenizer)
    out.mkdir(parents=True, exist_ok=True)
    {"v5": _save_v5, "hub": _save_hub}[layout](out, model, tokenizer)
    return out


def mrope_section(head_dim: int) -> list[int]:
    """Rotary pairs for time, height and width: in the published models' proportion 16 : 24 : 24, none of them zero."""
    side = 3 * (head_dim // 2) // 8
    return [head_dim // 2 - 2 * side, side, side]


def build_tokenizer(vocab_size: int) -> Qwen2Tokenizer:
    """A byte-level BPE tokenizer with Qwen2.5's rules and special tokens, trained on words of the domain.

    Any text can be written in it: what it has no word for becomes bytes. `len(tokenizer) <= vocab_size`.
    """
    raw = Tokenizer(BPE())
    raw.normalizer = normalizers.NFC()
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=12,  # four Chinese characters of three bytes: words, not whole sentences
        show_progress=False,
    )
    raw.train_from_iterator(corpus(), trainer)
    bpe = json.loads(raw.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=bpe["vocab"],
        merges=[tuple(pair) for pair in bpe["merges"]],
        unk_token=None,
        eos_token=SPECIAL_TOKENS[0],  # the real one is set below: tokens get their ids in the order in which they come
        pad_token=SPECIAL_TOKENS[0],
        extra_special_tokens=list(SPECIAL_TOKENS[1:]),
        model_max_length=131072,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
    tokenizer.eos_token = "<|im_end|>"
    return tokenizer


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _token_ids(tokenizer: Qwen2Tokenizer) -> dict[str, int]:
    """The config's names of special tokens, with their ids."""
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
        "bos_token_id": "<|endoftext|>",
        "eos_token_id": "<|im_end|>",
    }
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def _random_model(config: Qwen2_5_VLConfig, seed: int, head_range: float) -> Qwen2_5_VLForConditionalGeneration:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(config)
        torch.nn.init.normal_(model.lm_head.weight, std=head_range)
    return model.eval()  # type: ignore[no-any-return, no-untyped-call]


def _generation_config(tokenizer: Qwen2Tokenizer) -> GenerationConfig:
    """The published models' settings: sampling that is greedy in effect, and a penalty that code must not inherit."""
    end_of_text = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    return GenerationConfig(
        bos_token_id=end_of_text,
        pad_token_id=end_of_text,
        eos_token_id=[tokenizer.convert_tokens_to_ids("<|im_end|>"), end_of_text],
        do_sample=True,
        temperature=1e-6,
        repetition_penalty=1.05,
    )


def _save_v5(out: Path, model: Qwen2_5_VLForConditionalGeneration, tokenizer: Qwen2Tokenizer) -> None:
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    image = Qwen2VLImageProcessorPil().to_dict()
    video = {
        **{key: value for key, value in image.items() if key != "image_processor_type"},
        "video_processor_type": "Qwen2VLVideoProcessor",
    }
    processor = {"image_processor": image, "processor_class": "Qwen2_5_VLProcessor", "video_processor": video}
    _write_json(out / "processor_config.json", processor)


def _save_hub(out: Path, model: Qwen2_5_VLForConditionalGeneration, tokenizer: Qwen2Tokenizer) -> None:
    model.save_pretrained(out, max_shard_size="1MB")
    _write_json(out / "config.json", _flat_config(model, tokenizer))
    _save_hub_tokenizer(out, tokenizer)
    image = Qwen2VLImageProcessorPil()
    preprocessor = {
        "min_pixels": 56 * 56,
        "max_pixels": 12845056,
        "patch_size": image.patch_size,
        "temporal_patch_size": image.temporal_patch_size,
        "merge_size": image.merge_size,
        "image_mean": list(image.image_mean),
        "image_std": list(image.image_std),
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
    }
    _write_json(out / "preprocessor_config.json", preprocessor)


def _flat_config(model: Qwen2_5_VLForConditionalGeneration, tokenizer: Qwen2Tokenizer) -> dict[str, Any]:
    """The model's config as transformers 4 words it: text keys at the top, `rope_scaling` for `rope_parameters`."""
    text: Any = model.config.text_config
    vision: Any = model.config.vision_config
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        **_token_ids(tokenizer),
        "vision_token_id": tokenizer.convert_tokens_to_ids("<|vision_pad|>"),
        **{key: getattr(text, key) for key in TEXT_KEYS},
        "rope_theta": text.rope_parameters["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": text.rope_parameters["mrope_section"]},
        "sliding_window": 32768,
        "use_sliding_window": False,
        "use_cache": True,
        "tie_word_embeddings": model.config.tie_word_embeddings,
        "torch_dtype": str(model.dtype).removeprefix("torch."),
        "transformers_version": "4.41.2",
        "vision_config": {
            "model_type": "qwen2_5_vl",
            "in_chans": vision.in_channels,
            "spatial_patch_size": vision.patch_size,
            **{key: getattr(vision, key) for key in VISION_KEYS},
        },
    }


def _save_hub_tokenizer(out: Path, tokenizer: Qwen2Tokenizer) -> None:
    backend = tokenizer.backend_tokenizer
    backend.save(str(out / "tokenizer.json"))
    backend.model.save(str(out))  # vocab.json and merges.txt
    _write_json(out / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    words = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    added = {str(tokenizer.convert_tokens_to_ids(one)): {"content": one, **words} for one in SPECIAL_TOKENS}
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    _write_json(out / "tokenizer_config.json", config)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Build the model that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="the folder to write")
    parser.add_argument("--layout", choices=get_args(Layout), default="v5")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hidden-size", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--tie-word-embeddings", action="store_true")
    asked = parser.parse_args()
    disable_progress_bar()
    build_tiny_model(
        asked.out,
        layout=asked.layout,
        seed=asked.seed,
        hidden_size=asked.hidden_size,
        intermediate_size=2 * asked.hidden_size,
        num_hidden_layers=asked.layers,
        tie_word_embeddings=asked.tie_word_embeddings,
    )
    print(asked.out)


if __name__ == "__main__":
    main()
