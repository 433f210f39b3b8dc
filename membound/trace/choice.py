"""A difference between a real run's Trace and the ghost's that is known: a choice that one makes and the other cannot, by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from membound.trace.schema import KINDS

Side = Literal["real", "ghost"]


@dataclass(frozen=True)
class Launch:
    """One operator: what it is called and touches."""

    op: str
    key: tuple[Any, ...]
    """What it must agree in with its like on the other side."""
    detail: str
    kind: str
    line: str
    choice: str = ""
    """Name of the choice by which it may stand for another."""


@dataclass(frozen=True)
class Choice:
    """A difference that is known: which operators only one side launches, and which stand for one another."""

    name: str
    reason: str
    real: str = ""
    """Regular expression for the names of operators that only the real run launches."""
    ghost: str = ""
    """The same for the ghost."""
    paired: tuple[tuple[str, str], ...] = ()
    """Operators of the real run and of the ghost that do the same, as regular expressions; memory that they make may differ."""
    same: tuple[int, int] = (2, 1)
    """How many of the first operands that a pair reads, and that it writes, are equal all the same."""
    memory: str = ""
    """Regular expression for operators whose memory may differ though they are the same on both sides."""
    sizes: frozenset[int] | None = None
    """Bytes of a block of memory that may differ; None for any."""
    kinds: frozenset[str] = frozenset(KINDS)
    """Kinds of instruction that may be on one side alone."""
    line: str = ""
    """Regular expression for the source line that launches it."""
    after: str = ""
    """Regular expression for the operator before it."""
    before: str = ""
    """Regular expression for the operator after it; the like of itself aside."""

    def accounts_for(self, side: Side, launch: Launch, previous: str, following: str) -> bool:
        """Whether `launch`, between the operators `previous` and `following`, may be on this side alone."""
        wanted = (
            (self.real if side == "real" else self.ghost, launch.op),
            (self.line or ".*", launch.line),
            (self.after or ".*", previous),
            (self.before or ".*", following),
        )
        return launch.kind in self.kinds and all(pattern and re.fullmatch(pattern, text) for pattern, text in wanted)

    def makes(self, side: Side, op: str, nbytes: int) -> bool:
        """Whether a block of `nbytes` that `op` made may be on this side alone."""
        if self.sizes is not None and nbytes not in self.sizes:
            return False
        patterns = [self.real, *(r for r, _ in self.paired)] if side == "real" else [self.ghost, *(g for _, g in self.paired)]
        return any(pattern and re.fullmatch(pattern, op) for pattern in (*patterns, self.memory))
