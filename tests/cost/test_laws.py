"""What holds for every law of kernels on every GPU of the catalogue: finite times, shares that add up, nothing slower for a faster part."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from membound.cost.convolution import Convolution
from membound.cost.dtypes import element_size
from membound.cost.embedding import Embedding
from membound.cost.law import Kernels, Law, Priced, Shape, soft_roofline
from membound.cost.laws import LAWS, law_of
from membound.cost.optimizer import Optimizer
from membound.cost.profile import profile_of
from membound.cost.recurrent import Recurrent
from membound.cost.resources import RESOURCES, ROW, spent
from membound.spec import catalogue
from membound.spec.machine import Gpu

GPUS = sorted({catalogue.machine(name).gpu.name: catalogue.machine(name).gpu for name in catalogue.machines()}.items())
gpus = pytest.mark.parametrize("gpu", [gpu for _, gpu in GPUS], ids=[name for name, _ in GPUS])

BF16, FP32, IDS = "bfloat16", "float32", "int64"
SQUARE: Shape = (BF16, (4096, 4096))
HEADS: Shape = (BF16, (4, 32, 512, 128))
IMAGES: Shape = (BF16, (32, 64, 56, 56))
SMALLER, LARGER = (FP32, (32, 64, 28, 28)), (FP32, (32, 64, 56, 56))
SEQUENCE, STATE = (FP32, (64, 128, 512)), (FP32, (2, 64, 512))

# Operator, what it reads and writes, its operations: at least one for every law.
Call = tuple[str, Sequence[Shape], Sequence[Shape], float]
CALLS: tuple[Call, ...] = (
    ("bitsandbytes.gemm_4bit.default", ((BF16, (2048, 4096)), ("uint8", (8388608, 1))), ((BF16, (2048, 4096)),), 6.9e10),
    ("aten.mm.default", (SQUARE, SQUARE), (SQUARE,), 2 * 4096.0**3),
    ("aten.bmm.default", ((BF16, (32, 512, 128)), (BF16, (32, 128, 512))), ((BF16, (32, 512, 512)),), 2 * 32 * 512.0**2 * 128),
    ("aten._scaled_dot_product_flash_attention.default", (HEADS,) * 3, (HEADS,), 4 * 4 * 32 * 512.0**2 * 128),
    ("aten._scaled_dot_product_flash_attention_backward.default", (HEADS,) * 5, (HEADS,) * 3, 10 * 4 * 32 * 512.0**2 * 128),
    ("aten.convolution.default", (IMAGES, (BF16, (256, 64, 1, 1))), ((BF16, (32, 256, 56, 56)),), 3.3e9),
    ("aten.convolution_backward.default", (SMALLER, LARGER, (FP32, (64, 64, 3, 3))), (LARGER,), 7e9),
    ("aten.convolution.default", ((BF16, (8, 3, 224, 224)), (BF16, (64, 3, 7, 7))), ((BF16, (8, 64, 112, 112)),), 1.9e9),
    ("aten.convolution.default", ((FP32, (8, 3, 224, 224)), (FP32, (64, 3, 7, 7))), ((FP32, (8, 64, 112, 112)),), 1.9e9),
    ("aten._cudnn_rnn.default", (SEQUENCE, STATE, STATE), (SEQUENCE,), 6.9e10),
    ("aten._cudnn_rnn_backward.default", (SEQUENCE, STATE, STATE), (SEQUENCE,), 1.4e11),
    ("membound.nms.default", ((FP32, (8819, 4)), (FP32, (8819,))), (("bool", (8819,)),), 0.0),
    ("membound.roi_align.default", ((FP32, (4, 256, 100, 168)), (FP32, (2048, 5))), ((FP32, (2048, 256, 7, 7)),), 0.0),
    ("membound.roi_align_backward.default", ((FP32, (2048, 256, 7, 7)), (FP32, (2048, 5))), ((FP32, (4, 256, 100, 168)),), 0.0),
    ("bitsandbytes.dequantize_4bit.default", (("uint8", (8388608, 1)),), (SQUARE,), 1.7e7),
    ("aten._foreach_addcdiv_.ScalarList", ((FP32, (65536,)),) * 600, ((FP32, (65536,)),) * 200, 4e7),
    ("aten._foreach_norm.Scalar", ((BF16, (1000,)),) * 200, ((BF16, ()),) * 200, 2e5),
    ("aten._fused_adamw_.default", ((FP32, (1 << 20,)),) * 40, ((FP32, (1 << 20,)),) * 30, 1e8),
    ("aten._softmax.default", (HEADS,), (HEADS,), 4e7),
    ("aten._softmax_backward_data.default", (HEADS, HEADS), (HEADS,), 4e7),
    ("aten._log_softmax.default", ((FP32, (2048, 32000)),), ((FP32, (2048, 32000)),), 3e8),
    ("aten._log_softmax_backward_data.default", ((FP32, (2048, 32000)),) * 2, ((FP32, (2048, 32000)),), 3e8),
    ("aten.nll_loss_forward.default", ((FP32, (2048, 32000)), (IDS, (2048,))), ((FP32, ()),), 2e3),
    ("aten.nll_loss_backward.default", ((FP32, ()), (IDS, (2048,))), ((FP32, (2048, 32000)),), 2e3),
    ("aten.embedding.default", ((BF16, (32000, 4096)), (IDS, (4, 512))), ((BF16, (4, 512, 4096)),), 0.0),
    ("aten.embedding_dense_backward.default", ((BF16, (4, 512, 4096)), (IDS, (4, 512))), ((BF16, (32000, 4096)),), 0.0),
    ("aten.index_put_.default", (SQUARE, (IDS, (4096,)), SQUARE), (SQUARE,), 0.0),
    ("aten.index_add_.default", (SQUARE, (IDS, (4096,)), SQUARE), (SQUARE,), 0.0),
    ("aten.scatter_add_.default", (SQUARE, (IDS, (4096, 4096)), SQUARE), (SQUARE,), 0.0),
    ("aten.sort.default", ((FP32, (32, 32000)),), ((FP32, (32, 32000)), (IDS, (32, 32000))), 0.0),
    ("aten.topk.default", ((FP32, (8192, 64)),), ((FP32, (8192, 2)), (IDS, (8192, 2))), 0.0),
    ("aten.cumsum.default", ((FP32, (8192, 64)),), ((FP32, (8192, 64)),), 0.0),
    ("aten.sum.dim_IntList", (SQUARE,), ((BF16, (4096, 1)),), 1.7e7),
    ("aten.sum.dim_IntList", (SQUARE,), ((BF16, (4096,)),), 1.7e7),
    ("aten.native_layer_norm.default", (SQUARE, (BF16, (4096,))), (SQUARE,), 8e7),
    ("aten.native_layer_norm_backward.default", (SQUARE, SQUARE), (SQUARE,), 1.6e8),
    ("aten.cudnn_batch_norm.default", (IMAGES, (FP32, (64,))), (IMAGES,), 3e7),
    ("aten.cudnn_batch_norm_backward.default", (IMAGES, IMAGES), (IMAGES,), 3e7),
    ("aten.max_pool2d_with_indices.default", (IMAGES,), ((BF16, (32, 64, 28, 28)),), 0.0),
    ("aten.copy_.default", (SQUARE,), (SQUARE,), 0.0),
    ("aten._to_copy.default", (SQUARE,), ((FP32, (4096, 4096)),), 0.0),
    ("aten.zero_.default", (), (SQUARE,), 0.0),
    ("aten.add.Tensor", (SQUARE, SQUARE), (SQUARE,), 1.7e7),
    ("aten.mul.Tensor", (SQUARE, (FP32, (4096,))), ((FP32, (4096, 4096)),), 1.7e7),
    ("aten.native_dropout.default", (SQUARE,), (SQUARE, ("bool", (4096, 4096))), 1.7e7),
    ("somebody.own_kernel.default", (SQUARE, SQUARE), (SQUARE,), 1.7e7),
)  # fmt: skip


def nbytes(shapes: Sequence[Shape]) -> float:
    return float(sum(element_size(dtype) * np.prod(dims, dtype=np.float64) for dtype, dims in shapes))


def kernels(*calls: Call, cached: float = 0.0, even: bool = True) -> Kernels:
    """The kernels of `calls`, of whose operands a share `cached` is found in the L2."""
    ops, reads, writes, flops = zip(*calls, strict=True)
    read, written = (np.array([nbytes(shapes) for shapes in side]) for side in (reads, writes))
    return Kernels(
        tuple(ops), tuple(map(tuple, reads)), tuple(map(tuple, writes)), np.array(flops), (1 - cached) * read, (1 - cached) * written,
        read + written, even=np.full(len(calls), even),
    )  # fmt: skip


def priced(call: Call, gpu: Gpu, cached: float = 0.0, even: bool = True) -> Priced:
    return LAWS[law_of(call[0])].price(kernels(call, cached=cached, even=even), gpu)


def faster(gpu: Gpu, part: str, factor: float = 1.3) -> Gpu:
    """`gpu` with one of its rates larger."""
    if part == "hbm":
        return gpu.model_copy(update={"hbm": gpu.hbm.model_copy(update={"clock": gpu.hbm.clock * factor})})
    clock = gpu.clock.model_copy(update={name: getattr(gpu.clock, name) * factor for name in ("boost", "max")})
    peaks = gpu.peaks.model_copy(update={name: rate * factor for name, rate in gpu.peaks.model_dump().items() if isinstance(rate, float)})
    # A core clock moves the peaks too, which are stated at `boost`.
    return gpu.model_copy(update={"peaks": peaks} | ({"clock": clock} if part == "core" else {}))


def test_the_examples_meet_every_law() -> None:
    assert {law_of(call[0]) for call in CALLS} == set(range(len(LAWS)))


@pytest.mark.parametrize("law", LAWS[:-1], ids=lambda law: law.family)
def test_a_law_knows_its_own_operators_alone(law: Law) -> None:
    own = [call[0] for call in CALLS if LAWS[law_of(call[0])] is law]
    others = [call[0] for call in CALLS if LAWS[law_of(call[0])] is not law]
    assert own
    assert all(map(law.knows, own))
    assert not any(map(law.knows, others))


@gpus
@pytest.mark.parametrize(("cached", "even"), [(0.0, True), (0.6, False), (1.0, True)])
def test_times_are_finite_and_their_shares_add_up_to_the_whole(gpu: Gpu, cached: float, even: bool) -> None:
    for call in CALLS:
        found = priced(call, gpu, cached, even)
        shares = np.stack([found.compute, found.memory, found.fixed])
        assert np.isfinite(found.seconds).all(), call[0]
        assert (found.seconds > 0).all(), call[0]
        assert (shares > -1e-12).all(), call[0]
        np.testing.assert_allclose(shares.sum(axis=0), 1.0, err_msg=call[0])
        assert ((found.band > 0) & (found.band < 1)).all(), call[0]


@gpus
@pytest.mark.parametrize("part", ["hbm", "peaks", "core"])
@pytest.mark.parametrize("cached", [0.0, 0.6])
def test_nothing_gets_slower_where_a_part_gets_faster(gpu: Gpu, part: str, cached: float) -> None:
    for call in CALLS:
        assert (priced(call, faster(gpu, part), cached).seconds <= priced(call, gpu, cached).seconds * (1 + 1e-9)).all(), call[0]


@gpus
def test_the_shares_are_what_a_slightly_faster_part_saves(gpu: Gpu) -> None:
    step = 1e-4
    for call in CALLS:
        if LAWS[law_of(call[0])].family in {"quantised matmul", "matmul", "batched matmul", "attention forward", "attention backward"}:
            continue  # Tables of neighbours: their shares are tested with them.
        base, more = priced(call, gpu), priced(call, faster(gpu, "hbm", 1 + step))
        np.testing.assert_allclose((base.seconds - more.seconds) / base.seconds / step, base.memory, atol=2e-3, err_msg=call[0])


@gpus
def test_a_streaming_kernel_never_beats_its_hbm(gpu: Gpu) -> None:
    add = CALLS[-4]
    assert priced(add, gpu).seconds[0] > kernels(add).hbm[0] / gpu.hbm.bandwidth


@gpus
def test_many_kernels_at_once_are_priced_as_each_alone(gpu: Gpu) -> None:
    for law, calls in itertools.groupby(sorted(CALLS, key=lambda call: law_of(call[0])), key=lambda call: law_of(call[0])):
        chosen = list(calls)
        together = LAWS[law].price(kernels(*chosen), gpu).seconds
        np.testing.assert_allclose(together, [priced(call, gpu).seconds[0] for call in chosen])


def test_a_soft_roofline_lies_above_both_its_bounds_and_below_their_sum() -> None:
    compute, memory = np.array([1.0, 2.0, 5.0]), np.array([3.0, 2.0, 1.0])
    found = soft_roofline(compute, memory, np.full(3, 0.5), 4.0, 0.1)
    assert (found.seconds >= np.maximum(compute, memory) + 0.5).all()
    assert (found.seconds < compute + memory + 0.5).all()
    np.testing.assert_allclose(found.fixed, 0.5 / found.seconds)


def test_a_borrowed_profile_says_so() -> None:
    own, borrowed = (profile_of(catalogue.machine(name).gpu) for name in ("h100-sxm", "a100-sxm-80gb"))
    assert (own.borrowed, borrowed.borrowed, borrowed.gpu) == (False, True, "h100-sxm")


def test_parts_of_a_duration_add_up_to_row_0() -> None:
    found = spent(hbm=np.array([1.0, 2.0]), launch=np.array([3.0, 0.5]))
    assert found[0].tolist() == [4.0, 2.5]
    assert found[ROW["hbm"]].tolist() == [1.0, 2.0]
    assert len(found) == len(RESOURCES) + 1


class TestFamilies:
    """What a family's own reasoning says, on the GPU that it was measured on."""

    gpu = catalogue.machine("h100-sxm").gpu

    def seconds(self, law: Law, *calls: Call) -> list[float]:
        return law.price(kernels(*calls), self.gpu).seconds.tolist()

    def test_few_input_channels_leave_tensor_cores_idle(self) -> None:
        def layer(channels: int) -> Call:
            return ("aten.convolution.default", ((BF16, (32, channels, 56, 56)), (BF16, (128, channels, 3, 3))), (IMAGES,), 7e9)

        thin, wide = self.seconds(Convolution(), layer(3), layer(64))
        assert thin > 5 * wide

    def test_a_table_is_zeroed_before_its_rows_are_added(self) -> None:
        def backward(rows: int, tokens: int) -> Call:
            return ("aten.embedding_dense_backward.default", ((BF16, (tokens, 4096)), (IDS, (tokens,))), ((BF16, (rows, 4096)),), 0.0)

        small, rows, tokens, both = self.seconds(
            Embedding(), *(backward(*size) for size in ((32000, 512), (128000, 512), (32000, 8192), (128000, 8192)))
        )
        assert both == pytest.approx(rows + tokens - small, rel=1e-3)

    def test_a_list_of_small_tensors_costs_more_than_one_of_their_size(self) -> None:
        def scaled(count: int, each: int) -> Call:
            return ("aten._foreach_mul_.Scalar", ((FP32, (each,)),) * count, ((FP32, (each,)),) * count, 0.0)

        one, two_launches = self.seconds(Optimizer(), scaled(512, 65536), scaled(1024, 32768))
        assert two_launches == pytest.approx(one)  # twice as many launches, each half as long in its last blocks
        many, few = self.seconds(Optimizer(), scaled(1540, 65536), scaled(770, 131072))
        assert many > few

    def test_a_fused_optimizer_goes_through_one_list_and_a_single_tensor_through_itself(self) -> None:
        tensor: Shape = (FP32, (1 << 20,))
        call: Call = ("deepspeed.fused_adam", (tensor,) * 40, (tensor,) * 30, 0.0)
        single: Call = ("bitsandbytes.optimizer_update_8bit_blockwise.default", (tensor,) * 4, (tensor,) * 4, 0.0)
        assert Optimizer().elements(kernels(call, single)).tolist() == [10 * (1 << 20), 1 << 20]

    def test_a_recurrent_layer_is_a_chain_of_its_steps(self) -> None:
        def layer(tokens: int) -> Call:
            sequence: Shape = (FP32, (64, tokens, 512))
            return ("aten._cudnn_rnn.default", (sequence, (FP32, (1, 64, 512))), (sequence,), tokens * 2.7e8)

        short, long = self.seconds(Recurrent(), layer(64), layer(128))
        assert long == pytest.approx(2 * short, rel=0.02)
