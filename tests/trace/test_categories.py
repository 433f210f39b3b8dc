"""What storages hold, told from when they live and what made them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from membound.trace.builder import TraceBuilder
from membound.trace.categories import lifetimes, refined
from membound.trace.schema import CATEGORIES, CATEGORY, KIND, PHASE, PLACE, Trace

HEAD = {"module": "model.lm_head"}
LOSS = {"line": "transformers/loss/loss_utils.py:42"}
GATHER = {"line": "deepspeed/runtime/zero/partition_parameters.py:795"}


class Script:
    """Writes a small Trace."""

    def __init__(self) -> None:
        self.builder = TraceBuilder()

    @contextmanager
    def phase(self, name: str, step: int = 0, micro: int = 0) -> Iterator[None]:
        at = self.builder.position
        at.phase, at.step, at.micro = PHASE[name], step, micro
        yield
        at.phase, at.step, at.micro = 0, -1, -1

    def make(
        self, shape: str, module: str = "", line: str = "", op: str = "aten.mm.default", category: str = "temporaries", place: str = "gpu"
    ) -> int:
        builder = self.builder
        builder.position.module, builder.position.line = builder.modules.code(module), builder.lines.code(line)
        code = builder.ops.code(op)
        storage = builder.alloc(PLACE[place], 4096, op=code, category=CATEGORY[category])
        builder.operand(builder.add(KIND["kernel"], code), 1, storage, 4096, builder.shapes.code(shape))
        return storage

    def run(self) -> None:
        self.builder.add(KIND["kernel"])

    def categories(self) -> list[str]:
        return [CATEGORIES[code] for code in refined(self.trace())]

    def trace(self) -> Trace:
        numbers = {"rank": 0, "ranks": 1, "ranks_per_node": 1, "steps": 1, "micro_steps": 1, "repeat": 1, "parameters": 0, "trained": 0}
        return self.builder.finish(job={}, versions={}, **numbers)


@pytest.fixture
def script() -> Script:
    return Script()


def test_what_forward_keeps_for_backward_is_activations(script: Script) -> None:
    with script.phase("data"):
        script.make("int64[1,8]")
    with script.phase("forward"):
        kept = script.make("bfloat16[8,16]")
        passing = script.make("bfloat16[8,16]")
        script.builder.free(passing)
        script.make("bfloat16[8,16]", category="weights")
        script.make("bfloat16[8,16]", place="host")
    with script.phase("backward"):
        script.run()
        script.builder.free(kept)
        script.make("bfloat16[8,16]")
    assert script.categories() == ["temporaries", "activations", "temporaries", "weights", "temporaries", "temporaries"]


def test_each_micro_step_has_its_own_backward(script: Script) -> None:
    for micro in range(2):
        with script.phase("forward", micro=micro):
            kept = script.make("bfloat16[8,16]")
        with script.phase("backward", micro=micro):
            script.run()
            script.builder.free(kept)
    with script.phase("forward", step=1):
        script.make("bfloat16[8,16]")
    assert script.categories() == ["activations", "activations", "temporaries"]


def test_logits_are_as_wide_as_the_vocabulary_or_made_by_the_loss(script: Script) -> None:
    with script.phase("forward"):
        script.make("bfloat16[50000,16]", **HEAD, op="aten._to_copy.default")
        script.make("bfloat16[8,50000]", **HEAD)
        script.make("float32[8,50000]", line="elsewhere.py:1", op="aten._to_copy.default")
        script.make("float32[]", **LOSS, op="aten.nll_loss_forward.default")
    with script.phase("backward"):
        script.make("float32[8,50000]", op="aten._log_softmax_backward_data.default")
        script.make("bfloat16[50000,16]", **HEAD)
    with script.phase("optimizer"):
        script.make("bfloat16[8,50000]", op="aten._foreach_sqrt.default")
    assert script.categories() == ["activations", "logits", "logits", "logits", "logits", "temporaries", "temporaries"]


def test_gathered_parameters_are_communication(script: Script) -> None:
    with script.phase("forward"):
        script.make("bfloat16[8,16]", **GATHER)
    with script.phase("backward"):
        script.make("bfloat16[8,16]", **GATHER)
    with script.phase("prepare", step=-1):
        script.make("bfloat16[8,16]", **GATHER)
    assert script.categories() == ["communication", "communication", "temporaries"]


def test_without_a_head_only_the_loss_tells(script: Script) -> None:
    with script.phase("forward"):
        script.make("bfloat16[8,50000]")
        script.make("float32[]", **LOSS)
    assert script.categories() == ["temporaries", "logits"]


def test_the_trace_itself_stays(script: Script) -> None:
    with script.phase("forward"):
        script.make("float32[]", **LOSS)
    trace = script.trace()
    refined(trace)
    assert trace.storages["category"].tolist() == [CATEGORY["temporaries"]]


def test_an_empty_trace(script: Script) -> None:
    assert script.categories() == []


def test_lifetimes(script: Script) -> None:
    with script.phase("forward"):
        first = script.make("bfloat16[8]")
        script.make("bfloat16[8]")
        script.builder.free(first)
    births, deaths = lifetimes(script.trace())
    assert (births.tolist(), deaths.tolist()) == ([0, 2], [4, 5])
