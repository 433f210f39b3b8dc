"""The Programs beyond causal language models on the ghost: at full size as their recipes train them, and at tiny size against real runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from membound.ghost.allowed import ALLOWED
from membound.ghost.capture import capture
from membound.spec import catalogue, jobfile
from membound.spec.job import Job
from membound.trace import cache, store
from membound.trace.choice import Choice
from membound.trace.compare import compare
from membound.trace.schema import PHASE, Trace

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
TINY: Final[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "tiny_models.json").read_text())

BATCH_NORM, BATCH_NORM_BACKWARD = "aten.cudnn_batch_norm.default", "aten.cudnn_batch_norm_backward.default"

# Kernels of one micro-step that tell that CUDA's choice was made, with how often they run: one for each layer that needs it.
TELLING: Final[dict[str, dict[str, int]]] = {
    "bert-large": {"aten._scaled_dot_product_flash_attention.default": 24, "aten.native_layer_norm.default": 50},
    "t5-large": {"aten._scaled_dot_product_efficient_attention.default": 72},
    "gnmt": {"aten._cudnn_rnn.default": 8, "aten._cudnn_rnn_backward.default": 8},
    "resnet-50": {"aten.convolution.default": 53, "aten.convolution_backward.default": 53, BATCH_NORM: 53, BATCH_NORM_BACKWARD: 53},
    "ssd": {"aten.convolution.default": 65, BATCH_NORM: 53, "aten.sort.default": 2},
    "mask-rcnn": {"membound.nms.default": 4, "membound.roi_align.default": 3, "membound.roi_align_backward.default": 2},
    "ncf": {"aten.embedding.default": 4, "aten.embedding_dense_backward.default": 4},
    # Rank 0 holds the largest table and no other.
    "dlrm": {"aten._embedding_bag.default": 1, "aten.index_add_.default": 1},
}
# Multiply-adds of one sample's forward where they are published, in 1e9: torchvision's model pages.
GIGA_FORWARD: Final = {"resnet-50": 4.09}


def example(name: str) -> tuple[Job, int]:
    """The Job of a model's example, and the GPUs of a node."""
    asked = jobfile.read(str(EXAMPLES / f"{name}.yaml"))
    return asked.job, asked.machine.gpus


def captured(name: str, folder: Path) -> Trace:
    """The Trace of a model's example, kept for the session."""
    job, gpus = example(name)
    config = catalogue.model(name).config
    kept, key = cache.TraceCache(folder), cache.key(job, config, gpus)
    trace = kept.get(key, job)
    if trace is None:
        trace = capture(job, config, gpus)
        kept.put(key, trace)
    return trace


def launched(trace: Trace, *kinds: str) -> Counter[str]:
    """How often each operator runs in the last micro-step of the last step."""
    last = (trace.instructions["step"] == trace.header.steps - 1) & (trace.instructions["micro"] == trace.header.micro_steps - 1)
    rows = trace.select(*kinds)
    return Counter(trace.ops(rows[last[rows]]))


@pytest.mark.parametrize("name", TINY)
def test_examples_follow_the_reference_recipe(name: str) -> None:
    job, _ = example(name)
    reference = catalogue.model(name).reference
    assert reference is not None
    assert reference["source"]
    assert job.data.model_dump(exclude_none=True) == reference["data"]
    fields = ("precision", "optimizer", "micro_batch", "accumulation", "learning_rate")
    assert {field: getattr(job.recipe, field) for field in fields} == {field: reference[field] for field in fields}


@pytest.mark.parametrize("name", TINY)
def test_the_full_size_runs_as_cuda_would_run_it(name: str, trace_cache: Path) -> None:
    trace = captured(name, trace_cache)
    kernels = launched(trace, "kernel")
    assert {op: kernels[op] for op in TELLING[name]} == TELLING[name]
    assert "aten.native_batch_norm.default" not in kernels  # fp16 leaves batch norm to cuDNN
    assert (trace.header.parameters, trace.header.ranks) == (catalogue.model(name).parameters, 8)


def test_gradients_are_summed_in_buckets_of_25_mebibytes(trace_cache: Path) -> None:
    trace = captured("resnet-50", trace_cache)
    rows = trace.instructions
    summed = rows["nbytes"][(rows["op"] == trace.header.ops.index("c10d.allreduce_.default")) & (rows["step"] == 1)]
    assert summed.sum() == 4 * trace.header.parameters
    # A bucket is full once it holds as much, so by one parameter more than that; the first has 1 MiB, the last what is left.
    assert 1 << 20 <= summed[0] < 10 << 20
    assert all(25 << 20 <= nbytes < 35 << 20 for nbytes in summed[1:-1])


