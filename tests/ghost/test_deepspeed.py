"""DeepSpeed on the ghost: what each ZeRO stage holds, moves and launches. Bytes are per parameter and rank, after Rajbhandari et al. 2020."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from membound.errors import InputError
from membound.ghost.capture import capture
from membound.programs.engines import deepspeed_config
from membound.spec.job import Job
from membound.trace.schema import CATEGORIES, PHASE, PLACE, Trace

pytestmark = pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")

RANKS = 8
# Two layers, wide enough that padding and norms do not count, and that each rank's part of a matrix is worth a swap file (1 MiB).
MODEL = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 5504,
    "num_hidden_layers": 2,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "vocab_size": 4096,
    "tie_word_embeddings": False,
}
CPU, NVME = {"optimizer": "cpu", "params": "cpu"}, {"optimizer": "nvme", "params": "nvme"}
# tatsu-lab/stanford_alpaca's JSON at ZeRO-1 on the GPU: FusedAdam, everything automatic.
AUTOMATIC = {
    "bf16": {"enabled": "auto"},
    "optimizer": {"type": "AdamW", "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}},
    "scheduler": {"type": "WarmupDecayLR", "params": {"total_num_steps": "auto", "warmup_max_lr": "auto", "warmup_num_steps": "auto"}},
    "zero_optimization": {"stage": 1, "overlap_comm": True, "contiguous_gradients": True, "reduce_bucket_size": "auto"},
    "gradient_accumulation_steps": 8,
    "gradient_clipping": "auto",
    "train_batch_size": 64,
    "train_micro_batch_size_per_gpu": "auto",
}
RECIPES: dict[str, dict[str, Any]] = {
    "zero-1, own JSON": {"deepspeed_config": AUTOMATIC, "accumulation": 8},
    "zero-2": {"zero_stage": 2, "precision": "fp16-mixed"},
    "zero-3": {"zero_stage": 3},
    "zero-2, offload": {"zero_stage": 2, "offload": {"optimizer": "cpu"}, "precision": "fp16-mixed", "accumulation": 4},
    "zero-3, offload": {"zero_stage": 3, "offload": CPU, "recompute": "full"},
    "zero-3, nvme": {"zero_stage": 3, "offload": NVME},
    "zero-3, qlora": {"zero_stage": 3, "method": "qlora"},
}


def job(recipe: dict[str, Any]) -> Job:
    """A Job of `recipe` on eight ranks."""
    return Job.model_validate({"model": "two-layers", "data": {"seq_len": 64}, "recipe": {"engine": "deepspeed", **recipe}, "gpus": RANKS})


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trace]:
    """The Trace of a recipe by its name; each is captured once, in a process of its own."""

    @functools.cache
    def of(name: str) -> Trace:
        recipe = dict(RECIPES[name])
        if "deepspeed_config" in recipe:
            file = tmp_path_factory.mktemp("deepspeed") / "ds.json"
            file.write_text(json.dumps(recipe["deepspeed_config"]))
            recipe["deepspeed_config"] = str(file)
        return capture(job(recipe), MODEL, RANKS)

    return of


def held(trace: Trace, place: str) -> dict[str, float]:
    """What `place` holds after the last step: bytes per parameter of the model, by category, none below 0.005."""
    births = trace.select("alloc")
    births = births[trace.instructions["phase"][births] != PHASE["save"]]  # what saving gathers stands until the collector runs
    alive = set(trace.instructions["target"][births]) - set(trace.instructions["target"][trace.select("free")])
    total: Counter[str] = Counter()
    for storage in alive:
        if trace.storages["place"][storage] == PLACE[place]:
            total[CATEGORIES[trace.storages["category"][storage]]] += int(trace.storages["nbytes"][storage])
    per_parameter = {category: nbytes / trace.header.parameters for category, nbytes in total.items()}
    return {category: value for category, value in per_parameter.items() if value >= 0.005}


def rows(trace: Trace, kind: str, op: str = "", step: int = 1) -> Iterator[int]:
    """Instructions of `kind` in `step` whose operator's name contains `op`."""
    for row in trace.select(kind):
        if trace.instructions["step"][row] == step and op in trace.header.ops[trace.instructions["op"][row]]:
            yield int(row)


