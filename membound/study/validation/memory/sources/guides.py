"""PEFT's guides to DeepSpeed and FSDP, torchtune's README, and issue reports: few rows each."""

from __future__ import annotations

from typing import Any, Final

from membound.study.validation.memory.outcome import ACTIVE, HOST, USED, Comparable, Outcome
from membound.study.validation.outcome import GIB, LeftOut, job, known_machine, machine
from membound.study.validation.rows import Row

_PEFT_RECIPE: Final[dict[str, Any]] = {
    "lora": {"rank": 8, "alpha": 16, "dropout": 0.1, "targets": "all-linear"},
    "precision": "bf16-mixed",
    "recompute": "full",
}
_SMI: Final = "printed as GB beside a share of the card's nominal size; read as nvidia-smi's MiB over 1024"
_ROUNDED: Final = "printed with one or two digits, as TB or GB of 1e12 or 1e9 B"
_HOST_ONLY: Final = "micro-batch not stated: 1, which host memory hardly depends on"


def peft_docs(row: Row) -> Outcome:
    """docs/source/accelerate/{deepspeed,fsdp}.md: Llama-2-70B, ultrachat packed to 2048 tokens, FlashAttention-2."""
    if row.strategy.startswith("fsdp") and row.task.startswith("qlora"):
        return LeftOut(row, "the installed software does otherwise", "accelerate 1.15 holds all 4-bit weights on each GPU while FSDP2 shards them")
    assert row.seq_len is not None
    assert row.gpus is not None
    place = machine(row.gpu, row.gpus) or "hgx-a100-40gb"
    recipe = {**_PEFT_RECIPE, "method": row.task.split()[0], "micro_batch": row.micro_batch, "accumulation": row.accumulation}
    recipe |= {"engine": "deepspeed", "zero_stage": 3} if row.strategy == "zero3" else {"engine": "fsdp"}
    settings = ("readings of a screenshot while training, not a peak",)
    return Comparable(row, job("llama-2-70b", row.seq_len, row.gpus, recipe), place, "peft-docs", USED, row.value * GIB, True, _SMI, settings)


def torchtune(row: Row) -> Outcome:
    """README's ladder "Optimization flags": Llama-3.2-3B, each row one more flag than the last."""
    step = row.attention.partition("cumulative step ")[2]
    if row.group != "torchtune-ladder":
        return LeftOut(row, *_TORCHTUNE["unpacked" if row.group == "torchtune-old" else "table"])
    if step[:2] not in {"1:", "2:"}:
        return LeftOut(row, *_TORCHTUNE["unpacked" if step.startswith("0:") else "later"])
    assert row.seq_len is not None
    compiled = step.startswith("2:")
    recipe = {"precision": "bf16", "micro_batch": row.micro_batch, "max_grad_norm": 0, "kernels": "compile" if compiled else "eager"}
    settings = ["packed rows carry a block-diagonal mask there and none here"]
    if compiled:
        settings.append("torchtune compiles the loss as well as each layer")
    unit = "GiB, printed as GiB: get_memory_stats divides active_bytes.all.peak by 1024^3"
    place = known_machine(row.gpu, 1)
    asked = job("llama-3.2-3b", row.seq_len, 1, recipe)
    return Comparable(row, asked, place, "torchtune", ACTIVE, row.value * GIB, True, unit, tuple(settings))


_TORCHTUNE: Final = {
    "later": ("kernels not modelled", "chunked cross-entropy, and the flags that come after it in the ladder"),
    "table": ("settings not stated", "optimizer and recomputation, which differ from row to row"),
    "unpacked": ("length of rows not stated", "unpacked Alpaca: the peak is set by the longest batch met, which is not given"),
}


def offload(row: Row) -> Outcome:
    """Issue reports of ZeRO-3 with CPU offload."""
    known = _OFFLOAD.get(row.id)
    if known is None:
        return LeftOut(
            row,
            "settings not stated",
            "neither sequence length nor micro-batch; a user's estimate" if "needed" in row.metric else "sequence length, micro-batch",
        )
    model, place, changes, scale = known
    recipe: dict[str, Any] = {"engine": "deepspeed", "zero_stage": 3, "precision": "bf16-mixed", "micro_batch": row.micro_batch or 1}
    recipe["recompute"] = "full" if row.recompute.startswith("full") else "none"
    if "offload" in row.strategy:
        recipe["offload"] = {"optimizer": "cpu", "params": "cpu"}
    on_host = row.metric.startswith("host")
    verdict = row.metric.endswith("oom")
    return Comparable(
        row,
        job(model, row.seq_len or 2048, row.gpus or 8, recipe),
        place,
        "offload",
        HOST if on_host else USED,
        None if verdict else row.value * scale,
        fits=None if on_host else not verdict,
        unit=_ROUNDED,
        settings=(_HOST_ONLY,) if row.micro_batch is None else (),
        host_fits=(not verdict) if on_host else None,
        machine_changes=changes,
    )


# By row: model, machine, changes of the machine (host of the size that the report states), and bytes in the printed unit.
_OFFLOAD: Final[dict[str, tuple[str, str, dict[str, object], float]]] = {
    "OFFLOAD-005": ("llama-33b", "hgx-a100-80gb", {"host.dimms.capacity": 50e9, "host.dimms.count": 32}, 1e12),
    "OFFLOAD-007": ("llama-65b", "hgx-a100-80gb", {"host.dimms.capacity": 50e9, "host.dimms.count": 32}, 1e12),
    "OFFLOAD-008": ("llama-33b", "hgx-a100-40gb", {}, 1e12),
    "OFFLOAD-010": ("llama-3.1-70b", "hgx-h200", {}, 1e9),
    "OFFLOAD-011": ("llama-3.1-70b", "hgx-h200", {}, 1e9),
}
