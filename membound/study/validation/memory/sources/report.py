"""A memory perspective: fine-tuning on HBM (Micron, 2024): Llama on Alpaca over an HGX H100. Neither micro-batch nor recomputation is stated."""

from __future__ import annotations

from typing import Any, Final

from membound.study.validation.memory.outcome import HOST, USED, Comparable, Outcome
from membound.study.validation.outcome import LeftOut, job
from membound.study.validation.rows import Row

_TIB: Final = 2.0**40
_UNIT: Final = "TB of memory modules: 32 x 64 GiB is printed as 2 TB, so TB is TiB; a share is of the modules' capacity"
_SETTINGS: Final = (
    "micro-batch 4, as in Stanford Alpaca's recipe; not stated, and host memory hardly depends on it",
    "no activation recomputation: the recipe has none",
)
_DIMMS: Final[dict[str, tuple[int, int]]] = {
    "64GB 2DPC": (64, 32),
    "96GB 1DPC": (96, 16),
    "96GB 2DPC": (96, 32),
    "3DS) 1DPC": (128, 16),
    "3DS) 2DPC": (128, 32),
}
_RESTATED: Final = {"fig25_host_memory_range": "Table 3 has the values", "min_host_ddr_per_gpu": "Table 3 has the values"}


def outcome(row: Row) -> Outcome:
    """What row `row` of the report becomes."""
    if row.metric in _RESTATED:
        return LeftOut(row, "restates other rows", _RESTATED[row.metric])
    if row.metric.startswith("paper_mem"):
        return LeftOut(row, "an estimate, no reading", "quoted from the QLoRA paper")
    if row.metric == "model_state_mem_no_opt_gb":
        return _alone(row)
    if row.metric == "hbm_capacity_util":
        if row.group == "seed-65b-qlora":
            return _qlora(row)
        return LeftOut(row, "a bound, no reading", row.unit)
    return _offloaded(row)


def _offloaded(row: Row) -> Comparable:
    size, count = next((shape for setup, shape in _DIMMS.items() if setup in row.notes), (64, 32))
    recipe = {"engine": "deepspeed", "zero_stage": 3, "offload": {"optimizer": "cpu", "params": "cpu"}, "precision": "bf16-mixed", "micro_batch": 4}
    verdict = row.metric == "host_oom"
    capacity = size * count * 2.0**30
    published = row.value * _TIB if row.metric == "host_ddr_used_peak" else row.value / 100 * capacity
    changes: dict[str, object] = {"host.dimms.capacity": size * 2.0**30, "host.dimms.count": count}
    return Comparable(
        row, job("llama-65b", row.seq_len or 256, 8, recipe), "hgx-h100", "report", HOST, None if verdict else published,
        fits=None, unit=_UNIT, settings=_SETTINGS, host_fits=not verdict, machine_changes=changes,
    )  # fmt: skip


def _alone(row: Row) -> Comparable:
    recipe: dict[str, Any] = {"precision": "bf16-mixed", "micro_batch": 1}
    settings = ("the least that could run: one GPU, micro-batch 1",)
    return Comparable(
        row, job("llama-7b", 512, 1, recipe), "h100-sxm", "report", USED, None, False, "verdict: more than one 80 GB GPU holds", settings
    )


def _qlora(row: Row) -> Comparable:
    recipe: dict[str, Any] = {
        "method": "qlora",
        "lora": {"rank": 64, "targets": "all-linear"},
        "engine": "ddp",
        "precision": "bf16",
        "micro_batch": 1,
    }
    settings = (
        "all data replicated on each GPU, without DeepSpeed: DDP; rank 64 on all linear layers as in the QLoRA paper",
        "micro-batch 1, recomputation",
    )
    asked = job("llama-65b", 256, 8, {**recipe, "recompute": "full"})
    return Comparable(row, asked, "hgx-h100", "report", USED, None, True, "verdict: it runs; 'fully utilized' is no reading", settings)