def moved(trace: Trace, kind: str, op: str = "", step: int = 1) -> float:
    """Bytes of those instructions, per parameter of the model."""
    return sum(int(trace.instructions["nbytes"][row]) for row in rows(trace, kind, op, step)) / trace.header.parameters


def touched(trace: Trace, at: list[int], write: int) -> float:
    """Bytes that the instructions `at` read (0) or write (1), per parameter of the model."""
    chosen = np.isin(trace.operands["instruction"], at) & (trace.operands["write"] == write)
    return float(trace.operands["nbytes"][chosen].sum()) / trace.header.parameters


def close(**expected: float) -> Any:
    """Equal to within the padding and the norms of a small model."""
    return pytest.approx(expected, rel=0.02, abs=0.006)


STATES = 12 / RANKS  # fp32 master weights, momentum and variance
HALF = 2 / RANKS  # one 16-bit copy, partitioned


@pytest.mark.parametrize(
    ("name", "weights", "gradients"),
    [("zero-1, own JSON", 2, 0), ("zero-2", 2, 0), ("zero-3", HALF, HALF)],
)
def test_the_gpu_holds_between_steps_what_the_paper_says(seen: Callable[[str], Trace], name: str, weights: float, gradients: float) -> None:
    gpu = held(seen(name), "gpu")
    bucket = gpu.pop("communication", 0.0)  # ZeRO-3 keeps its reduction bucket
    assert gpu == close(weights=weights, optimizer=STATES, **({"gradients": gradients} if gradients else {}))
    assert bucket == pytest.approx(2 * 2048**2 / seen(name).header.parameters, rel=0.02) or name != "zero-3"


def test_offload_leaves_the_gpu_its_16_bit_weights_and_the_host_the_rest(seen: Callable[[str], Trace]) -> None:
    trace = seen("zero-2, offload")
    assert held(trace, "gpu")["weights"] == pytest.approx(2, rel=0.02)
    assert "optimizer" not in held(trace, "gpu")
    assert held(trace, "host") == close(optimizer=8 / RANKS)  # momentum and variance are plain memory
    pinned = held(trace, "pinned")
    assert {name: pinned[name] for name in ("optimizer", "weights")} == close(optimizer=4 / RANKS, weights=HALF)
    # In 32 bits for the optimizer, and of the earlier micro-steps in 16: of every parameter that this rank has a part of.
    assert pinned["gradients"] > 4 / RANKS + HALF


def test_offload_of_everything_empties_the_gpu(seen: Callable[[str], Trace]) -> None:
    trace = seen("zero-3, offload")
    assert set(held(trace, "gpu")) == {"communication"}
    assert held(trace, "host") == close(optimizer=STATES)
    assert held(trace, "pinned") == close(weights=HALF, gradients=HALF + 4 / RANKS)  # reduced ones in 16 bits, and in 32 for the optimizer


def test_nvme_holds_weights_gradients_and_states(seen: Callable[[str], Trace]) -> None:
    trace = seen("zero-3, nvme")
    assert "optimizer" not in held(trace, "host") | held(trace, "pinned") | held(trace, "gpu")
    assert held(trace, "nvme")["optimizer"] == pytest.approx(STATES, rel=0.02)
    read, written = moved(trace, "host", "nvme.read"), moved(trace, "host", "nvme.write")
    assert read == pytest.approx(STATES + 4 / RANKS, rel=0.1)  # states, and the gradients as far as files hold them
    assert written == pytest.approx(STATES + 4 / RANKS, rel=0.1)
    assert list(rows(trace, "host", "nvme.wait"))


