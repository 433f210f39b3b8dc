"""Two Traces held against each other: what differs is found, and is nobody's unless a choice accounts for it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from membound.trace.builder import TraceBuilder
from membound.trace.choice import Choice
from membound.trace.compare import Difference, compare
from membound.trace.schema import KIND, PHASE, PLACE, Trace

Step = tuple[str, int]
"""An operator, and the bytes of the block that it makes."""
PROGRAM: Sequence[Step] = (("mm", 64), ("add", 32), ("mm", 64), ("sum", 8))


def trace(program: Sequence[Step], kept: int = 0, collective: int = 16) -> Trace:
    """A micro-step that runs `program`, each operator reading what the last one made, then reduces; all but the first `kept` blocks die."""
    builder = TraceBuilder()
    at = builder.position
    at.phase, at.step, at.micro = PHASE["forward"], 0, 0
    blocks: list[int] = []
    for op, nbytes in program:
        code = builder.ops.code(op)
        block = builder.alloc(PLACE["gpu"], nbytes, 0, code)
        row = builder.add(KIND["kernel"], code)
        if blocks:
            builder.operand(row, 0, blocks[-1], builder.nbytes(blocks[-1]), builder.shapes.code(f"float32[{builder.nbytes(blocks[-1])}]"))
        builder.operand(row, 1, block, nbytes, builder.shapes.code(f"float32[{nbytes}]"))
        blocks.append(block)
    builder.add(KIND["collective"], builder.ops.code("reduce"), 0, -1, collective, 0.0, 2)
    for block in blocks[kept:]:
        builder.free(block)
    counts = {"rank": 0, "ranks": 2, "ranks_per_node": 2, "steps": 1, "micro_steps": 1, "repeat": 1, "parameters": 1, "trained": 1}
    return builder.finish(job={}, versions={}, **counts)


def unexplained(real: Trace, ghost: Trace, *choices: Choice) -> list[tuple[str, str, str, int]]:
    """Side, kind, operator and bytes of each difference that no choice accounts for."""
    return [(d.side, d.what, d.op, d.nbytes) for d in compare(real, ghost, choices).unexplained]


def test_equal_traces_do_not_differ() -> None:
    found = compare(trace(PROGRAM), trace(PROGRAM), ())
    assert (found.aligned, found.differences, found.drift) == (5, (), 0)


def test_an_operator_too_many_is_found_and_its_memory() -> None:
    ghost = trace((*PROGRAM[:2], ("copy", 32), *PROGRAM[2:]))
    assert ("ghost", "operator", "copy", 0) in unexplained(trace(PROGRAM), ghost)
    assert ("ghost", "alloc", "copy", 32) in unexplained(trace(PROGRAM), ghost)


def test_a_choice_accounts_for_its_own_operator_alone() -> None:
    ghost = trace((*PROGRAM, ("copy", 8)))
    found = compare(trace(PROGRAM), ghost, [Choice("copies", "", ghost="copy")])
    assert not found.unexplained
    assert found.choices == {"copies"}
    assert found.drift == 8
    assert unexplained(trace(PROGRAM), ghost, Choice("copies", "", real="copy"))
    assert unexplained(trace(PROGRAM), ghost, Choice("copies", "", ghost="copy", after="mm"))
    assert unexplained(trace(PROGRAM), ghost, Choice("copies", "", ghost="copy", kinds=frozenset({"copy_h2d"})))


def test_memory_that_lives_longer_is_found() -> None:
    assert unexplained(trace(PROGRAM), trace(PROGRAM, kept=1)) == [("real", "free", "mm", 64)]
    assert unexplained(trace(PROGRAM), trace(PROGRAM, kept=1), Choice("mm keeps", "", memory="mm", sizes=frozenset({8}))) != []
    assert unexplained(trace(PROGRAM), trace(PROGRAM, kept=1), Choice("mm keeps", "", memory="mm")) == []


def test_operands_and_collectives_must_be_equal() -> None:
    assert ("real", "operator", "sum", 0) in unexplained(trace(PROGRAM), trace((*PROGRAM[:3], ("sum", 4))))
    assert unexplained(trace(PROGRAM), trace(PROGRAM, collective=32)) == [("real", "operator", "reduce", 0), ("ghost", "operator", "reduce", 0)]


@pytest.mark.parametrize(("wide", "explained"), [(64, True), (128, False)])
def test_a_pair_stands_for_one_another_and_agrees_in_its_first_operands(wide: int, explained: bool) -> None:
    choice = Choice("kernels", "", paired=(("mm", "cuda_mm"),), sizes=frozenset())
    ghost = trace((("cuda_mm", wide), ("add", 32), ("cuda_mm", 64), ("sum", 8)))
    found = compare(trace(PROGRAM), ghost, [choice])
    assert (not found.unexplained) is explained
    assert ("both", "mm") in {(d.side, d.op) for d in found.differences}


def test_a_difference_reads_as_one_line() -> None:
    text = str(Difference("", "ghost", "alloc", "forward", 0, 1, "mm", "before add", 64))
    assert text == "[UNEXPLAINED] step 0 micro 1 forward: ghost: alloc mm 64 before add"
