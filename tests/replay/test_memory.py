"""The memory replay on small programs whose memory can be counted by hand, and what holds for any program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from membound.cost import context, workspaces
from membound.cost.host_base import host_base
from membound.replay.allocator_settings import AllocatorSettings
from membound.replay.cycles import again
from membound.replay.memory import replay
from membound.replay.memory_program import program
from membound.replay.predict_memory import memory_fits, memory_tables, memory_values
from membound.replay.result import GpuMemory, Memory
from membound.run import quantities
from membound.run.schema import Value
from membound.spec import catalogue
from membound.spec.machine import Architecture, Machine
from membound.trace.builder import TraceBuilder
from membound.trace.schema import CATEGORIES, CATEGORY, KIND, PHASE, PLACE, Trace

MIB = 1 << 20
GIB = 1 << 30


class Script:
    """Writes a small Trace. Sizes in MiB."""

    def __init__(self) -> None:
        self.builder = TraceBuilder()

    @contextmanager
    def phase(self, name: str, step: int = -1, micro: int = -1, module: str = "", line: str = "") -> Iterator[None]:
        at = self.builder.position
        at.phase, at.step, at.micro = PHASE[name], step, micro
        at.module, at.line = self.builder.modules.code(module), self.builder.lines.code(line)
        yield
        at.phase, at.step, at.micro, at.module, at.line = 0, -1, -1, 0, 0

    def alloc(self, size: float, category: str = "temporaries", place: str = "gpu", stream: int = 0) -> int:
        return self.builder.alloc(PLACE[place], int(size * MIB), stream, self.builder.ops.code("aten.empty"), CATEGORY[category])

    def free(self, *storages: int) -> None:
        for storage in storages:
            self.builder.free(storage)

    def add(self, kind: str, op: str = "", stream: int = 0, target: int = -1, ranks: int = 0) -> None:
        self.builder.add(KIND[kind], self.builder.ops.code(op), stream, target, ranks=ranks)

    def micro_step(self, step: int, micro: int, size: float = 4.0) -> None:
        with self.phase("forward", step, micro, "model.layers.0", "model.py:1"):
            kept = self.alloc(size)
        with self.phase("backward", step, micro):
            gradient = self.alloc(size)
            self.free(kept, gradient)

    def trace(self, **header: Any) -> Trace:
        numbers = {"rank": 0, "ranks": 1, "ranks_per_node": 1, "steps": 0, "micro_steps": 1, "repeat": 1, "parameters": 10, "trained": 5}
        return self.builder.finish(job={}, versions={}, **(numbers | header))


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture(scope="module")
def machine() -> Machine:
    return catalogue.machine("h100-sxm")


@pytest.fixture(scope="module")
def hgx() -> Machine:
    return catalogue.machine("hgx-h100")


def with_hbm(machine: Machine, usable: float) -> Machine:
    """The machine with memory for `usable` MiB in PyTorch's allocator."""
    architecture = machine.gpu.architecture
    capacity = usable * MIB + context.cuda_context(architecture).nominal + context.kept_back(architecture).nominal
    hbm = machine.gpu.hbm.model_copy(update={"capacity": capacity})
    return machine.model_copy(update={"gpu": machine.gpu.model_copy(update={"hbm": hbm})})


