"""Matmuls: measured points come back, neighbours predict each other, and every machine value moves the time the right way."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from membound.cost import calibration
from membound.cost.batched_matmul import BatchedMatmul
from membound.cost.law import Array, Kernels, Priced
from membound.cost.matmul import Matmul
from membound.cost.neighbours import Table
from membound.cost.tiles import Rates, tiled
from membound.errors import InputError
from membound.spec import catalogue
from membound.spec.machine import Gpu
from membound.study.calibration.leave_one_out import TARGETS, run

GPUS = [name for name in catalogue.machines() if catalogue.machine(name).gpus == 1]
SHAPES = ((2048, 4096, 4096), (512, 11008, 4096), (11008, 4096, 760), (4, 4096, 4096), (8192, 32000, 4096), (2048, 16, 4096), (1, 1, 1))


def products(shapes: Sequence[tuple[int, int, int]], dtype: str = "bfloat16", op: str = "aten.mm.default") -> Kernels:
    """Products of [m, k] by [k, n] whose operands all come from HBM."""
    m, n, k = np.array(shapes, np.float64).T
    size = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}[dtype]
    reads = tuple(((dtype, (m, k)), (dtype, (k, n))) for m, n, k in shapes)
    writes = tuple(((dtype, (m, n)),) for m, n, _ in shapes)
    read, written = size * (m * k + k * n), size * m * n
    return Kernels((op,) * len(shapes), reads, writes, 2 * m * n * k, read, written, read + written)


def changed(gpu: Gpu, **peaks: float) -> Gpu:
    return gpu.model_copy(update={"peaks": gpu.peaks.model_copy(update=peaks)})


def clocked(gpu: Gpu, hertz: float) -> Gpu:
    return gpu.model_copy(update={"hbm": gpu.hbm.model_copy(update={"clock": hertz})})


def gpu(name: str) -> Gpu:
    return catalogue.machine(name).gpu


def shares_add_up(priced: Priced) -> None:
    np.testing.assert_allclose(priced.compute + priced.memory + priced.fixed, 1.0)
    assert (np.stack([priced.seconds, priced.band]) > 0).all()
    assert (np.stack([priced.compute, priced.memory, priced.fixed]) >= 0).all()


@pytest.mark.parametrize("name", GPUS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_every_gpu_and_type_has_a_time(name: str, dtype: str) -> None:
    shares_add_up(Matmul().price(products(SHAPES, dtype), gpu(name)))


@pytest.mark.parametrize("name", GPUS)
def test_no_matmul_beats_the_data_sheet_by_more_than_its_clocks_allow(name: str) -> None:
    of = gpu(name)
    kernels = products(SHAPES)
    bound = np.maximum(kernels.flops / Rates.of(of, "bf16").arithmetic, kernels.hbm / of.hbm.bandwidth)
    # Peaks are stated at the boost clock; light kernels run at the highest one, and the tables' small operands stay in the L2.
    assert (Matmul().price(kernels, of).seconds > bound / 1.25).all()


@pytest.mark.parametrize("name", GPUS)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_more_of_anything_is_never_slower(name: str, dtype: str) -> None:
    of, kernels = gpu(name), products(SHAPES, dtype)
    now = Matmul().price(kernels, of).seconds
    faster = changed(of, bf16=2 * (of.peaks.bf16 or 0) or 1e15, fp16=2 * (of.peaks.fp16 or 0) or 1e15, fp32=2 * of.peaks.fp32)
    assert (Matmul().price(kernels, faster).seconds <= now).all()
    assert (Matmul().price(kernels, clocked(of, 1.5 * of.hbm.clock)).seconds <= now).all()


@pytest.mark.parametrize("board", ["a100", "h100", "h200", "b200", "l40s"])
def test_a_measured_point_comes_back_somewhat_slower(board: str) -> None:
    """Training's numbers draw more power than the table's: up to 9 %; and a point is smoothed with its neighbours."""
    data = calibration.archive("matmul")
    m, n, k = (np.asarray(data[axis], np.float64) for axis in "mnk")
    at = tuple(int(np.searchsorted(axis, value)) for axis, value in ((m, 2048), (n, 4096), (k, 4096)))
    measured = calibration.decode(np.asarray(data[board], np.int16))[at]
    catalogued = {"a100": "a100-sxm-80gb", "h100": "h100-sxm"}.get(board, board)
    found = Matmul().price(products([(2048, 4096, 4096)]), gpu(catalogued)).seconds[0]
    assert 0.97 < found / measured < 1.16


def test_slower_hbm_costs_what_leans_on_it() -> None:
    """An H100 at 1593 MHz: a product with four rows is slowed by most of 2619 / 1593, a square one hardly."""
    fast, slow = gpu("h100-sxm"), clocked(gpu("h100-sxm"), 1593e6)
    thin, square = Matmul().price(products([(4, 8192, 8192), (8192, 8192, 8192)]), slow).seconds / (
        Matmul().price(products([(4, 8192, 8192), (8192, 8192, 8192)]), fast).seconds
    )
    assert 1.45 < thin < 2619 / 1593
    assert 1.0 <= square < 1.02


def test_a_gpu_that_was_not_measured_takes_a_neighbours_efficiency_and_a_wider_band() -> None:
    assert calibration.basis(gpu("h100-sxm")) == calibration.Basis("h100", own=True)
    assert calibration.basis(gpu("h100-pcie")) == calibration.Basis("h100", own=False)
    assert calibration.basis(gpu("a100-pcie-40gb")).gpu == calibration.basis(gpu("rtx-3090")).gpu == "a100"
    own, other = (Matmul().price(products(SHAPES), gpu(name)).band for name in ("h100-sxm", "h100-pcie"))
    assert (own < other).all()


def test_fp32_runs_outside_the_tensor_cores() -> None:
    """PyTorch's default: no TF32."""
    of = gpu("h100-sxm")
    kernels = products([(8192, 8192, 8192)], "float32")
    rate = kernels.flops / Matmul().price(kernels, of).seconds
    assert 0.5 * of.peaks.fp32 < rate[0] < of.peaks.fp32


