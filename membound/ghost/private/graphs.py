"""Autograd as the ghost watches and splits it: sequence numbers of nodes, and forward and backward as graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

tree_map: Callable[[Callable[[Any], Any], Any], Any] = torch.utils._pytree.tree_map


next_autograd_number: Callable[[], int] = torch._C._autograd._get_sequence_nr
"""The sequence number that the next autograd node will carry."""
_current_node: Callable[[], Any] = torch._C._current_autograd_node


def current_autograd_number() -> int | None:
    """The sequence number of the autograd node whose backward is running, or None outside backward."""
    node = _current_node()
    return None if node is None else node._sequence_nr()


def reparametrised(module: torch.nn.Module, tensors: dict[str, torch.Tensor]) -> Any:
    """While entered, `module` computes with `tensors` for its parameters and buffers."""
    from torch.nn.utils import stateless

    return stateless._reparametrize_module(module, tensors)


def ahead_of_time(function: Callable[..., Any], compiler: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """`function` through AOTAutograd with Inductor's decompositions and min-cut partition; `compiler` gets forward's and backward's graphs."""
    from torch._functorch.aot_autograd import aot_function
    from torch._functorch.partitioners import min_cut_rematerialization_partition
    from torch._inductor.decomposition import select_decomp_table

    made: Any = aot_function(function, compiler, compiler, min_cut_rematerialization_partition, select_decomp_table())
    compiled: Callable[..., Any] = made
    return compiled
