"""The lean LoRA layer against PEFT's own, from the same weights."""

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn

from riskva.modeling.lora import LeanLora, make_lean

INPUTS, OUTPUTS = 48, 80


class Layer(nn.Module):
    def __init__(self, bias: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.proj = nn.Linear(INPUTS, OUTPUTS, bias=bias, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)  # type: ignore[no-any-return]


def both(bias: bool = True, dtype: torch.dtype = torch.float32, **keys: Any) -> tuple[Any, Any]:
    """PEFT's layer and the lean one, with the same weights; B is not zero, and LoRA's weights are float32."""
    torch.manual_seed(0)
    config = LoraConfig(**{"r": 8, "lora_alpha": 24, "target_modules": ["proj"], **keys})
    theirs = get_peft_model(Layer(bias, dtype), config)
    for name, weight in theirs.named_parameters():
        if "lora_" in name:
            weight.data = weight.data.float()
        if "lora_B" in name:
            nn.init.normal_(weight, std=0.2)
    ours = copy.deepcopy(theirs)
    make_lean(ours)
    assert [type(one) for one in ours.modules() if isinstance(one, LoraLinear)] == [LeanLora]
    return theirs, ours


def inputs(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, INPUTS, generator=torch.Generator().manual_seed(1)).to(dtype)


def run(model: nn.Module, x: Tensor, autocast: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
    """The output, and the gradients of the input and of all that trains; the same dropout in every call."""
    x = x.detach().requires_grad_()
    torch.manual_seed(2)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = model(x)
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape)
    model.zero_grad()
    (output.float() * weights).sum().backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    assert x.grad is not None
    return output.detach(), {"input": x.grad, **gradients}


def apart(one: Tensor, other: Tensor) -> float:
    """The length of the difference over the length of `other`."""
    return ((one.float() - other).norm() / other.norm()).item()


@pytest.mark.parametrize("keys", [{}, {"lora_dropout": 0.4}, {"use_rslora": True}], ids=str)
@pytest.mark.parametrize("shape", [(1, 23), (5,), (3, 4, 2)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_float32_is_pefts(bias: bool, shape: tuple[int, ...], keys: dict[str, Any]) -> None:
    theirs, ours = both(bias, **keys)
    expected, expected_gradients = run(theirs.train(), inputs(*shape))
    found, gradients = run(ours.train(), inputs(*shape))
    # Measured: 3e-7 apart, as vectors, the output and all gradients.
    assert apart(found, expected) < 1e-6
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        assert apart(gradient, expected_gradients[name]) < 1e-6, name


@pytest.mark.parametrize("base", [torch.float32, torch.bfloat16])
def test_autocast_is_as_near_as_bfloat16s_rounding(base: torch.dtype) -> None:
    """Both round on their way; against the same layers in float32 the lean one must not be the worse by much."""
    theirs, ours = both(dtype=base)
    exact = copy.deepcopy(theirs).float()
    x = inputs(1, 200, dtype=base)
    expected, expected_gradients = run(theirs.train(), x, autocast=True)
    found, gradients = run(ours.train(), x, autocast=True)
    right, right_gradients = run(exact.train(), x.float())
    assert found.dtype == expected.dtype
    assert apart(found, right) <= 1.1 * apart(expected, right) < 0.01
    for name, gradient in gradients.items():
        assert gradient.dtype == expected_gradients[name].dtype
        right = right_gradients[name]
        assert apart(gradient, right) <= 1.2 * apart(expected_gradients[name], right) + 1e-3, name


def test_without_autocast_a_bfloat16_base_takes_float32_adapters_as_in_peft() -> None:
    theirs, ours = both(dtype=torch.bfloat16)
    x = inputs(1, 30, dtype=torch.bfloat16)
    with torch.no_grad():
        expected, found = theirs(x), ours(x)
    assert found.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=2**-6, atol=2**-6)


def test_a_disabled_adapter_is_the_base() -> None:
    theirs, ours = both()
    x = inputs(1, 9)
    with ours.disable_adapter():
        disabled = ours(x)
    assert disabled.equal(ours.get_base_model().proj.base_layer(x))
    torch.testing.assert_close(ours(x), theirs(x))
    assert not torch.allclose(ours(x), disabled)


def test_a_merged_adapter_is_not_added_twice() -> None:
    theirs, ours = both()
    x = inputs(1, 9)
    before = ours(x)
    ours.merge_adapter()
    torch.testing.assert_close(ours(x), before, rtol=1e-5, atol=1e-5)
    ours.unmerge_adapter()
    torch.testing.assert_close(ours(x), before, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.merge_and_unload()(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_two_adapters_and_the_one_that_is_chosen() -> None:
    theirs, ours = both()
    for model in (theirs, ours):
        torch.manual_seed(5)
        model.add_adapter("other", LoraConfig(r=4, target_modules=["proj"], init_lora_weights=False))
    x = inputs(1, 9)
    for chosen in ("other", "default"):
        for model in (theirs, ours):
            model.set_adapter(chosen)
        torch.testing.assert_close(ours(x), theirs(x))
    for model in (theirs, ours):
        model.base_model.set_adapter(["default", "other"])
    of_both = ours(x)
    torch.testing.assert_close(of_both, theirs(x))
    ours.set_adapter("default")
    assert not torch.allclose(ours(x), of_both)


def test_an_adapter_that_leaves_the_layer_alone_changes_nothing() -> None:
    """Chosen, but made for other layers."""
    theirs, ours = both()
    for model in (theirs, ours):
        for one in model.modules():
            if isinstance(one, LoraLinear):
                one.set_adapter("elsewhere") if False else setattr(one, "_active_adapter", ["elsewhere"])
    x = inputs(1, 9)
    assert ours(x).equal(theirs(x))


def test_dora_is_pefts_own() -> None:
    theirs, ours = both(use_dora=True)
    x = inputs(1, 9)
    assert ours(x).equal(theirs(x))


def test_the_input_and_the_base_stay_as_they_are() -> None:
    """The sum is made in place: in the layer's own output and nowhere else."""
    _, ours = both()
    x = inputs(1, 9)
    before, weight = x.clone(), ours.get_base_model().proj.base_layer.weight.clone()
    first = ours(x)
    assert first.equal(ours(x))
    assert x.equal(before)
    assert ours.get_base_model().proj.base_layer.weight.equal(weight)


def test_only_plain_layers_become_lean() -> None:
    model = get_peft_model(
        nn.Sequential(nn.Embedding(10, INPUTS), nn.Linear(INPUTS, OUTPUTS)), LoraConfig(r=4, target_modules=["0", "1"])
    )
    make_lean(model)
    make_lean(model)  # a second time changes nothing
    kinds = [type(one).__name__ for one in model.modules() if type(one).__module__ != "torch.nn.modules.linear"]
    assert kinds.count("LeanLora") == 1
    assert [name for name, _ in model.named_parameters() if "lora" in name]