@pytest.mark.parametrize(("shape", "microseconds"), [((2048, 50257, 1600), 3506), ((8192, 1600, 50257), 10007), ((50257, 1600, 2048), 2360)])
def test_a_vocabulary_that_is_no_multiple_of_anything_is_slow(shape: tuple[int, int, int], microseconds: float) -> None:
    """GPT-2's: forward, dgrad and wgrad of its head as we measured them on an H100 (validation/kernels/h100-sxm.csv)."""
    assert Matmul().price(products([shape]), gpu("h100-sxm")).seconds[0] * 1e6 == pytest.approx(microseconds, rel=0.12)


def test_an_odd_number_of_tokens_is_not_slow() -> None:
    odd, even = Matmul().price(products([(761, 4096, 4096), (760, 4096, 4096)]), gpu("h100-sxm")).seconds
    assert odd == pytest.approx(even, rel=0.05)


def test_operands_that_the_l2_holds_cost_less() -> None:
    cold = products([(4, 4096, 4096)])
    warm = Kernels(cold.op, cold.reads, cold.writes, cold.flops, cold.hbm_read * 0.1, cold.hbm_written, cold.touched)
    assert Matmul().price(warm, gpu("h100-sxm")).seconds[0] < 0.7 * Matmul().price(cold, gpu("h100-sxm")).seconds[0]


def test_a_bias_and_leading_dimensions_change_nothing() -> None:
    """addmm reads the bias first; linear keeps batch and tokens apart."""
    plain = products([(2048, 4096, 1024)])
    with_bias = Kernels(
        ("aten.addmm.default",),
        ((("bfloat16", (4096,)), *plain.reads[0]),),
        plain.writes,
        plain.flops,
        plain.hbm_read,
        plain.hbm_written,
        plain.touched,
    )
    batched = ((("bfloat16", (4, 512, 4096)),),)
    linear = Kernels(
        ("aten.linear.default",), ((("bfloat16", (4, 512, 1024)), ("bfloat16", (4096, 1024))),), batched, 0 * plain.flops, plain.hbm_read,
        plain.hbm_written, plain.touched,
    )  # fmt: skip
    times = [Matmul().price(kernels, gpu("h200")).seconds[0] for kernels in (plain, with_bias, linear)]
    assert times == pytest.approx([times[0]] * 3)


@pytest.mark.parametrize("op", ["aten.mm.default", "aten.mm.out", "aten.addmm.default", "aten.addmm_.default", "aten.linear.default"])
def test_knows_products_of_two_matrices(op: str) -> None:
    assert Matmul().knows(op)
    assert not BatchedMatmul().knows(op)


@pytest.mark.parametrize("op", ["aten.bmm.default", "aten.baddbmm.default", "aten._grouped_mm.default"])
def test_knows_batches_of_products(op: str) -> None:
    assert BatchedMatmul().knows(op)
    assert not Matmul().knows(op)


def batch(count: int, m: int, n: int, k: int) -> Kernels:
    reads = ((("bfloat16", (count, m, k)), ("bfloat16", (count, k, n))),)
    read, written = np.array([2.0 * count * (m * k + k * n)]), np.array([2.0 * count * m * n])
    flops = np.array([2.0 * count * m * n * k])
    return Kernels(("aten.bmm.default",), reads, ((("bfloat16", (count, m, n)),),), flops, read, written, read + written)


def test_a_batch_of_one_is_a_matmul() -> None:
    one = BatchedMatmul().price(batch(1, 2048, 4096, 1024), gpu("h100-sxm")).seconds
    np.testing.assert_allclose(one, Matmul().price(products([(2048, 4096, 1024)]), gpu("h100-sxm")).seconds)


