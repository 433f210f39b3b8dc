"""The holdings at the peak, with the layers of a model folded into one line: model.layers.*.mlp.up_proj x32."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

_NUMBERED = re.compile(r"(?<![^.])\d+(?![^.])")


@dataclass(frozen=True)
class Group:
    """Alike holdings of alike modules. Bytes."""

    category: str
    module: str
    """Path with numbered parts as '*', or the path itself where only one module holds."""
    line: str
    """The line that made most of it."""
    modules: int
    blocks: int
    nbytes: int


def fold(path: str) -> str:
    """`path` with its numbered parts as '*'."""
    return _NUMBERED.sub("*", path)


def groups(holdings: pa.Table | None) -> list[Group]:
    """The holdings table folded by category and module path, largest first. Without a module, the line that made it tells more."""
    if holdings is None or not {"category", "module", "line", "nbytes"} <= set(holdings.column_names):
        return []
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for row in holdings.to_pylist():
        module, line = str(row["module"] or ""), str(row["line"] or "")
        found.setdefault((str(row["category"]), fold(module), "" if module else line), []).append({**row, "module": module, "line": line})
    return sorted((_group(key, rows) for key, rows in found.items()), key=lambda group: -group.nbytes)


def _group(key: tuple[str, str, str], rows: list[dict[str, Any]]) -> Group:
    modules = {row["module"] for row in rows}
    by_line: dict[str, int] = {}
    for row in rows:
        by_line[row["line"]] = by_line.get(row["line"], 0) + int(row["nbytes"])
    return Group(
        category=key[0],
        module=key[1] if len(modules) > 1 else rows[0]["module"],
        line=max(by_line, key=lambda line: by_line[line]),
        modules=len(modules),
        blocks=sum(int(row.get("blocks") or 0) for row in rows),
        nbytes=sum(by_line.values()),
    )
