"""The model of the L2 on accesses that can be counted by hand, and what holds for any: nothing is lost between the kernels and HBM."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from membound.cost.l2 import DEATH, READ, WRITE, Accesses, effective_capacity, hbm_traffic
from membound.spec import catalogue

Access = tuple[int, int, int]
"""What happens, to which block, with how many bytes; each is a kernel of its own."""


def traffic(capacity: float, *accesses: Access) -> tuple[list[int], list[int]]:
    """Bytes read from and written to HBM by each access."""
    what, block, nbytes = (np.array(column, np.int64) for column in zip(*accesses, strict=True))
    read, written = hbm_traffic(Accesses(np.arange(len(accesses)), what, block, nbytes), len(accesses), capacity)
    return read.tolist(), written.tolist()


class TestByHand:
    def test_what_was_read_is_there_the_second_time(self) -> None:
        assert traffic(100, (READ, 1, 40), (READ, 1, 40)) == ([40, 0], [0, 0])

    def test_what_was_written_is_read_from_the_cache_and_stays_dirty(self) -> None:
        assert traffic(100, (WRITE, 1, 40), (READ, 1, 40)) == ([0, 0], [0, 0])

    def test_a_dirty_block_is_written_back_by_what_pushes_it_out(self) -> None:
        assert traffic(100, (WRITE, 1, 60), (READ, 2, 60)) == ([0, 60], [0, 20])
        assert traffic(100, (WRITE, 1, 60), (READ, 2, 90)) == ([0, 90], [0, 50])

    def test_a_clean_block_leaves_without_a_trace(self) -> None:
        assert traffic(100, (READ, 1, 60), (READ, 2, 90)) == ([60, 90], [0, 0])

    def test_the_least_recently_used_goes_first(self) -> None:
        assert traffic(100, (READ, 1, 50), (READ, 2, 50), (READ, 1, 50), (READ, 3, 50), (READ, 1, 50), (READ, 2, 50))[0] == [50, 50, 0, 50, 0, 50]

    def test_part_of_a_block_may_stay(self) -> None:
        assert traffic(100, (READ, 1, 80), (READ, 2, 40), (READ, 1, 80))[0] == [80, 40, 20]

    def test_a_stream_larger_than_the_cache_sweeps_it_clean(self) -> None:
        assert traffic(100, (WRITE, 1, 30), (READ, 2, 400), (READ, 1, 30)) == ([0, 400, 30], [0, 30, 0])
        assert traffic(100, (WRITE, 1, 400), (READ, 1, 400)) == ([0, 400], [400, 0])

    def test_a_new_block_takes_over_a_dead_ones_place_and_its_dirt_is_never_written(self) -> None:
        lived = [(WRITE, 1, 60), (DEATH, 1, 0), (WRITE, 2, 60), (READ, 3, 40), (READ, 4, 100)]
        assert traffic(100, *lived) == ([0, 0, 0, 40, 100], [0, 0, 0, 0, 60])

    def test_a_dead_block_of_another_size_is_no_place(self) -> None:
        assert traffic(100, (WRITE, 1, 60), (DEATH, 1, 0), (WRITE, 2, 70))[1] == [0, 0, 30]

    def test_a_dead_block_that_was_pushed_out_meanwhile_is_no_place(self) -> None:
        assert traffic(100, (WRITE, 1, 60), (DEATH, 1, 0), (READ, 3, 100), (WRITE, 2, 60)) == ([0, 0, 100, 0], [0, 0, 60, 0])


accesses = st.lists(st.tuples(st.sampled_from([READ, READ, WRITE, WRITE, DEATH]), st.integers(0, 6), st.integers(1, 60)), min_size=1, max_size=60)


@given(accesses, st.integers(0, 150))
def test_hbm_never_moves_more_than_was_touched(run: list[Access], capacity: int) -> None:
    read, written = (np.array(side) for side in traffic(capacity, *run))
    what, _, nbytes = (np.array(column) for column in zip(*run, strict=True))
    assert (read >= 0).all()
    assert (written >= 0).all()
    assert (read <= np.where(what == READ, nbytes, 0)).all()
    # Each byte written leaves at most once: what went out so far was written so far.
    assert (np.cumsum(written) <= np.cumsum(np.where(what == WRITE, nbytes, 0))).all()


@given(accesses)
def test_without_a_cache_every_byte_goes_to_hbm(run: list[Access]) -> None:
    read, written = traffic(0, *run)
    assert read == [nbytes if what == READ else 0 for what, _, nbytes in run]
    assert written == [nbytes if what == WRITE else 0 for what, _, nbytes in run]


@given(accesses)
def test_in_an_endless_cache_only_what_comes_for_the_first_time_is_read(run: list[Access]) -> None:
    alive = [access for access in run if access[0] != DEATH] or [(READ, 0, 1)]
    read, written = traffic(1e12, *alive)
    held: dict[int, int] = {}
    for (what, block, nbytes), got in zip(alive, read, strict=True):
        assert got == (max(nbytes - held.get(block, 0), 0) if what == READ else 0)
        held[block] = max(held.get(block, 0), nbytes)
    assert sum(written) == 0


@pytest.mark.parametrize("name", catalogue.machines())
def test_no_gpu_holds_more_than_its_l2(name: str) -> None:
    gpu = catalogue.machine(name).gpu
    assert 0 < effective_capacity(gpu) <= gpu.l2
