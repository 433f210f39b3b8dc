"""Recomputation runs in autograd's own thread: what a model does there must work as it does in forward."""

from __future__ import annotations

from membound.ghost.capture import capture
from membound.spec.job import Job
from membound.trace.schema import PHASE

# Falcon-40B's attention picks heads with a list of numbers, which becomes a tensor on the way: in forward, and again in backward.
FALCON = {
    "model_type": "falcon",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_kv_heads": 2,
    "vocab_size": 128,
    "new_decoder_architecture": True,
    "parallel_attn": True,
    "bias": False,
    "alibi": False,
}


def test_numbers_become_tensors_in_backward_as_in_forward() -> None:
    recipe = {"method": "lora", "lora": {"rank": 2, "targets": ["query_key_value"]}, "precision": "bf16", "recompute": "full"}
    trace = capture(Job.model_validate({"model": "falcon-40b", "data": {"seq_len": 16}, "recipe": recipe}), FALCON, 1)
    again = [op for op in trace.ops(trace.select("kernel")) if "attention" in op and "backward" not in op]
    # Two layers and two steps, each once in forward and once more in backward.
    assert len(again) == 8
    assert (trace.instructions["phase"] == PHASE["backward"]).any()
