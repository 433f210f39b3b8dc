"""Every family of causal language models in the catalogue, two small layers each, on the ghost: whole, and with adapters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from membound.spec import catalogue
from membound.spec import families as known

FLASH = "aten._scaled_dot_product_flash_attention.default"
EFFICIENT = "aten._scaled_dot_product_efficient_attention.default"
EAGER = "aten._softmax.default"

# What scaled_dot_product_attention runs on CUDA for rows of one length in 16 bits. Falcon always builds its mask, which flash does not take;
# BLOOM, GPT-J and MPT have no such call, and Gemma 2 may not use it, for it caps its scores.
ATTENTION = {
    **dict.fromkeys(("llama", "mistral", "mixtral", "qwen2", "qwen3", "gemma", "gpt2", "gpt_bigcode", "phi", "gpt_neox"), FLASH),
    "falcon": EFFICIENT,
    **dict.fromkeys(("bloom", "gemma2", "gptj", "mpt"), EAGER),
}
SMALL = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_local_experts"), 2),
    **dict.fromkeys(("hidden_size", "n_embd", "d_model"), 128),
    **dict.fromkeys(("intermediate_size", "n_inner"), 256),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads"), 2),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 1),
    "vocab_size": 512,
    "head_dim": 64,
    "rotary_dim": 16,
    "pad_token_id": 0,
}
METHODS = {"full": {}, "lora": {"lora": {"targets": "all-linear"}}, "qlora": {"lora": {"targets": "all-linear"}}}


def small(config: dict[str, Any]) -> dict[str, Any]:
    """`config` with two layers, few features and few words."""
    shrunk = {name: SMALL.get(name, value) if value is not None else None for name, value in config.items()}
    return shrunk | ({"layer_types": config["layer_types"][:2]} if "layer_types" in config else {})


def families() -> dict[str, dict[str, Any]]:
    """One configuration of each type of causal language model in the catalogue: the first by name."""
    configs = (catalogue.model(name).config for name in reversed(catalogue.models()))
    return {config["model_type"]: config for config in configs if known.of(config).name == "causal-lm"}


CASES = [(kind, method) for kind in sorted(ATTENTION) for method in METHODS if method != "qlora" or kind in {"gpt2", "mixtral"}]


@pytest.fixture(scope="module")
def captured(capture_all: Callable[..., list[dict[str, Any]]]) -> dict[tuple[str, str], dict[str, Any]]:
    """The facts of each case, captured by one process."""
    configs = families()
    requests = []
    for kind, method in CASES:
        recipe = {"method": method, "precision": "bf16", "micro_batch": 2, **METHODS[method]}
        requests.append({"job": {"model": kind, "data": {"seq_len": 64}, "recipe": recipe}, "config": small(configs[kind])})
    return dict(zip(CASES, capture_all(requests), strict=True))


def test_every_family_of_the_catalogue_is_here() -> None:
    assert set(ATTENTION) == set(families())


@pytest.mark.parametrize(("kind", "method"), CASES)
def test_family(captured: dict[tuple[str, str], dict[str, Any]], kind: str, method: str) -> None:
    facts = captured[kind, method]
    assert "error" not in facts, facts["error"]
    assert facts["parameters"] - (facts["trained"] if method != "full" else 0) == facts["whole"]
    assert facts["trained"] == facts["whole"] if method == "full" else 0 < facts["trained"] < facts["whole"]
    if method != "qlora":
        kernels = {FLASH, EFFICIENT} & set(facts["ops"])
        assert kernels == {ATTENTION[kind]} - {EAGER}
        assert EAGER in facts["ops"] or ATTENTION[kind] != EAGER