@pytest.mark.parametrize("name", GPUS)
def test_a_batch_fills_the_gpu_better_than_one_after_the_other(name: str) -> None:
    together = BatchedMatmul().price(batch(128, 512, 512, 128), gpu(name))
    shares_add_up(together)
    single = BatchedMatmul().price(batch(1, 512, 512, 128), gpu(name)).seconds[0]
    assert single < together.seconds[0] < 128 * single


def test_groups_of_experts_share_the_rows() -> None:
    """[tokens, k] by [experts, k, n]: more experts, more weights to read, and tiles less full."""
    tokens, k, n = 4096, 2048, 1024

    def grouped(experts: int) -> Array:
        reads = ((("bfloat16", (tokens, k)), ("bfloat16", (experts, k, n))),)
        read, written = np.array([2.0 * (tokens * k + experts * k * n)]), np.array([2.0 * tokens * n])
        flops = np.array([2.0 * tokens * n * k])
        kernels = Kernels(("aten._grouped_mm.default",), reads, ((("bfloat16", (tokens, n)),),), flops, read, written, read + written)
        return BatchedMatmul().price(kernels, gpu("h100-sxm")).seconds

    assert grouped(4) < grouped(64)


@pytest.mark.parametrize("name", GPUS)
def test_groups_run_in_the_type_of_their_matrices(name: str) -> None:
    """`_grouped_mm` reads where each group ends, in int32, after its matrices."""
    experts, rows, k, n = 8, 2048, 4096, 14336
    plain = batch(experts, rows, n, k)
    reads = (("bfloat16", (experts * rows, k)), ("bfloat16", (experts, k, n)), ("int32", (experts,)))
    writes = (("bfloat16", (experts * rows, n)),)
    groups = dataclasses.replace(plain, op=("aten._grouped_mm.default",), reads=(reads,), writes=(writes,))
    np.testing.assert_allclose(BatchedMatmul().price(groups, gpu(name)).seconds, BatchedMatmul().price(plain, gpu(name)).seconds)
    np.testing.assert_allclose(BatchedMatmul().beyond(groups, gpu(name))[0], BatchedMatmul().beyond(plain, gpu(name))[0])


def test_waves_step_where_the_sms_run_out() -> None:
    """132 tiles of 128 x 256 are one wave of an H100; one row of tiles more is another."""
    rates = Rates.of(gpu("h100-sxm"), "bf16")
    full, over = tiled(np.array([132 * 128.0, 133 * 128.0]), np.full(2, 256.0), np.full(2, 16384.0), np.ones(2), rates)
    assert over > 1.03 * full


def test_nothing_to_price_is_no_error() -> None:
    nothing = np.zeros(0)
    assert len(Matmul().price(Kernels((), (), (), nothing, nothing, nothing, nothing), gpu("h100-sxm")).seconds) == 0


def test_a_type_that_no_gpu_multiplies_names_the_field() -> None:
    with pytest.raises(InputError, match=r"machine.gpu.peaks: 'bf16'"):
        Rates.of(gpu("h100-sxm").model_copy(update={"peaks": gpu("h100-sxm").peaks.model_copy(update={"bf16": None})}), "bf16")


def test_a_table_is_exact_at_its_points_and_flat_beyond() -> None:
    table = Table((np.array([1.0, 2.0, 8.0]), np.array([1.0, 4.0])), np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]))
    np.testing.assert_allclose(table.at(np.array([2.0, 100.0, 0.1, 4.0]), np.array([4.0, 9.0, 1.0, 2.0])), [3.0, 5.0, 0.0, 3.5])


def test_a_hole_is_filled_from_its_neighbours() -> None:
    table = Table((np.array([1.0, 2.0, 4.0]),), np.array([1.0, np.nan, 3.0]))
    np.testing.assert_allclose(table.filled().values, [1.0, 2.0, 3.0])
    np.testing.assert_allclose(table.without_each((0,)), [np.nan, 2.0, np.nan])


def test_times_are_kept_to_a_tenth_of_a_percent() -> None:
    seconds = np.array([1e-6, 3.3e-4, 2.0, np.nan])
    np.testing.assert_allclose(calibration.decode(calibration.encode(seconds)), seconds, rtol=1e-3)


def test_left_out_points_are_predicted_within_the_targets() -> None:
    """The study's own figures: median over all GPUs' kernels, each predicted from the others; and H100 -> H200 in every bin within 3 points."""
    result = run()
    for law, target in TARGETS.items():
        errors = result.of(law, "point")
        medians = [error.median for error in errors]
        assert len(errors) == 5
        assert np.average(medians, weights=[error.count for error in errors]) < target
    assert {bin.count > 0 for bin in result.bins} == {True}
    assert max(abs(bin.predicted - bin.measured) for bin in result.bins) < 0.03