def test_quantised_weights_are_partitioned(seen: Callable[[str], Trace]) -> None:
    trace = seen("zero-3, qlora")
    head = 2 * 2 * 4096 * 2048  # embedding and head stay in 16 bits
    packed = (trace.header.parameters - head / 2) * 0.5 + head
    scales = 0.02 * trace.header.parameters  # of the constants, which are not partitioned
    assert held(trace, "gpu")["weights"] * trace.header.parameters == pytest.approx(packed / RANKS + scales, rel=0.1)
    assert trace.header.trained < trace.header.parameters / 50


def test_every_collective_is_among_all_ranks(seen: Callable[[str], Trace]) -> None:
    for name in RECIPES:
        trace = seen(name)
        assert set(trace.instructions["ranks"][trace.select("collective")]) == {RANKS}


@pytest.mark.parametrize("name", ["zero-1, own JSON", "zero-2", "zero-2, offload"])
def test_stages_1_and_2_reduce_gradients_then_gather_weights(seen: Callable[[str], Trace], name: str) -> None:
    trace = seen(name)
    # Stage 2 reduces in each micro-step (of four, three are captured); stage 1 in the last alone.
    times = 3 if name == "zero-2, offload" else 1
    assert moved(trace, "collective", "allreduce") == pytest.approx(2 * times, rel=0.02)
    assert moved(trace, "collective", "allgather") >= 2
    assert {int(trace.instructions["phase"][row]) for row in rows(trace, "collective", "allgather")} == {PHASE["optimizer"]}


def test_stage_3_gathers_for_each_pass_and_scatters_gradients(seen: Callable[[str], Trace]) -> None:
    trace = seen("zero-3, offload")
    assert moved(trace, "collective", "reduce_scatter") >= 2
    phases = {int(trace.instructions["phase"][row]) for row in rows(trace, "collective", "allgather") if trace.instructions["nbytes"][row] > 1e6}
    assert PHASE["forward"] in phases
    assert moved(trace, "collective", "allgather", step=0) >= 2 * 2  # while the order of modules is learnt nothing is kept: forward and backward


def test_overlapped_communication_runs_on_streams_of_its_own(seen: Callable[[str], Trace]) -> None:
    for name, op in (("zero-2", "allreduce"), ("zero-3", "reduce_scatter"), ("zero-3", "allgather")):
        trace = seen(name)
        large = [row for row in rows(trace, "collective", op) if trace.instructions["phase"][row] != PHASE["optimizer"]]
        large = [row for row in large if trace.instructions["nbytes"][row] > 1e6]
        streams = set(trace.instructions["stream"][large])
        assert large
        assert 0 not in streams
        recorded = set(trace.instructions["target"][trace.select("record")])
        waited = trace.select("wait")
        assert set(trace.instructions["target"][waited]) <= recorded
        assert len(set(trace.instructions["stream"][waited])) >= 2  # they wait for the compute stream, and it for them
        assert len(trace.select("record_stream")) > 0


@pytest.mark.parametrize("name", ["zero-2, offload", "zero-3, offload", "zero-3, nvme"])
def test_the_cpu_optimizer_passes_over_this_ranks_part_once_a_step(seen: Callable[[str], Trace], name: str) -> None:
    for step in (0, 1):
        at = list(rows(seen(name), "host", "deepspeed.cpu_adam", step))
        assert touched(seen(name), at, 0) == pytest.approx(16 / RANKS, rel=0.01)
        assert touched(seen(name), at, 1) == pytest.approx(12 / RANKS, rel=0.01)


def test_the_users_fused_adam_is_one_kernel_over_this_ranks_part(seen: Callable[[str], Trace]) -> None:
    for step in (0, 1):
        at = list(rows(seen("zero-1, own JSON"), "kernel", "deepspeed.fused_adam", step))
        assert touched(seen("zero-1, own JSON"), at, 1) == pytest.approx(12 / RANKS, rel=0.01)
    assert seen("zero-1, own JSON").header.repeat == 6  # of eight micro-steps three are captured


def test_every_step_in_fp16_is_taken(seen: Callable[[str], Trace]) -> None:
    for step in (0, 1):
        assert list(rows(seen("zero-2"), "kernel", "_foreach_addcdiv_", step))
        assert list(rows(seen("zero-2, offload"), "host", "deepspeed.cpu_adam", step))


