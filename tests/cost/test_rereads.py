"""What matmuls read more than once: nothing where operands stay in the L2, never less than none, and near the known bound where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from membound.cost.law import Kernels
from membound.cost.laws import LAWS, law_of
from membound.cost.rereads import reread
from membound.spec import catalogue

H100 = catalogue.machine("h100-sxm").gpu
SIDES = 2.0 ** np.arange(4, 16)
M, N, K = (axis.ravel() for axis in np.meshgrid(SIDES, SIDES, SIDES))


def again(m: float, n: float, k: float, l2: float = H100.l2, sms: int = H100.sms) -> float:
    return float(reread(*(np.array([float(size)]) for size in (m, n, k)), np.ones(1), 2, sms, l2)[0])


def operands(m: float, n: float, k: float) -> float:
    return 2 * (m * k + k * n)


class TestBounds:
    def test_nothing_is_read_less_than_once(self) -> None:
        assert (reread(M, N, K, np.ones(1), 2, H100.sms, H100.l2) >= -1e-6).all()

    def test_of_many_waves_which_operand_is_the_left_one_does_not_matter(self) -> None:
        there, back = (reread(*sizes, K, np.ones(1), 2, H100.sms, H100.l2) for sizes in ((M, N), (N, M)))
        many = 3 * 128 * 256 * H100.sms < M * N
        assert many.any()
        assert there[many] == pytest.approx(back[many])

    def test_of_two_waves_the_right_operand_is_read_twice(self) -> None:
        """7B's projections of 2048 tokens: 84 MB were counted on an H200, of operands of 17 and 34 MB."""
        counted = operands(2048, 4096, 4096) + again(2048, 4096, 4096, l2=60 * 2**20)
        assert counted == pytest.approx(84e6, rel=0.1)

    def test_one_wave_of_tiles_reads_all_once(self) -> None:
        assert again(1024, 4096, 32768) == 0

    def test_an_operand_that_stays_in_the_l2_is_read_once_and_so_is_the_other(self) -> None:
        assert again(16_384, 512, 256) == 0

    def test_an_operand_that_leaves_between_waves_is_read_for_each(self) -> None:
        assert again(8192, 4096, 4096) > operands(8192, 4096, 4096)

    def test_a_larger_l2_reads_no_more(self) -> None:
        one, larger = (reread(M, N, K, np.ones(1), 2, 132, l2) for l2 in (50e6, 100e6))
        assert (larger <= one * (1 + 1e-12) + 1e-3).all()

    def test_more_sms_read_no_more_where_nothing_stays(self) -> None:
        one, more = (reread(M, N, K, np.ones(1), 2, sms, 1.0) for sms in (132, 160))
        many = M * N > 3 * 128 * 256 * 160
        assert (more[many] <= one[many] * (1 + 1e-12) + 1e-3).all()

    def test_large_squares_read_what_blocks_of_a_wave_must(self) -> None:
        """2 m n k / sqrt(results of a wave) elements: Hong and Kung's bound, and a fifth of what is read again on top."""
        side = 32_768.0
        bound = 2 * 2 * side**3 / np.sqrt(128 * 256 * H100.sms)
        once = operands(side, side, side)
        assert again(side, side, side) == pytest.approx(1.2 * (bound - once))


class TestLaws:
    def test_a_batch_reads_as_its_products_do(self) -> None:
        one = Kernels(("aten.mm.default",), ((("bfloat16", (8192, 4096)), ("bfloat16", (4096, 8192))),), ((("bfloat16", (8192, 8192)),),),
                      np.array([2.0 * 8192**2 * 4096]), np.zeros(1), np.zeros(1), np.zeros(1))  # fmt: skip
        three = Kernels(("aten.bmm.default",), ((("bfloat16", (3, 8192, 4096)), ("bfloat16", (3, 4096, 8192))),), ((("bfloat16", (3, 8192, 8192)),),),
                        3 * one.flops, np.zeros(1), np.zeros(1), np.zeros(1))  # fmt: skip
        single, batch = (LAWS[law_of(kernels.op[0])].beyond(kernels, H100)[0] for kernels in (one, three))
        assert single[0] > 0
        assert batch == pytest.approx(3 * single)

    def test_other_families_read_once(self) -> None:
        law = LAWS[law_of("aten.add.Tensor")]
        shape = ("bfloat16", (1 << 28,))
        kernels = Kernels(("aten.add.Tensor",), ((shape, shape),), ((shape,),), *(np.zeros(1),) * 4)
        assert not any(each.any() for each in law.beyond(kernels, H100))

    def test_a_widened_weight_goes_to_hbm_and_back_unless_the_l2_holds_it(self) -> None:
        law = LAWS[law_of("bitsandbytes.gemm_4bit.default")]
        for side, leaves in ((8192, True), (1024, False)):
            rows, result, packed = (("bfloat16", (512, side)), ("bfloat16", (512, side)), ("uint8", (side * side // 2, 1)))
            kernels = Kernels(("bitsandbytes.gemm_4bit.default",), ((rows, packed),), ((result,),), *(np.zeros(1),) * 4)
            read, written = law.beyond(kernels, H100)
            assert written[0] == (2 * side**2 if leaves else 0)
            assert read[0] >= written[0]
