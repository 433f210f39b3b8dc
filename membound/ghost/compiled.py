"""torch.compile on the ghost: AOTAutograd's own graphs and min-cut partition of each decoder layer, run with Inductor's fusion modelled.

What is kept for backward is what PyTorch's partitioner decides, with Inductor's decompositions. Which results Inductor then writes to memory is
modelled after torch/_inductor/graph.py and ir.py of PyTorch 2.13: pointwise results are folded into their readers unless a library's kernel
or the graph's caller wants them; reductions are written unless the kernel that makes them is their only reader. A dying operand's memory is not
reused within one kernel here, as Inductor may: peaks may be one buffer too high. What a library's kernel does is recorded as always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node

from membound.errors import InputError
from membound.ghost.operands import tensors_in
from membound.ghost.private.graphs import ahead_of_time, reparametrised, tree_map
from membound.ghost.private.operators import Overload
from membound.ghost.recorder import Recorder
from membound.spec.job import Recipe

NOTE: Final = "torch.compile's graphs and their partition are PyTorch's own; Inductor's fusion is modelled: code is generated for GPUs only"
KERNEL: Final = "inductor.fused"

# Operators that Inductor leaves to libraries or to a kernel of their own (torch/_inductor/lowering.py and kernel/): the rest it generates.
_LIBRARY: Final = frozenset(
    "mm addmm bmm baddbmm _grouped_mm _scaled_mm convolution convolution_backward sort topk embedding_dense_backward "
    "index_put index_put_ _unsafe_index_put scatter_add histc cumsum nonzero".split()
)
_REDUCTIONS: Final = frozenset("sum mean amax amin var var_mean any all prod argmax argmin".split())
# torch/_inductor/config.py, realize_reads_threshold: what reads more than this is written if it has several readers.
_MOST_READS: Final = 4


def install(recorder: Recorder, recipe: Recipe) -> None:
    """Let Programs that compile their layers have this compiler. Raises `InputError` where it cannot serve."""
    from membound.programs import kernels

    check(recipe)
    kernels.compile_layer = lambda layer: _compile(layer, recorder)


def _compile(layer: nn.Module, recorder: Recorder) -> None:
    forward = layer.forward

    def functional(tensors: dict[str, torch.Tensor], args: Any, kwargs: Any) -> Any:
        with reparametrised(layer, tensors):
            return forward(*args, **kwargs)

    runners = _Runners(recorder)
    compiled = ahead_of_time(functional, runners.make)

    def run(*args: Any, **kwargs: Any) -> Any:
        tensors = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
        with recorder.pause():  # the wrappers around the graphs launch nothing; the runners listen
            if runners.tracing:
                _trace(compiled, tensors, args, kwargs)
                runners.tracing = False
            return compiled(tensors, args, kwargs)

    layer.forward = run


def check(recipe: Recipe) -> None:
    """Raise `InputError` for what compiles on real hardware but cannot be captured here."""
    if recipe.method == "qlora":
        raise _not_yet("with 4-bit weights")
    if recipe.recompute != "none":
        raise _not_yet("with recomputation, which PyTorch compiles into the layers")
    if recipe.engine == "deepspeed" and recipe.zero_stage not in {0, 1, 2}:
        raise _not_yet("with DeepSpeed ZeRO-3, whose hooks gather parameters inside of the layers")


def _not_yet(what: str) -> InputError:
    return InputError("recipe.kernels", "compile", f"not predicted yet {what}: write eager")


def _trace(compiled: Callable[..., Any], tensors: dict[str, torch.Tensor], args: Any, kwargs: Any) -> None:
    try:
        compiled(tensors, *_examples((args, kwargs)))
    except Exception as error:  # whatever a model's layer does that fake tensors cannot
        raise _not_yet(f"for this model ({type(error).__name__}: {str(error).splitlines()[0][:150] if str(error) else ''})") from error


def _examples(values: Any) -> Any:
    """Tensors like those in `values`: AOTAutograd keeps fake tensors that it has traced with for good."""

    def example(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        made = torch.empty_strided(value.size(), value.stride(), dtype=value.dtype, device=value.device)
        return made.requires_grad_(value.requires_grad)

    return tree_map(example, values)


class _Runners:
    """What AOTAutograd gets for a compiler: carries graphs out, launching nothing while it traces."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.tracing = True

    def make(self, module: GraphModule, inputs: Any) -> Callable[[list[Any]], Any]:
        """A function of the list of the graph's arguments, which it empties."""
        plan = Plan.of(module.graph)

        def run(arguments: list[Any]) -> Any:
            if self.tracing:
                return module(*arguments)
            with self._recorder.listening():
                return _Run(plan, module, self._recorder).go(arguments)

        run._boxed_call = True  # type: ignore[attr-defined]
        return run


