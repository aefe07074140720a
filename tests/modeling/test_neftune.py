"""NEFTune's noise by the paper's formula, sample by sample, and against transformers' own hook."""

import math

import pytest
import torch
from torch import nn
from transformers.integrations.neftune import neftune_post_forward_hook

from riskva.modeling.neftune import add_noise

WIDTH, ALPHA = 32, 5.0


def test_noise_of_one_sample_is_that_of_transformers() -> None:
    embeddings = torch.randn(1, 40, WIDTH)
    module = nn.Embedding(4, WIDTH).train()
    module.neftune_noise_alpha = ALPHA  # type: ignore[assignment]
    torch.manual_seed(3)
    theirs = neftune_post_forward_hook(module, None, embeddings)
    torch.manual_seed(3)
    ours = add_noise(embeddings, torch.tensor([0, 40], dtype=torch.int32), ALPHA)
    # The same draws, scaled after and not while drawing: they differ by rounding.
    torch.testing.assert_close(ours, theirs)
    assert not torch.equal(ours, embeddings)


def test_each_sample_has_noise_of_its_own_length() -> None:
    lengths = [10, 300, 45]
    bounds = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)
    embeddings = torch.randn(1, sum(lengths), WIDTH)
    torch.manual_seed(4)
    noise = (add_noise(embeddings, bounds, ALPHA) - embeddings)[0].split(lengths)
    for part, length in zip(noise, lengths, strict=True):
        most = ALPHA / math.sqrt(length * WIDTH)
        assert part.abs().max() <= most * (1 + 1e-4)
        # The largest of at least 320 uniform draws is below 95 % of the bound once in 10^7.
        assert part.abs().max() > 0.95 * most
        assert part.mean().abs() < 5 * most / math.sqrt(3 * part.numel())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_packed_sample_has_the_noise_that_it_has_alone(dtype: torch.dtype) -> None:
    embeddings = torch.zeros(1, 50, WIDTH, dtype=dtype)
    torch.manual_seed(5)
    alone = add_noise(embeddings[:, :20], torch.tensor([0, 20]), ALPHA)
    torch.manual_seed(5)
    packed = add_noise(embeddings, torch.tensor([0, 20, 50]), ALPHA)
    torch.testing.assert_close(packed[:, :20], alone)
    assert packed.dtype == dtype


def test_gradients_pass_unchanged() -> None:
    embeddings = torch.randn(1, 6, WIDTH, requires_grad=True)
    add_noise(embeddings, torch.tensor([0, 6]), ALPHA).sum().backward()
    assert embeddings.grad is not None
    assert torch.equal(embeddings.grad, torch.ones_like(embeddings))
