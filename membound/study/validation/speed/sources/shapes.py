"""Shapes of models that stand in no catalogue: Hugging Face configurations that compute what the source's own code does.

MPT (mosaicml/llm-foundry, scripts/train/yamls/pretrain/mpt-*.yaml @ 34c28fc9): width, heads, layers and vocabulary from there; learned
positions, biases and tied embeddings, which GPT-2 has as well. The parameter counts of scripts/train/benchmarking/README.md (061f2c7c) come
out exactly at the length that each table states. One file serves all lengths of a model: its position table has a row for each token of
the longest run, which makes up to 1 % of a step of the smallest model. Llama-2-34B: foundation-model-stack/fms-fsdp,
fms_fsdp/utils/config_utils.py, variant llama2_34b.
"""

from __future__ import annotations

from importlib import resources

from membound.errors import UnknownNameError


def path(name: str) -> str:
    """The file of the shape called `name`, to be a Job's model. Raises `UnknownNameError`."""
    if name not in names():
        raise UnknownNameError("shape", name, names())
    return str(resources.files("membound.study").joinpath(f"data/shapes/{name}.json"))


def names() -> list[str]:
    """All shapes, sorted."""
    folder = resources.files("membound.study").joinpath("data/shapes")
    return sorted(item.name.removesuffix(".json") for item in folder.iterdir() if item.name.endswith(".json"))