@dataclass(frozen=True)
class Plan:
    """How the nodes of a graph are carried out."""

    order: tuple[Node, ...]
    kinds: dict[Node, str]
    """library, view, folded (into its readers) or written."""
    dies: dict[Node, list[Node]]
    """What nobody reads after this node."""

    @staticmethod
    def of(graph: Graph) -> Plan:
        """The plan of `graph`."""
        order = tuple(graph.nodes)
        kinds = {node: _kind(node) for node in order}
        wanted = _wanted(order, kinds)
        reads: dict[Node, set[Node]] = {}
        for node in order:
            reads[node] = {r for n in node.all_input_nodes for r in (reads[n] if kinds[n] in {"view", "folded"} else {n})}
            busy = len(node.users) > 1 and len(reads[node]) > _MOST_READS
            if kinds[node] == "folded" and (node in wanted or busy or _name(node) in _REDUCTIONS):
                kinds[node] = "written"
        return Plan(order, kinds, _deaths(order, kinds))


def _kind(node: Node) -> str:
    if node.op != "call_function":
        return node.op
    target: Any = node.target
    if not isinstance(target, Overload):
        return "view"  # operator.getitem
    if target.namespace not in {"aten", "prims"} or _name(node) in _LIBRARY or "attention" in _name(node):
        return "library"
    return "view" if target.is_view or _name(node) in {"_unsafe_view", "alias", "detach"} else "folded"


def _name(node: Node) -> str:
    return str(node.target).split(".")[1] if isinstance(node.target, Overload) else ""


def _wanted(order: Iterable[Node], kinds: dict[Node, str]) -> set[Node]:
    """What a library's kernel or the caller reads, seen through views."""
    found: set[Node] = set()
    for node in order:
        if kinds[node] in {"library", "output"}:
            stack = list(node.all_input_nodes)
            while stack:
                read = stack.pop()
                found.add(read)
                if kinds[read] == "view":
                    stack += read.all_input_nodes
    return found


def _deaths(order: tuple[Node, ...], kinds: dict[Node, str]) -> dict[Node, list[Node]]:
    """By the last node that needs a value's memory: a folded or viewing reader needs it for as long as its own readers do."""
    last: dict[Node, int] = {}
    for at in reversed(range(len(order))):
        node = order[at]
        until = last.get(node, at) if kinds[node] in {"view", "folded"} else at
        for read in node.all_input_nodes:
            last[read] = max(last.get(read, 0), until)
        last.setdefault(node, at)
    dies: dict[Node, list[Node]] = {}
    for node, at in last.items():
        dies.setdefault(order[at], []).append(node)
    return dies


class _Run:
    """One execution of a plan."""

    def __init__(self, plan: Plan, module: GraphModule, recorder: Recorder) -> None:
        self._plan = plan
        self._module = module
        self._recorder = recorder
        self._values: dict[Node, Any] = {}
        self._pending: list[Node] = []
        self._dead: list[Node] = []

    def go(self, arguments: list[Any]) -> Any:
        """The graph's results. `arguments` is emptied, so that what it alone holds can die."""
        given = iter(arguments[:])
        arguments.clear()
        for node in self._plan.order:
            kind = self._plan.kinds[node]
            if kind == "placeholder":
                self._values[node] = next(given)
            elif kind == "output":
                self._launch()
                return torch.fx.node.map_arg(node.args[0], self._values.__getitem__)
            else:
                self._step(node, kind)
            self._dead += self._plan.dies.get(node, [])
            if not self._pending:
                self._bury()
        raise AssertionError("a graph without output")

    def _step(self, node: Node, kind: str) -> None:
        if kind == "library":
            self._launch()
        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), self._values.__getitem__)
        if kind == "get_attr":
            self._values[node] = getattr(self._module, str(node.target))
        elif kind == "library":
            self._values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        else:
            with self._recorder.pause():
                self._values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        if kind == "written":
            self._pending.append(node)

    def _launch(self) -> None:
        """Launch what is pending: one kernel for all that hangs together."""
        for group in _components(self._pending, self._plan):
            inside = set(group)
            reads = [self._values[n] for n in dict.fromkeys(r for n in group for r in _memory_read(n, self._plan)) if n not in inside]
            writes = [self._values[n] for n in group if not self._private(n, inside)]
            self._recorder.launch("kernel", KERNEL, reads=tensors_in(reads), writes=tensors_in(writes))
        self._pending.clear()
        self._bury()

    def _private(self, node: Node, inside: set[Node]) -> bool:
        """Whether only the kernel that makes `node` reads it."""
        return all(user in inside or (self._plan.kinds[user] in {"view", "folded"} and self._private(user, inside)) for user in node.users)

    def _bury(self) -> None:
        for node in self._dead:
            self._values.pop(node, None)
        self._dead.clear()


def _memory_read(node: Node, plan: Plan) -> list[Node]:
    """What is in memory and goes into `node`, through what is folded into it."""
    found: list[Node] = []
    for read in node.all_input_nodes:
        found += _memory_read(read, plan) if plan.kinds[read] in {"view", "folded"} else [read]
    return found


def _components(nodes: list[Node], plan: Plan) -> list[list[Node]]:
    """Groups that read one another or the same memory, in order."""
    groups: list[tuple[set[Node], list[Node]]] = []
    for node in nodes:
        touched = {node, *_memory_read(node, plan)}
        joined = [g for g in groups if g[0] & touched]
        groups = [g for g in groups if not g[0] & touched]
        groups.append((touched.union(*(g[0] for g in joined)), [n for g in joined for n in g[1]] + [node]))
    return [group for _, group in groups]
