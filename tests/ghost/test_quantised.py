"""4-bit weights on the ghost: whoever shards them shards the packed bytes, and what stays in 16 bits is told."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

# Looked for, not imported, which takes seconds: captures do that, in processes of their own.
pytestmark = pytest.mark.skipif(find_spec("bitsandbytes") is None or find_spec("peft") is None, reason="bitsandbytes or PEFT is not installed")

LLAMA = {
    "model_type": "llama",
    "vocab_size": 512,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
MIXTRAL = {**LLAMA, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
OFFLOADED = {"offload": {"optimizer": "cpu", "params": "cpu"}}
# Name: model, recipe beyond the method, ranks.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "one": (LLAMA, {}, 1),
    "ddp": (LLAMA, {"engine": "ddp"}, 2),
    "fsdp of 1": (LLAMA, {"engine": "fsdp"}, 1),
    "fsdp of 2": (LLAMA, {"engine": "fsdp"}, 2),
    "fsdp of 8": (LLAMA, {"engine": "fsdp"}, 8),
    "fsdp, offloaded": (LLAMA, {"engine": "fsdp", **OFFLOADED}, 8),
    "experts": (MIXTRAL, {}, 1),
}


@pytest.fixture(scope="module")
def captured(capture_all: Callable[..., list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The facts of each case."""
    requests = []
    for config, recipe, ranks in CASES.values():
        # No recomputation and one short row: what forward keeps is weights.
        job = {"model": "small", "data": {"seq_len": 16}, "gpus": ranks, "recipe": {"method": "qlora", "precision": "bf16", **recipe}}
        requests.append({"job": job, "config": config})
    return dict(zip(CASES, capture_all(requests), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_parameters_are_counted_as_if_they_were_not_packed(captured: dict[str, dict[str, Any]], name: str) -> None:
    facts = captured[name]
    assert "error" not in facts
    assert facts["parameters"] - facts["trained"] == facts["whole"]


def test_each_rank_holds_its_part_of_the_packed_weights(captured: dict[str, dict[str, Any]]) -> None:
    standing = [captured[f"fsdp of {ranks}"]["standing"] for ranks in (1, 2, 8)]
    # What is not sharded: scales and codes of the 4-bit weights, and the least that a block takes.
    assert standing[1] < 0.62 * standing[0]
    assert standing[2] < 0.35 * standing[0]
    assert captured["fsdp, offloaded"]["standing"] < 0.5 * standing[2]


def test_what_stays_in_16_bits_is_told(captured: dict[str, dict[str, Any]]) -> None:
    assert captured["one"]["notes"] == []
    assert any("stay in 16 bits" in note for note in captured["experts"]["notes"])