def test_tables_rows_are_exchanged_and_no_others_touched(trace_cache: Path) -> None:
    trace = captured("dlrm", trace_cache)
    assert launched(trace, "collective")["c10d.alltoall_base_.default"] == 2
    added = np.flatnonzero(trace.instructions["op"] == trace.header.ops.index("aten.index_add_.default"))
    touched = trace.operands["nbytes"][np.isin(trace.operands["instruction"], added) & (trace.operands["write"] == 1)]
    job, _ = example("dlrm")
    assert set(touched) == {job.gpus * job.recipe.micro_batch * catalogue.model("dlrm").config["embedding"] * 4}


@pytest.mark.parametrize("name", GIGA_FORWARD)
def test_arithmetic_is_as_published(name: str, trace_cache: Path) -> None:
    trace = captured(name, trace_cache)
    rows = trace.instructions
    forward = rows["flops"][(rows["phase"] == PHASE["forward"]) & (rows["step"] == 1)].sum()
    assert forward / 2 / example(name)[0].recipe.micro_batch == pytest.approx(GIGA_FORWARD[name] * 1e9, rel=0.005)


# What may differ from a real run on the CPU, beside what `membound.ghost.allowed` lists.
CHOICES: Final = (
    *ALLOWED,
    Choice(
        "batch norm",
        "CUDA runs cuDNN's kernel, which returns what it reserves; the CPU makes that apart, and empty",
        real=r"aten\.empty\.memory_format",
        paired=(
            (r"aten\.native_batch_norm\.default", r"aten\.cudnn_batch_norm\.default"),
            (r"aten\.native_batch_norm_backward\.default", r"aten\.cudnn_batch_norm_backward\.default"),
        ),
    ),
    Choice(
        "embedding bag",
        "CUDA's kernel keeps the bag of each index, the CPU's none where it sums whole rows",
        paired=((r"aten\._embedding_bag\.default", r"aten\._embedding_bag\.default"),),
    ),
    Choice(
        "start mark",
        "a number put into a tensor is filled in by the real run, copied in on the ghost",
        real=r"aten\.(lift_fresh|fill_)\..*",
        ghost=r"aten\.(scalar_tensor|view|expand|copy_)\..*",
        line=r"transformers/models/t5/modeling_t5\.py:\d+",
    ),
)
# GNMT is not here: its LSTM layers are oneDNN's on the CPU, in other parts than cuDNN's.
EXACT: Final[dict[str, tuple[dict[str, Any], set[str]]]] = {
    "bert-large": ({"precision": "bf16"}, {"attention", "layer norm statistics"}),
    "t5-large": ({"precision": "bf16", "attention": "eager"}, {"start mark"}),
    "resnet-50": ({"precision": "fp32"}, {"batch norm"}),
    "ssd": ({"precision": "fp32"}, {"batch norm"}),
    "mask-rcnn": ({"precision": "bf16"}, set()),
    "ncf": ({"precision": "bf16-mixed"}, set()),
    "dlrm": ({"precision": "bf16-mixed"}, {"embedding bag"}),
}
# CUDA keeps the statistics of 16-bit rows in fp32: bytes apart at the most.
APART: Final = {"bert-large": 1024}


def tiny(name: str) -> tuple[Job, dict[str, Any]]:
    """A Job for a model's tiny form, and its configuration."""
    recipe = {"micro_batch": 2, **EXACT[name][0]}
    return Job.model_validate({"model": name, "data": TINY[name]["data"], "recipe": recipe}), {**catalogue.model(name).config, **TINY[name]["config"]}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trace]:
    """What real runs on the CPU launched, by model, in one process for all."""
    folder = tmp_path_factory.mktemp("real")
    requests = []
    for name in EXACT:
        job, config = tiny(name)
        requests.append(json.dumps({"job": job.model_dump(mode="json"), "config": config, "folder": str(folder / name)}))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONHASHSEED": "0"}
    command = [sys.executable, "-P", "-m", "membound.ghost.witness"]
    done = subprocess.run(command, input="\n".join(requests) + "\n", capture_output=True, text=True, env=environment, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert answers == ["done"] * len(requests), answers
    return {name: store.read(folder / name) for name in EXACT}


@pytest.mark.parametrize("name", EXACT)
def test_the_ghost_does_what_the_real_run_does(name: str, real: dict[str, Trace]) -> None:
    job, config = tiny(name)
    found = compare(real[name], capture(job, config, 1), CHOICES)
    assert not found.unexplained, "\n".join(map(str, found.unexplained[:40]))
    assert found.choices - {"host copies", "host reads"} == EXACT[name][1]
    assert found.drift <= APART.get(name, 48)
    assert found.aligned > 200