class TestGpu:
    def test_peak_and_what_is_alive_at_it(self, script: Script, machine: Machine) -> None:
        with script.phase("load"):
            script.alloc(10, "weights")
        with script.phase("forward", 0, 0, "model.layers.0", "model.py:1"):
            kept, passing = script.alloc(4), script.alloc(6)
            script.free(passing)
        with script.phase("backward", 0, 0):
            script.alloc(12, "gradients")
            script.free(kept)
        gpu = replay(script.trace(steps=1), machine).gpu
        assert gpu.allocated_peak == 26 * MIB
        assert {name: size // MIB for name, size in gpu.at_peak.items() if size} == {"weights": 10, "activations": 4, "gradients": 12}
        assert [(h.category, h.module, h.line, h.nbytes // MIB, h.blocks) for h in gpu.holdings] == [
            ("gradients", "", "", 12, 1), ("weights", "", "", 10, 1), ("activations", "model.layers.0", "model.py:1", 4, 1),
        ]  # fmt: skip
        assert (gpu.moment.phase, gpu.moment.step, gpu.moment.micro, gpu.moment.op) == ("backward", 0, 0, "aten.empty")
        assert (gpu.curve.allocated // MIB).tolist() == [10, 14, 20, 14, 26, 22]
        assert (gpu.fits, gpu.why, gpu.retries) == (True, None, 0)

    def test_blocks_are_multiples_of_512(self, script: Script, machine: Machine) -> None:
        script.builder.alloc(PLACE["gpu"], 1)
        script.builder.alloc(PLACE["gpu"], 513)
        script.builder.alloc(PLACE["gpu"], 0)
        gpu = replay(script.trace(), machine).gpu
        assert (gpu.allocated_peak, gpu.reserved_peak) == (512 + 1024, 2 * MIB)

    def test_memory_of_the_host_is_not_the_gpus(self, script: Script, machine: Machine) -> None:
        script.alloc(8, place="host")
        script.alloc(8, place="pinned")
        script.alloc(8, place="nvme")
        gpu = replay(script.trace(), machine).gpu
        assert (gpu.allocated_peak, gpu.used_peak, gpu.moment.instruction) == (0, gpu.context, -1)
        assert (gpu.holdings, len(gpu.curve.allocated)) == ((), 0)

    def test_an_empty_trace(self, script: Script, machine: Machine) -> None:
        memory = replay(script.trace(), machine)
        assert memory.gpu.fits
        assert memory.host.fits
        memory_tables(memory, script.trace())

    def test_out_of_memory_says_what_and_where(self, script: Script, machine: Machine) -> None:
        with script.phase("load"):
            script.alloc(60, "weights")
        with script.phase("optimizer", 0, 2, line="adam.py:7"):
            script.alloc(50)
        gpu = replay(script.trace(steps=1), with_hbm(machine, 100)).gpu
        assert not gpu.fits
        assert gpu.reserved_peak == 110 * MIB
        assert gpu.why is not None
        for part in (
            "needs 875 MiB",
            "offers 865 MiB",
            "for 50.0 MiB with 60.0 MiB allocated",
            "in optimizer of step 1, micro-step 3",
            "adam.py:7",
        ):
            assert part in gpu.why

    def test_gives_back_its_cache_before_it_fails(self, script: Script, machine: Machine) -> None:
        script.free(script.alloc(60))
        script.alloc(80)
        trace = script.trace()
        assert replay(trace, machine).gpu.reserved_peak == 140 * MIB
        gpu = replay(trace, with_hbm(machine, 100)).gpu
        assert (gpu.fits, gpu.retries, gpu.reserved_peak) == (True, 1, 80 * MIB)
        assert gpu.snapshot == {"reserved_without_limit": 140 * MIB}

    def test_a_gpu_too_small_for_its_context(self, script: Script, machine: Machine) -> None:
        script.alloc(1)
        assert not replay(script.trace(), with_hbm(machine, -600)).gpu.fits

    def test_a_limit_by_fraction(self, script: Script, machine: Machine) -> None:
        script.alloc(2048)
        trace = script.trace()
        limited = replay(trace, machine, AllocatorSettings(per_process_memory_fraction=0.02)).gpu
        assert not limited.fits
        assert "PyTorch may take" in (limited.why or "")
        assert replay(trace, machine).gpu.fits

    def test_empty_cache_gives_back(self, script: Script, machine: Machine) -> None:
        script.free(script.alloc(60))
        script.add("empty_cache")
        script.alloc(80)
        assert replay(script.trace(), machine).gpu.reserved_peak == 80 * MIB


class TestStreams:
    @pytest.mark.parametrize(
        ("passes", "reserved"),
        [
            (lambda s: None, 40),
            (lambda s: s.add("sync", target=-1), 20),
            (lambda s: s.add("sync", stream=1, target=1), 20),
            (lambda s: s.add("sync", stream=2, target=2), 40),
            (lambda s: (s.add("record", stream=1, target=9), s.add("wait", target=9)), 20),
            (lambda s: (s.add("record", stream=2, target=9), s.add("wait", target=9)), 40),
        ],
    )
    def test_memory_in_use_on_another_stream_is_free_once_that_is_waited_for(
        self, script: Script, machine: Machine, passes: Callable[[Script], object], reserved: int
    ) -> None:
        held = script.alloc(20)
        script.add("record_stream", stream=1, target=held)
        script.free(held)
        passes(script)
        script.alloc(20)
        gpu = replay(script.trace(), machine).gpu
        assert (gpu.reserved_peak, gpu.active_peak, gpu.allocated_peak) == (reserved * MIB, reserved * MIB, 20 * MIB)

    def test_an_event_recorded_before_the_free_does_not_count(self, script: Script, machine: Machine) -> None:
        held = script.alloc(20)
        script.add("record_stream", stream=1, target=held)
        script.add("record", stream=1, target=9)
        script.free(held)
        script.add("wait", target=9)
        script.alloc(20)
        assert replay(script.trace(), machine).gpu.reserved_peak == 40 * MIB

    def test_streams_have_pools_of_their_own(self, script: Script, machine: Machine) -> None:
        script.free(script.alloc(20, stream=0))
        script.alloc(20, stream=1)
        assert replay(script.trace(), machine).gpu.reserved_peak == 40 * MIB


class TestWorkspaces:
    @pytest.mark.parametrize(("name", "size"), [("h100-sxm", 32 * MIB), ("hgx-b200", 32 * MIB), ("hgx-a100-80gb", 8_519_680), ("l40s", 8_519_680)])
    def test_one_for_each_thread_and_stream(self, script: Script, name: str, size: int) -> None:
        for step in range(2):
            for phase in ("forward", "optimizer", "backward"):
                with script.phase(phase, step, 0):
                    script.add("kernel", "aten.mm.default")
                    script.add("kernel", "aten.add.Tensor", stream=2)
        with script.phase("forward", 1, 0):
            script.add("kernel", "aten.bmm.default", stream=1)
        gpu = replay(script.trace(steps=2), catalogue.machine(name)).gpu
        assert gpu.at_peak["workspace"] == gpu.allocated_peak >= 3 * size
        assert gpu.allocated_peak <= 3 * (size + MIB)
        assert [(h.category, h.blocks) for h in gpu.holdings] == [("workspace", 3)]

    def test_an_announced_library_takes_one(self, script: Script, machine: Machine) -> None:
        script.add("workspace")
        assert replay(script.trace(), machine).gpu.allocated_peak == 32 * MIB

    @pytest.mark.parametrize("op", ["aten.mm.default", "aten.addmm.default", "aten.baddbmm.default", "aten._scaled_mm.default"])
    def test_products_need_one(self, op: str) -> None:
        assert workspaces.needs_workspace(op)

    @pytest.mark.parametrize("op", ["aten.add.Tensor", "aten.mmm.default", "", "aten._scaled_dot_product_flash_attention.default"])
    def test_others_do_not(self, op: str) -> None:
        assert not workspaces.needs_workspace(op)


@pytest.mark.parametrize("architecture", get_args(Architecture))
def test_each_architecture_has_its_overheads(architecture: Architecture) -> None:
    assert workspaces.size(architecture) > MIB
    for band in (context.cuda_context(architecture), context.kept_back(architecture), host_base(8)):
        assert 0 < band.low <= band.nominal <= band.high
        assert band.source


class TestNccl:
    def test_one_gpu_has_none(self, script: Script, hgx: Machine) -> None:
        assert replay(script.trace(), hgx).gpu.libraries == 0

    def test_grows_with_communicators(self, script: Script, hgx: Machine) -> None:
        script.add("collective", ranks=8)
        one = replay(script.trace(ranks=8), hgx).gpu.libraries
        script.add("collective", ranks=4)
        assert replay(script.trace(ranks=8), hgx).gpu.libraries == 2 * one > 0

    def test_links_matter(self, script: Script, hgx: Machine) -> None:
        trace = script.trace(ranks=2)
        cards = catalogue.machine("rtx-4090-x2")
        assert 0 < replay(trace, cards).gpu.libraries < replay(trace, hgx).gpu.libraries


class TestRepeats:
    def accumulation(self, script: Script, repeat: int, size: float = 4.0) -> Trace:
        for step in range(2):
            for micro in range(3):
                script.micro_step(step, micro, size)
        return script.trace(steps=2, micro_steps=3, repeat=repeat)

    def test_a_cycle_adds_nothing(self, script: Script, machine: Machine) -> None:
        gpu = replay(self.accumulation(script, 30), machine).gpu
        assert gpu.allocated_peak == gpu.steady_allocated_peak == 8 * MIB
        assert len(gpu.curve.allocated) == 24

    def test_later_steps_meet_their_own_leftovers(self, script: Script, machine: Machine) -> None:
        # Born in one step and dead in the next, as gradients are that the next step's first line sets free: two steps' worth is reserved.
        old = script.alloc(0.001)
        for step in range(2):
            with script.phase("backward", step, 0):
                new = script.alloc(30, "gradients")
                script.free(old)
                old = new
        gpu = replay(script.trace(steps=2), machine).gpu
        assert (gpu.allocated_peak, gpu.reserved_peak) == (60 * MIB, 62 * MIB)

    def test_what_grows_is_not_repeated(self, script: Script, machine: Machine) -> None:
        for micro in range(3):
            with script.phase("forward", 0, micro):
                script.alloc(20)
        trace = script.trace(steps=1, micro_steps=3, repeat=50)
        assert replay(trace, machine).gpu.allocated_peak == 60 * MIB

    def test_blocks_of_each_turn_are_new(self, script: Script, machine: Machine) -> None:
        before = script.alloc(2)
        after = script.alloc(2)
        script.free(before)
        inner = script.alloc(3)
        script.free(inner)
        script.free(after)
        whole = program(script.trace(), machine.gpu.architecture)
        repeated = again(whole, 1, 5, 2)
        assert repeated is not None
        turns, rest = repeated.turns, repeated.after
        assert turns.target.tolist() == [3, after, 4, 4, 5, 3, 6, 6]
        assert rest.target.tolist() == [5]
        assert turns.origin[[3, 4, 5, 6]].tolist() == [after, inner, after, inner]

    @pytest.mark.parametrize("settings", [AllocatorSettings(), AllocatorSettings(expandable_segments=True)])
    def test_more_accumulation_never_lowers_the_peak(self, machine: Machine, settings: AllocatorSettings) -> None:
        found = [replay(self.accumulation(Script(), repeat, 3.3), machine, settings).gpu for repeat in (1, 2, 3, 10, 1000)]
        for few, more in pairwise(found):
            assert few.allocated_peak <= more.allocated_peak
            assert few.reserved_peak <= more.reserved_peak


class TestHost:
    def host(self, script: Script) -> None:
        with script.phase("load"):
            script.free(script.alloc(100, place="host"))
        with script.phase("prepare"):
            script.alloc(3, "optimizer", "pinned")
            script.alloc(40, "optimizer", "host")

    @pytest.mark.parametrize(("ranks", "on_node"), [(1, 1), (2, 2), (8, 8), (16, 8)])
    def test_a_node_holds_what_its_ranks_hold(self, script: Script, hgx: Machine, ranks: int, on_node: int) -> None:
        self.host(script)
        host = replay(script.trace(ranks=ranks, ranks_per_node=on_node), hgx).host
        assert (host.pageable_peak, host.pinned_peak, host.rounding) == (on_node * 100 * MIB, on_node * 4 * MIB, on_node * MIB)
        assert host.base == host_base(on_node).nominal
        tables = on_node * 100 * MIB // 512  # 8 B for each page of 4096
        assert host.used_peak == host.base + on_node * 100 * MIB + tables
        assert host.by_category == {"loading (pageable)": on_node * 100 * MIB, "page tables": tables, "system and processes": host.base}

    def test_pinned_blocks_round_up_and_stay(self, script: Script, hgx: Machine) -> None:
        with script.phase("prepare"):
            script.free(script.alloc(3, "weights", "pinned"))
            script.alloc(5, "optimizer", "pinned")
        host = replay(script.trace(), hgx).host
        assert (host.pinned_peak, host.rounding) == (12 * MIB, 3 * MIB)
        assert host.by_category == {
            "optimizer (pinned)": 5 * MIB, "rounding (pinned)": 3 * MIB, "cached (pinned)": 4 * MIB, "page tables": 12 * MIB // 512,
            "system and processes": host.base,
        }  # fmt: skip

    def test_says_what_does_not_fit(self, script: Script, machine: Machine) -> None:
        with script.phase("optimizer", 0, 0, line="stage3.py:9"):
            script.alloc(500 * 1024, "optimizer", "host")
        memory = replay(script.trace(steps=1), machine)
        assert (memory.gpu.fits, memory.host.fits) == (True, False)
        assert memory.host.why is not None
        for part in (
            "needs 508 GiB",
            "h100-sxm has 384 GiB, of which Linux leaves 378 GiB",
            "optimizer (pageable), 500 GiB",
            "in optimizer of step 1",
            "stage3.py:9",
        ):
            assert part in memory.host.why
        assert memory_fits(memory).why == memory.host.why

    def test_linux_keeps_a_64th_of_the_memory_to_itself(self, machine: Machine) -> None:
        def fits(gib: float) -> bool:
            script = Script()
            with script.phase("prepare"):
                script.alloc(gib * 1024, "optimizer", "host")
            return replay(script.trace(), machine).host.fits

        capacity, base = machine.host.capacity / GIB, host_base(1).nominal / GIB
        assert fits((capacity * 63 / 64 - base) * 512 / 513 - 0.01)
        assert not fits((capacity * 63 / 64 - base) * 512 / 513 + 0.01)


SIZES = st.sampled_from([100, 700, 5000, MIB // 2, MIB, 3 * MIB, 11 * MIB + 300, 25 * MIB])
ACTS = st.one_of(
    st.tuples(st.just("alloc"), SIZES, st.sampled_from(["gpu", "gpu", "gpu", "host", "pinned"]), st.integers(0, 1), st.sampled_from(CATEGORIES)),
    st.tuples(st.sampled_from(["free", "record_stream"]), st.integers(0, 99)),
    st.tuples(st.sampled_from(["sync", "kernel", "empty_cache"])),
)
PROGRAMS = st.lists(st.lists(ACTS, max_size=12), min_size=1, max_size=8)


def performed(parts: list[list[tuple[Any, ...]]]) -> Trace:
    """A Trace of two steps that does what `parts` say, each in a phase of its own."""
    script = Script()
    builder = script.builder
    live: list[int] = []
    order = [("load", -1, -1)] + [(phase, step, micro) for step in range(2) for micro in range(3) for phase in ("forward", "backward")]
    for (phase, step, micro), part in zip(order, parts, strict=False):
        with script.phase(phase, step, micro):
            for act in part:
                if act[0] == "alloc":
                    live.append(builder.alloc(PLACE[act[2]], act[1], act[3], 0, CATEGORY[act[4]]))
                elif act[0] == "free" and live:
                    builder.free(live.pop(act[1] % len(live)))
                elif act[0] == "record_stream" and live:
                    builder.add(KIND["record_stream"], 0, 2, live[act[1] % len(live)])
                elif act[0] in {"sync", "kernel", "empty_cache"}:
                    script.add(act[0], "aten.mm.default")
    return script.trace(steps=2, micro_steps=3, repeat=4, ranks=8)


class TestAnyProgram:
    @given(PROGRAMS, st.booleans())
    @settings(max_examples=60, deadline=None, derandomize=True)
    def test_the_books_balance(self, parts: list[list[tuple[Any, ...]]], expandable: bool) -> None:
        trace = performed(parts)
        machine = catalogue.machine("hgx-h100")
        memory = replay(trace, machine, AllocatorSettings(expandable_segments=expandable))
        self.check_gpu(memory.gpu)
        host = memory.host
        assert sum(host.by_category.values()) == host.used_peak
        assert host.used_peak <= host.base + (host.pinned_peak + host.pageable_peak) * 513 / 512
        self.check_values(memory, trace, machine)

    def check_gpu(self, gpu: GpuMemory) -> None:
        curve = gpu.curve
        assert np.array_equal(sum(curve.by_category.values()), curve.allocated)
        assert all((column >= 0).all() for column in curve.by_category.values())
        assert (curve.allocated <= curve.reserved).all()
        assert (curve.allocated <= gpu.allocated_peak).all()
        assert (curve.reserved <= gpu.reserved_peak).all()
        assert curve.allocated.max(initial=0) <= gpu.allocated_peak <= gpu.active_peak <= gpu.reserved_peak <= gpu.used_peak
        assert gpu.steady_allocated_peak <= gpu.allocated_peak
        assert gpu.steady_reserved_peak <= gpu.reserved_peak
        assert sum(gpu.at_peak.values()) == sum(holding.nbytes for holding in gpu.holdings) == gpu.allocated_peak
        assert [holding.nbytes for holding in gpu.holdings] == sorted((holding.nbytes for holding in gpu.holdings), reverse=True)

    def check_values(self, memory: Memory, trace: Trace, machine: Machine) -> None:
        values = memory_values(memory, trace, machine)
        quantities.validate(values)
        tables = memory_tables(memory, trace)
        assert tables["memory.timeline"].num_rows == len(memory.gpu.curve.allocated)
        assert sum(tables["memory.holdings"]["nbytes_B"].to_pylist()) == memory.gpu.allocated_peak
        assert sum(tables["host.memory.holdings"]["nbytes_B"].to_pylist()) == memory.host.used_peak


def test_values_are_those_of_the_replay(script: Script, hgx: Machine) -> None:
    script.alloc(2048, "weights")
    trace = script.trace(ranks=8)
    memory = replay(trace, hgx)
    values = memory_values(memory, trace, hgx)
    numbers = {name: value.value for name, value in values.items() if isinstance(value, Value)}
    assert numbers["gpu.memory.allocated.peak"] == numbers["gpu.memory.weights"] == 2 * GIB
    assert numbers["gpu.memory.used.peak"] == 2 * GIB + numbers["gpu.memory.context"] + numbers["gpu.memory.libraries"]
    assert numbers["hbm.capacity.utilisation"] == pytest.approx(numbers["gpu.memory.used.peak"] / hgx.gpu.hbm.capacity)
    assert (numbers["model.parameters"], numbers["model.parameters.trained"]) == (10, 5)
    widths = [values[f"gpu.memory.{name}.peak"] for name in ("allocated", "reserved", "used")]
    shares = [(width.high - width.low) / width.value for width in widths if isinstance(width, Value)]
    assert shares == sorted(shares)


def test_what_dies_between_phases_is_said_so(script: Script, machine: Machine) -> None:
    with script.phase("load"):
        script.alloc(1)
    with script.phase("forward", 0, 0):
        held = script.alloc(1)
    script.free(held)
    trace = script.trace(steps=1)
    assert memory_tables(replay(trace, machine), trace)["memory.timeline"]["phase"].to_pylist() == ["load", "forward", "other"]
