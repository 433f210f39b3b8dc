"""Kernels that cannot run without a GPU and are modelled: what they keep, what they take, and where they are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from membound.ghost.liger_loss import chunk_of

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 4096,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}
ROWS, TOKENS, FEATURES, INNER, WORDS, LAYERS = 4, 256, 256, 768, 4096, 2
HIDDEN = ROWS * TOKENS * FEATURES * 2  # B, in bf16
CASES: dict[str, dict[str, Any]] = {
    "sdpa": {},
    "flash": {"attention": "flash"},
    "flash, padded": {"attention": "flash"},
    "liger": {"kernels": "liger"},
    "compile": {"kernels": "compile"},
    "8 bit": {"optimizer": "adamw-8bit"},
    "paged": {"optimizer": "paged-adamw-8bit"},
    "compile, recompute": {"kernels": "compile", "recompute": "full"},
    "liger, bloom": {"kernels": "liger"},
}


@pytest.fixture(scope="module")
def facts(capture_all: Callable[..., list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The facts of each case."""
    requests = []
    for name, recipe in CASES.items():
        data = {"lengths": "alpaca", "max_length": TOKENS} if "padded" in name else {"seq_len": TOKENS}
        config = {"model_type": "bloom", "hidden_size": 64, "n_layer": 1, "n_head": 2, "vocab_size": 64} if "bloom" in name else LLAMA
        job = {"model": name, "data": data, "recipe": {"precision": "bf16", "micro_batch": ROWS, **recipe}}
        requests.append({"job": job, "config": config})
    return dict(zip(CASES, capture_all(requests), strict=True))


def test_flash_takes_what_sdpa_takes(facts: dict[str, Any]) -> None:
    assert "flash_attn._flash_attn_forward.default" in facts["flash"]["ops"]
    # PyTorch keeps dropout's seed and offset in two blocks of 512 B where the package keeps one; nothing else differs.
    assert facts["sdpa"]["kept"] - facts["flash"]["kept"] == LAYERS * 512
    assert 0 <= facts["sdpa"]["peak"] - facts["flash"]["peak"] <= LAYERS * 512
    assert facts["flash"]["notes"]


def test_flash_removes_padding(facts: dict[str, Any]) -> None:
    padded = facts["flash, padded"]
    assert "flash_attn._flash_attn_varlen_forward.default" in padded["ops"]
    assert "aten.nonzero.default" in padded["ops"]


def test_liger_keeps_neither_logits_nor_activated_gates(facts: dict[str, Any]) -> None:
    kept = facts["sdpa"]["kept"] - facts["liger"]["kept"]
    logits = ROWS * TOKENS * WORDS * 4  # the loss's, in fp32
    activated = LAYERS * ROWS * TOKENS * INNER * 2
    # Gradients of the hidden states and of the head stand in their place.
    assert kept > logits + activated - HIDDEN - WORDS * FEATURES * 2
    assert facts["liger"]["peak"] < facts["sdpa"]["peak"]
    assert {"liger_kernel.rms_norm_forward.default", "liger_kernel.rope.default"} <= set(facts["liger"]["ops"])


@pytest.mark.parametrize(
    ("tokens", "features", "words", "chunk"),
    [
        (16384, 4096, 32000, 2048),  # the worked example in Liger's own comment
        (1024, 4096, 4096, 1024),  # no more words than features: one chunk
        (100, 64, 128, 64),
    ],
)
def test_liger_chunk(tokens: int, features: int, words: int, chunk: int) -> None:
    assert chunk_of(tokens, features, words) == chunk


def test_compile_keeps_less_than_eager_in_fewer_kernels(facts: dict[str, Any]) -> None:
    assert facts["compile"]["kept"] < facts["sdpa"]["kept"]
    assert "inductor.fused" in facts["compile"]["ops"]
    # Of a layer only what matmuls, attention and the norms' sums gave stands: no activation of SiLU, no rotated halves.
    assert "aten.silu.default" not in facts["compile"]["ops"]


def test_paged_states_are_outside_of_the_allocator(facts: dict[str, Any]) -> None:
    assert facts["8 bit"]["managed"] == 0
    # Two 8-bit states of each parameter of 100,000 elements and more; the scales stay with the allocator.
    large = 2 * WORDS * FEATURES + LAYERS * (3 * FEATURES * INNER)
    assert facts["paged"]["managed"] == 2 * large


def test_what_cannot_be_predicted_is_refused(facts: dict[str, Any]) -> None:
    assert "not predicted yet with recomputation" in facts["compile, recompute"]["error"]
    assert "model type bloom" in facts["liger, bloom"]["error"]
