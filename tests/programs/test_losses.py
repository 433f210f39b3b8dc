"""Losses and kernels of other software: the same numbers as PyTorch's where they compute, and the memory that their sources take."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.llama import modeling_llama

from membound.programs import fused, losses
from membound.spec import catalogue

TOKENS = torch.randint(0, 500, (2, 16), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def own_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `fused` puts into Transformers' module is taken out again after each test."""
    monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", modeling_llama.apply_rotary_pos_emb)


def model(**options: Any) -> Any:
    """The model `tiny` with a given loss, the same weights each time."""
    torch.manual_seed(0)
    built = AutoModelForCausalLM.from_config(AutoConfig.for_model(**catalogue.model("tiny").config))
    losses.apply(built, options)
    return built


def loss_and_gradient(built: Any) -> tuple[float, torch.Tensor]:
    loss = built(input_ids=TOKENS, labels=TOKENS).loss
    loss.backward()
    gradient: torch.Tensor = built.get_output_embeddings().weight.grad
    return float(loss.detach()), gradient


@pytest.mark.parametrize("name", [name for name in losses.LOSSES if not name.endswith("in-place")])
def test_those_that_compute_give_what_transformers_gives(name: str) -> None:
    expected, gradient = loss_and_gradient(model())
    found, found_gradient = loss_and_gradient(model(loss=name))
    assert found == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(found_gradient, gradient, atol=1e-6)


@pytest.mark.parametrize("name", [*losses.LOSSES, "fused-linear"])
@pytest.mark.parametrize("with_kernels", [False, True])
def test_each_trains_every_weight_that_its_source_trains(name: str, with_kernels: bool) -> None:
    built = model(loss=name, fused=with_kernels)
    built(input_ids=TOKENS, labels=TOKENS).loss.backward()
    without = {name for name, parameter in built.named_parameters() if parameter.grad is None}
    # Unsloth's norm kernel gives its weight no gradient.
    assert without == ({name for name, _ in built.named_parameters() if "norm" in name} if with_kernels else set())


def test_an_upcasting_head_gives_fp32_logits() -> None:
    logits = model(loss="transformers-4.45-llama").to(torch.bfloat16)(input_ids=TOKENS).logits
    assert logits.dtype == torch.float32
    assert model(loss="transformers-4.45-gpt").to(torch.bfloat16)(input_ids=TOKENS).logits.dtype == torch.bfloat16


def test_in_place_overwrites_the_copy_and_not_the_logits() -> None:
    logits = torch.randn(2, 8, 10, requires_grad=True)
    kept = logits.detach().clone()
    losses.shifted_in_place(logits, TOKENS[:, :8] % 10, 10).backward()
    assert torch.equal(logits, kept)
    assert logits.grad is not None


def test_rotation_takes_no_memory() -> None:
    query = torch.randn(1, 2, 4, 8)
    turned, _ = fused.rotate(query, query, query, query)
    assert turned.data_ptr() == query.data_ptr()


def test_nothing_is_changed_unless_asked() -> None:
    built = model()
    assert "forward" not in vars(built)
    assert not built.get_output_embeddings()._forward_hooks