def test_offload_copies_gradients_down_and_weights_up(seen: Callable[[str], Trace]) -> None:
    trace = seen("zero-3, offload")
    assert moved(trace, "copy_d2h") == pytest.approx((2 + 4) / RANKS, rel=0.05)  # reduced in 16 bits; then 32 for the optimizer
    assert moved(trace, "copy_h2d") >= 2 * HALF  # weights to be gathered; gradients, to be converted on the GPU
    assert moved(seen("zero-3"), "copy_d2h") < 0.01


def test_a_copy_that_is_gathered_ahead_lives_until_it_is_waited_for(seen: Callable[[str], Trace]) -> None:
    """As over NCCL, which keeps the tensors of an asynchronous collective: here nobody else holds the GPU's copy of an offloaded partition."""
    trace = seen("zero-3, offload")
    instructions, operands = trace.instructions, trace.operands
    freed = {int(instructions["target"][row]): int(row) for row in trace.select("free")}
    kernels = trace.select("kernel")
    sent = [row for row in rows(trace, "collective", "allgather") if instructions["flag"][row] and instructions["phase"][row] == PHASE["forward"]]
    beside = 0
    for row in sent:
        for storage in operands["storage"][(operands["instruction"] == row) & (operands["write"] == 0)]:
            end = freed.get(int(storage), row)
            beside += bool(((kernels > row) & (kernels < end)).any()) and trace.storages["place"][storage] == PLACE["gpu"]
    assert beside >= 2


def test_a_file_that_deepspeed_refuses_is_the_users_to_mend(tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text(json.dumps({"bf16": {"enabled": True}, "zero_optimization": {"stage": 3, "nonsense": 1}}))
    with pytest.raises(InputError, match=r"recipe\.deepspeed_config.*DeepSpeed refuses it.*nonsense"):
        capture(job({"deepspeed_config": str(file)}), MODEL, RANKS)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"bf16": {"enabled": True}, "gradient_accumulation_steps": 4}, r"gradient_accumulation_steps: 4: the Job says 1"),
        ({"bf16": {"enabled": True}, "train_batch_size": 7}, r"train_batch_size: 7: the Job says 8"),
        ({"fp16": {"enabled": True}}, r"trains in fp16.*bf16-mixed"),
        ({"bf16": {"enabled": True, "bf16_master_weights_and_grads": True}}, r"trains in bf16'.*bf16-mixed"),
        ({"bf16": True}, r"deepspeed_config\.bf16.*must be a JSON object"),
        ({"bf16": {"enabled": True}, "train_batch_size": [8]}, r"the Job says 8"),
        ({"bf16": {"enabled": True}, "aio": {"queue_depth": "auto"}}, r"deepspeed_config\.aio\.queue_depth.*nothing resolves this auto"),
        ({"bf16": {"enabled": True}, "optimizer": {"type": "Adam"}, "zero_optimization": {"stage": 0}}, None),
    ],
)
def test_a_file_that_contradicts_the_job_is_refused(tmp_path: Path, written: dict[str, Any], said: str | None) -> None:
    file = tmp_path / "ds.json"
    file.write_text(json.dumps(written))
    asked = job({"deepspeed_config": str(file)})

    def understand() -> dict[str, Any]:
        deepspeed_config.check(asked)
        return deepspeed_config.settings(asked, MODEL)

    if said is None:
        assert understand()["train_micro_batch_size_per_gpu"] == 1
        return
    with pytest.raises(InputError, match=said):
        understand()


def test_copies_cross_between_the_memories_that_they_name(seen: Callable[[str], Trace]) -> None:
    for name in RECIPES:
        trace = seen(name)
        for kind, on_gpu in (("copy_d2h", False), ("copy_h2d", True)):
            written = np.isin(trace.operands["instruction"], trace.select(kind)) & (trace.operands["write"] == 1)
            places = trace.storages["place"][trace.operands["storage"][written]]
            assert set(places == PLACE["gpu"]) <= {on_gpu}
