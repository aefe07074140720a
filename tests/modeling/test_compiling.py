"""What `torch_compile` needs; that compiled layers give the same losses is in tests/e2e/test_core_keys.py."""

import os
from pathlib import Path

import pytest
import torch

from riskva.errors import RecipeError
from riskva.modeling.compiling import CACHE_DIR, compile_layers, require_compiler
from riskva.modeling.loading import load_model


def test_a_missing_compiler_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RecipeError, match=r"torch_compile: .* there is no no-such-compiler here; install it"):
        require_compiler()
    with pytest.raises(RecipeError, match="no-such-compiler"):
        compile_layers(load_model(tiny_model))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    require_compiler()  # for a GPU torch brings its own


@pytest.mark.parametrize("named", [None, "/elsewhere"])
def test_layers_are_compiled_and_nothing_else(
    named: str | None, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    """Nothing is compiled before a layer is first run."""
    monkeypatch.setattr("riskva.modeling.compiling.require_compiler", lambda: None)
    monkeypatch.setenv(CACHE_DIR, named or "")
    if named is None:
        monkeypatch.delenv(CACHE_DIR)
    model = load_model(tiny_model)
    names = list(model.state_dict())
    compile_layers(model)
    compiled = [name for name, one in model.named_modules() if one._compiled_call_impl is not None]
    assert compiled == [f"model.visual.blocks.{i}" for i in (0, 1)] + [
        f"model.language_model.layers.{i}" for i in (0, 1)
    ]
    assert list(model.state_dict()) == names
    assert os.environ[CACHE_DIR] == named or os.environ[CACHE_DIR].endswith(".cache/riskva/torchinductor")
