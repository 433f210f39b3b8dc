"""The house rules of docs and design, walked through the source: who may import whom, who may import torch, who may touch its private parts."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import membound

ROOT = Path(membound.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# For each part of the house, the parts that it may import besides itself.
BASE = {"errors", "units", "folders", "packages"}
SPEC = BASE | {"spec"}
MAY_IMPORT = {
    "errors": set(),
    "units": {"errors"},
    "folders": {"errors"},
    "packages": set(),
    "sources": set(),
    "processors": set(),
    "spec": BASE,
    "trace": SPEC | {"sources"},
    "run": SPEC,
    "cost": SPEC | {"trace", "run"},
    "replay": SPEC | {"trace", "run", "cost"},
    "programs": SPEC,
    "ghost": SPEC | {"trace", "programs"},
    "measure": SPEC | {"trace", "run", "programs", "__init__"},
    # Exports also write out the trace and the replay that a predicted Run came from.
    "report": BASE | {"run", "trace", "replay"},
    # A study draws figures of the Runs that it composes.
    "study": SPEC | {"trace", "run", "cost", "replay", "ghost", "measure", "report", "sources", "processors", "__init__"},
    "cli": SPEC | {"trace", "run", "cost", "replay", "ghost", "measure", "study", "report", "__init__"},
    "__init__": SPEC | {"run", "study", "measure"},
    "__main__": {"cli"},
}
WITHOUT_TORCH = SPEC | {"sources", "processors", "trace", "run", "cost", "replay", "study", "report", "cli", "__init__", "__main__"}
TORCH_PACKAGES = {"torch", "transformers", "peft", "bitsandbytes", "deepspeed", "accelerate"}
# The ghost's doors for those who have no torch.
TORCHLESS_FILES = {"ghost/__init__.py", "ghost/capture.py", "ghost/child.py", "ghost/row_lengths.py"}
# Public, though it begins with an underscore: operators as the dispatcher names them, and the dispatch mode's own module.
PUBLIC_IN_SPITE = {"torch.utils._python_dispatch", "torch.utils._pytree"}


def part_of(file: Path) -> str:
    """The part of the house that `file` belongs to."""
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, at any depth, `from a import b` as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of_import(name: str) -> str:
    """The part of the house that an import of `name` reaches into."""
    _, _, rest = name.partition(".")
    part = rest.split(".")[0]
    return part if part in MAY_IMPORT else "__init__"


@functools.cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def ids(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("file", FILES, ids=ids)
def test_imports_point_one_way(file: Path) -> None:
    part = part_of(file)
    reached = {part_of_import(name) for name in imports(parsed(file)) if name.split(".")[0] == "membound"}
    assert reached <= MAY_IMPORT[part] | {part}


@pytest.mark.parametrize("file", [file for file in FILES if part_of(file) in WITHOUT_TORCH or ids(file) in TORCHLESS_FILES], ids=ids)
def test_no_torch_outside_programs_ghost_and_measure(file: Path) -> None:
    used = {name.split(".")[0] for name in imports(parsed(file))}
    assert not used & TORCH_PACKAGES


@pytest.mark.parametrize("file", [file for file in FILES if file.parent != ROOT / "ghost/private"], ids=ids)
def test_private_torch_in_one_folder_only(file: Path) -> None:
    tree = parsed(file)
    private = {name for name in imports(tree) if name.startswith("torch.") and any(p.startswith("_") and p != "__future__" for p in name.split("."))}
    assert not {name for name in private if not any(name.startswith(public) for public in PUBLIC_IN_SPITE)}
    assert not {dotted for dotted in attributes(tree) if is_private(dotted)}


def attributes(tree: ast.AST) -> Iterator[str]:
    """Dotted names that begin at `torch`."""
    for node in ast.walk(tree):
        parts: list[str] = []
        at: ast.AST = node
        while isinstance(at, ast.Attribute):
            parts.append(at.attr)
            at = at.value
        if parts and isinstance(at, ast.Name) and at.id == "torch":
            yield ".".join(["torch", *reversed(parts)])


def is_private(dotted: str) -> bool:
    # Operators are public by their registered names, such as torch.ops.aten._to_copy.
    if dotted.startswith("torch.ops."):
        return False
    return any(part.startswith("_") and not part.startswith("__") for part in dotted.split("."))


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import membound", ["torch", "pydantic", "numpy", "pyarrow", "yaml", "typer", "rich"]),
        ("import membound; membound.Job, membound.Machine", ["torch", "pyarrow", "numpy"]),
        ("import membound; membound.predict", ["torch", "transformers"]),
        ("import membound.cli.app", ["torch", "pydantic", "numpy", "pyarrow", "yaml"]),
    ],
)
def test_doors_load_no_more_than_they_need(statement: str, absent: list[str]) -> None:
    code = f"import sys; {statement}; print(*sorted({set(absent)!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_door_names_all_that_it_offers() -> None:
    assert set(membound.__all__) <= set(dir(membound))
    for name in membound.__all__:
        assert getattr(membound, name) is not None


def test_the_door_refuses_other_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Jobb'"):
        _ = membound.Jobb
