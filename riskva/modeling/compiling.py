"""`torch_compile`: each layer compiled once, for rows of any length."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch

from riskva.errors import RecipeError
from riskva.modeling.model import Qwen2_5_VLForConditionalGeneration

CACHE_DIR = "TORCHINDUCTOR_CACHE_DIR"
"""The environment variable in which torch looks for the folder of what it has compiled."""


def compile_layers(model: Qwen2_5_VLForConditionalGeneration) -> None:
    """Compile the language model's layers and the vision tower's blocks in place, when they are first run.

    One after the other and not the model as a whole: they are alike, so that one compilation does for all, and what
    depends on the samples of a row, attention within them, stays outside. Lengths are left open: no row is compiled for
    again. What is compiled is kept on disk for later runs, in the user's cache folder unless TORCHINDUCTOR_CACHE_DIR
    names another. Raises `RecipeError` without a compiler for the CPU's code.
    """
    require_compiler()
    os.environ.setdefault(CACHE_DIR, str(Path("~/.cache/riskva/torchinductor").expanduser()))
    # Inductor's patterns put a sum into the product before it: on a CPU that costs a copy, and elsewhere it is free
    options = {} if torch.accelerator.is_available() else {"pattern_matcher": False}
    for layer in (*model.model.language_model.layers, *model.model.visual.blocks):
        layer.compile(dynamic=True, options=options)


def require_compiler() -> None:
    """Raise `RecipeError` where torch.compile would find no C++ compiler."""
    compiler = os.environ.get("CXX", "g++")
    if not torch.cuda.is_available() and shutil.which(compiler) is None:
        raise RecipeError(
            f"torch_compile: compiling for the CPU needs a C++ compiler, and there is no {compiler} here; install it "
            "(apt install g++) or set torch_compile: false"
        )
