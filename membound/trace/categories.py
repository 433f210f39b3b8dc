"""What the storages of a Trace hold, told from when they live and what made them: activations, and logits with the loss.

While a Program runs it is not known yet what will outlive forward; when the Trace is whole it is.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from membound.trace.schema import CATEGORY, KIND, PHASE, PLACE, Trace

Codes = npt.NDArray[np.int8]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Last names of the module that maps hidden states to the vocabulary: lm_head in Transformers' models, embed_out in GPT-NeoX.
_HEADS: Final = frozenset({"lm_head", "embed_out"})
_LOSS: Final = "transformers/loss/"
# Where engines put whole parameters together for a while: DeepSpeed ZeRO-3 and PyTorch's FSDP2.
_GATHERING: Final = ("deepspeed/runtime/zero/partition_parameters.py", "fsdp/_fully_shard/")


def refined(trace: Trace) -> Codes:
    """The category of each storage: of the GPU's temporaries, those that forward keeps for backward are activations.

    Logits are what has the vocabulary as its last dimension and what the loss makes, with their gradients. The weights of the vocabulary's
    projection, cast for a forward, are activations like other layers'. Parameters that an engine gathers are communication. Categories that
    the Program has named stay.
    """
    storages = trace.storages
    category: Codes = storages["category"].copy()
    if not len(category):
        return category
    births, deaths = lifetimes(trace)
    unnamed = (storages["place"] == PLACE["gpu"]) & np.isin(category, [CATEGORY["temporaries"], CATEGORY["activations"]]) & (births >= 0)
    category[unnamed & _outlives_forward(trace, births, deaths)] = CATEGORY["activations"]
    gathering = np.array([line.startswith(_GATHERING) for line in trace.header.lines], np.bool_)
    category[unnamed & gathering[storages["line"]] & _in_model(trace, births)] = CATEGORY["communication"]
    category[unnamed & _of_the_loss(trace, births)] = CATEGORY["logits"]
    return category


def lifetimes(trace: Trace) -> tuple[Rows, Rows]:
    """Row of each storage's allocation (-1: never) and of its free (the number of rows: never)."""
    count = len(trace.storages["place"])
    births = np.full(count, -1, np.int64)
    deaths = np.full(count, len(trace), np.int64)
    target = trace.instructions["target"]
    rows = trace.select("alloc")
    births[target[rows]] = rows
    rows = trace.select("free")
    deaths[target[rows]] = rows
    return births, deaths


def _outlives_forward(trace: Trace, births: Rows, deaths: Rows) -> Mask:
    """Born in forward and alive when the same micro-step's backward begins."""
    rows = trace.instructions
    key = rows["step"].astype(np.int64) << 16 | rows["micro"].astype(np.int64) & 0xFFFF
    backward = np.flatnonzero(rows["phase"] == PHASE["backward"])
    keys, first = np.unique(key[backward], return_index=True)
    born = np.maximum(births, 0)
    at = np.searchsorted(keys, key[born])
    # One more key that none has, for a micro-step without backward.
    starts = np.append(backward[first], len(trace))
    same = np.append(keys, -1)[at] == key[born]
    result: Mask = np.logical_and((rows["phase"][born] == PHASE["forward"]) & same, deaths > starts[at])
    return result


def _in_model(trace: Trace, births: Rows) -> Mask:
    phase = trace.instructions["phase"][np.maximum(births, 0)]
    found: Mask = np.isin(phase, [PHASE["forward"], PHASE["backward"]])
    return found


def _of_the_loss(trace: Trace, births: Rows) -> Mask:
    """Made by lines of the loss, or with the vocabulary as last dimension, in forward or backward."""
    lines = np.array([line.startswith(_LOSS) for line in trace.header.lines], np.bool_)
    found: Mask = lines[trace.storages["line"]]
    last = np.array([_last_dimension(shape) for shape in trace.header.shapes], np.int64)
    vocabulary = _vocabulary(trace, last)
    if vocabulary:
        operands = trace.operands
        wide = (operands["write"] == 1) & (last[operands["shape"]] == vocabulary)
        found[operands["storage"][wide]] = True
    result: Mask = np.logical_and(found, _in_model(trace, births))
    return result


def _vocabulary(trace: Trace, last: Rows) -> int:
    """Last dimension of the largest product of the head's forward; 0 if there is no head."""
    header, rows, operands = trace.header, trace.instructions, trace.operands
    heads = np.array([path.rpartition(".")[2] in _HEADS for path in header.modules])
    products = np.array(["mm" in op for op in header.ops])
    launched = (rows["kind"] == KIND["kernel"]) & (rows["phase"] == PHASE["forward"]) & heads[rows["module"]] & products[rows["op"]]
    made = np.flatnonzero((operands["write"] == 1) & launched[operands["instruction"]])
    if not len(made):
        return 0
    return int(last[operands["shape"][made[np.argmax(operands["nbytes"][made])]]])


def _last_dimension(shape: str) -> int:
    inside = shape.partition("[")[2].rstrip("]").rpartition(",")[2]
    return int(inside) if inside.isdigit() else 0
