"""Fused attention: published speeds of each kernel, what causal rows save, layouts, and every machine value the right way."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from membound.cost import attention, attention_table
from membound.cost.attention_backward import AttentionBackward
from membound.cost.attention_forward import AttentionForward
from membound.cost.law import Kernels, Priced, Shape
from membound.spec import catalogue
from membound.spec.machine import Gpu

GPUS = [name for name in catalogue.machines() if catalogue.machine(name).gpus == 1]
FORWARD = tuple(f"aten._scaled_dot_product_{kind}_attention.default" for kind in ("flash", "efficient", "cudnn"))
BACKWARD = tuple(f"aten._scaled_dot_product_{kind}_attention_backward.default" for kind in ("flash", "efficient", "cudnn"))
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
# FlashAttention-3 (arXiv 2407.08608), figures 5 and 6: TFLOP/s on an H100 SXM5, heads of 128 elements, 16,384 tokens, 16 heads.
PUBLISHED = {
    ("flash", "causal"): (191, 260, 298, 319, 333, 335),
    ("flash", "whole"): (309, 350, 362, 368, 370, 370),
    ("flash", "backward"): (214, 260, 291, 310, 318, 322),
    ("cudnn", "causal"): (315, 410, 484, 518, 529, 539),
    ("cudnn", "whole"): (497, 574, 617, 609, 600, 595),
    ("cudnn", "backward"): (305, 408, 465, 499, 518, 516),
}


def gpu(name: str) -> Gpu:
    return catalogue.machine(name).gpu


def kernels(op: str, batch: int, tokens: int, heads: int, width: int = 128, groups: int | None = None, causal: bool = False) -> Kernels:
    """One call on [B, H, T, D], its operands from HBM."""
    query: Shape = ("bfloat16", (batch, heads, tokens, width))
    key: Shape = ("bfloat16", (batch, groups or heads, tokens, width))
    backward = attention.is_backward(op)
    reads = (query, query, key, key, query) if backward else (query, key, key)
    writes = (query, key, key) if backward else (query,)
    read, written = (float(sum(2 * np.prod(sizes) for _, sizes in shapes)) for shapes in (reads, writes))
    flops = 4.0 * batch * heads * tokens**2 * width * (2.5 if backward else 1)
    one = [np.array([value]) for value in (flops, read, written, read + written)]
    return Kernels((op,), (reads,), (writes,), *one, flag=np.array([int(causal)]))


def price(call: Kernels, name: str) -> Priced:
    law = AttentionBackward() if attention.is_backward(call.op[0]) else AttentionForward()
    return law.price(call, gpu(name))


@pytest.mark.parametrize(("kind", "mode"), PUBLISHED)
def test_speeds_published_by_others_come_out(kind: str, mode: str) -> None:
    """They are measured on another card, with other numbers to multiply, and are not what the constants were chosen by."""
    suffix = "_backward" if mode == "backward" else ""
    op = f"aten._scaled_dot_product_{kind}_attention{suffix}.default"
    for tokens, published in zip(LENGTHS, PUBLISHED[kind, mode], strict=True):
        call = kernels(op, 16384 // tokens, tokens, 16, causal=mode == "causal")
        counted = call.flops[0] / (2 if mode == "causal" else 1)
        assert counted / price(call, "h100-sxm").seconds[0] / 1e12 == pytest.approx(published, rel=0.16)


@pytest.mark.parametrize("name", GPUS)
@pytest.mark.parametrize("op", FORWARD + BACKWARD)
def test_every_kernel_has_a_time_on_every_gpu_and_its_shares_add_up(op: str, name: str) -> None:
    found = price(kernels(op, 4, 512, 32), name)
    assert found.seconds[0] > 0
    assert found.compute[0] + found.memory[0] + found.fixed[0] == pytest.approx(1)
    assert min(found.compute[0], found.memory[0], found.fixed[0]) >= 0


@pytest.mark.parametrize("op", FORWARD + BACKWARD)
def test_exactly_one_law_knows_it(op: str) -> None:
    assert AttentionForward().knows(op) == (op in FORWARD)
    assert AttentionBackward().knows(op) == (op in BACKWARD)


@pytest.mark.parametrize("op", ["aten.mm.default", "aten._softmax.default", "aten.native_layer_norm_backward.default"])
def test_nothing_else_is_attention(op: str) -> None:
    assert not AttentionForward().knows(op)
    assert not AttentionBackward().knows(op)


@pytest.mark.parametrize("op", FORWARD + BACKWARD)
def test_causal_rows_cost_somewhat_more_than_half(op: str) -> None:
    whole, causal = (price(kernels(op, 2, 4096, 32, causal=flag), "h100-sxm").seconds[0] for flag in (False, True))
    assert 0.5 < causal / whole < 0.68


@pytest.mark.parametrize("op", FORWARD + BACKWARD)
@pytest.mark.parametrize("name", GPUS)
def test_more_of_anything_is_never_slower(op: str, name: str) -> None:
    of, call = gpu(name), kernels(op, 4, 512, 32)
    law = AttentionBackward() if attention.is_backward(op) else AttentionForward()
    peaks = of.peaks.model_copy(update={"bf16": 2 * (of.peaks.bf16 or of.peaks.fp32), "fp32": 2 * of.peaks.fp32})
    faster = of.model_copy(update={"peaks": peaks})
    wider = of.model_copy(update={"hbm": of.hbm.model_copy(update={"clock": 2 * of.hbm.clock})})
    now = law.price(call, of).seconds[0]
    assert law.price(call, faster).seconds[0] <= now
    assert law.price(call, wider).seconds[0] <= now


def test_a_longer_row_costs_more_and_twice_the_batch_about_twice() -> None:
    op = FORWARD[0]
    short, long = (price(kernels(op, 4, tokens, 32), "h200").seconds[0] for tokens in (1024, 1152))
    assert short < long
    few, many = (price(kernels(op, batch, 4096, 32), "h200").seconds[0] for batch in (4, 8))
    assert many / few == pytest.approx(2, rel=0.05)


def test_one_head_cannot_fill_the_gpu() -> None:
    one, many = (price(kernels(FORWARD[0], 1, 1024, heads), "h100-sxm").seconds[0] for heads in (1, 64))
    assert many < 10 * one


def test_shared_keys_save_bytes_not_arithmetic() -> None:
    full, grouped = (price(kernels(FORWARD[0], 2, 4096, 32, groups=groups), "h100-sxm") for groups in (32, 8))
    assert 0.95 < grouped.seconds[0] / full.seconds[0] <= 1
    assert grouped.memory[0] < full.memory[0]


def test_the_flash_attn_package_is_the_same_kernel_in_another_layout() -> None:
    """[B, T, H, D]."""
    pytorch = kernels(FORWARD[0], 4, 2048, 32, causal=True)
    by_rows: Shape = ("bfloat16", (4, 2048, 32, 128))
    package = Kernels(
        ("flash_attn._flash_attn_forward.default",), ((by_rows,) * 3,), ((by_rows,),), pytorch.flops, pytorch.hbm_read, pytorch.hbm_written,
        pytorch.touched, pytorch.flag,
    )  # fmt: skip
    assert AttentionForward().knows(package.op[0])
    assert price(package, "h100-sxm").seconds[0] == pytest.approx(price(pytorch, "h100-sxm").seconds[0])


def test_rows_end_to_end_are_as_many_short_ones() -> None:
    """Eight rows of 512 tokens in one tensor, [tokens, H, D]."""
    padded = kernels(FORWARD[0], 8, 512, 32, causal=True)
    packed: Shape = ("bfloat16", (8 * 512, 32, 128))
    varlen = Kernels(
        ("flash_attn._flash_attn_varlen_forward.default",), ((packed,) * 3,), ((packed,),), padded.flops, padded.hbm_read, padded.hbm_written,
        padded.touched, padded.flag,
    )  # fmt: skip
    assert price(varlen, "h100-sxm").seconds[0] == pytest.approx(price(padded, "h100-sxm").seconds[0])


@pytest.mark.parametrize("board", list(attention_table.SPEEDS))
def test_measured_serving_attention_agrees_where_the_kernel_dominates(board: str) -> None:
    """Long rows, where writing the cache is a small part: the law's kernel alone is near the table, shape by shape."""
    rows = attention_table.measured(board, 128)
    alone = attention_table.kernel(board, rows)
    chosen = (alone > 0.8 * rows.seconds) & (rows.tokens >= 2048)
    assert chosen.sum() > 500
    assert np.median(np.abs(attention_table.call(board, rows) / rows.seconds - 1)[chosen]) < 0.12


