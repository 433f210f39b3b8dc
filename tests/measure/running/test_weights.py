"""Weights that are made quickly are spread as those that are drawn, and no row is another's copy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from membound.measure.worker_weights import quickly

ROWS, COLUMNS = 1200, 1024
DRAWS: dict[str, Any] = {
    "normal": lambda tensor: nn.init.normal_(tensor, mean=0.0, std=0.02),
    "method": lambda tensor: tensor.normal_(0.0, 0.02),
    "keyword": lambda tensor: nn.init.normal_(tensor, std=0.02),
    "kaiming": lambda tensor: nn.init.kaiming_uniform_(tensor, a=5**0.5),
    "truncated": lambda tensor: nn.init.trunc_normal_(tensor, std=0.02),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_large_tensors_are_spread_as_their_draw_would(draw: Any, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    drawn, quick = torch.empty(ROWS, COLUMNS, dtype=dtype), torch.empty(ROWS, COLUMNS, dtype=dtype)
    with torch.no_grad():
        draw(drawn)
        with quickly(None):
            draw(quick)
    assert quick.float().std().item() == pytest.approx(drawn.float().std().item(), rel=0.02)
    assert quick.float().mean().item() == pytest.approx(0.0, abs=3e-4)  # five standard errors of the block's mean
    assert torch.unique(quick, dim=0).shape[0] == ROWS


def test_small_tensors_are_drawn() -> None:
    with quickly(None):
        torch.manual_seed(1)
        quick = nn.Linear(16, 16).weight
    torch.manual_seed(1)
    assert torch.equal(quick, nn.Linear(16, 16).weight)


def test_a_device_may_be_chosen_for_all_that_is_made() -> None:
    with quickly(torch.device("meta")):
        assert nn.Linear(4, 4).weight.device.type == "meta"
    assert nn.Linear(4, 4).weight.device.type == "cpu"


def test_a_model_of_transformers_draws_no_large_tensor() -> None:
    from torch.utils._python_dispatch import TorchDispatchMode
    from transformers import LlamaConfig, LlamaForCausalLM

    drawn: list[int] = []

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if function is torch.ops.aten.normal_.default:
                drawn.append(args[0].numel())
            return function(*args, **(kwargs or {}))

    config = LlamaConfig(hidden_size=512, intermediate_size=1024, num_hidden_layers=1, num_attention_heads=4, vocab_size=1000)
    with quickly(None), Watching():
        model = LlamaForCausalLM(config)
    weight = model.model.layers[0].mlp.up_proj.weight
    assert weight.numel() > 131_071
    assert weight.std().item() == pytest.approx(config.initializer_range, rel=0.02)
    assert max(drawn, default=0) <= 131_071