def test_fp32_runs_on_the_tensor_cores_where_they_multiply_tf32() -> None:
    """Three products of half the rate, 1.8 times as well used as 16-bit ones were measured to be: faster than outside the tensor cores."""
    call = kernels(FORWARD[1], 4, 4096, 32)
    wide = replace(call, reads=tuple(tuple(("float32", sizes) for _, sizes in shapes) for shapes in call.reads))
    for name in ("h100-sxm", "a100-sxm-80gb"):
        ratio = price(wide, name).seconds[0] / price(call, name).seconds[0]
        assert ratio == pytest.approx(6.0 / 1.8, rel=0.02)


KINDS = Path(__file__).resolve().parents[2] / "validation/kernels/h200-kinds.csv"


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize(("dtype", "dropout"), [("float32", False), ("bfloat16", False), ("bfloat16", True)])
def test_other_kinds_of_the_memory_efficient_kernel_take_what_they_were_measured_to(dtype: str, dropout: bool, backward: bool) -> None:
    """Rows of 512 tokens and more, one by one, on an H200."""
    ratios = []
    with KINDS.open(newline="") as file:
        for row in csv.DictReader(file):
            batch, tokens, *_ = sizes = [int(size) for size in row["shapes"].split(",") if size] if row["family"] == "attention-kinds" else [0, 0]
            if tokens < 512 or row["dtype"] != dtype or ("dropout" in row["notes"]) != dropout or ("backward" in row["op"]) != backward:
                continue
            _, _, heads, _, width = sizes
            call = kernels(row["op"], batch, tokens, heads, width)
            like = [(dtype, shape) for _, shape in call.reads[0]]
            mask = [(dtype, (batch, heads, tokens, tokens))] if "bias" in row["notes"] else []
            place = 4 if backward else 3
            reads = ((*like[:place], *mask, *like[place:]),)
            flag = np.array([int(row["notes"].startswith("causal")) + 2 * dropout])
            found = price(replace(call, reads=reads, flag=flag), "h200").seconds[0]
            ratios.append(found / float(row["seconds_warm"]))
    assert len(ratios) >= 16
    assert np.median(ratios) == pytest.approx(1.0, abs=0.15)
    assert 0.6 < min(ratios) <= max(ratios) < 1.5
