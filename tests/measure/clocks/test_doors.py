"""No clock without consent, shown by walking the source: who names a setting function, who gets hold of what calls one, who makes a consent."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import membound
from membound.errors import InputError
from membound.measure.clocks.consent import Consent, grant
from membound.measure.clocks.simulated import SimulatedDriver

ROOT = Path(membound.__file__).parent
CLOCKS = "measure/clocks/"

# What sets a clock, by the names of NVML's bindings (nvidia-ml-py, cuda.bindings.nvml) and of nvidia-smi's options.
SETTING_FUNCTION = re.compile(r"(nvmlDevice(Set|Reset)|device_(set|reset)_)\w*")
SETTING_OPTION = re.compile(r"(lock|reset)-(memory|gpu)-clocks|applications-clocks|(^|\s)-(lmcd?|lgc|rmcd?|rgc|ac|rac)\b")


@functools.cache
def nodes() -> dict[str, list[ast.AST]]:
    """All nodes of each file's source."""
    sources = {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in sorted(ROOT.rglob("*.py"))}
    return {name: list(ast.walk(ast.parse(text))) for name, text in sources.items()}


def files(found: Callable[[ast.AST], bool]) -> set[str]:
    """The files that have a node for which `found` is true."""
    return {name for name, every in nodes().items() if any(map(found, every))}


def names(node: ast.AST) -> Iterator[str]:
    """Names that `node` uses, imports or reads as an attribute."""
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.ImportFrom | ast.Import):
        yield from (alias.name for alias in node.names)


def text(node: ast.AST) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def calls(node: ast.AST, name: str) -> bool:
    """Whether `node` calls something of that name."""
    return isinstance(node, ast.Call) and name in list(names(node.func))[:1]


def test_one_file_names_the_drivers_setting_functions() -> None:
    assert files(lambda node: any(SETTING_FUNCTION.fullmatch(name) for name in names(node))) == {CLOCKS + "nvml_controls.py"}


def test_their_names_as_text_are_printed_only() -> None:
    assert files(lambda node: bool(SETTING_FUNCTION.fullmatch(text(node)))) == {CLOCKS + "calls.py"}
    # Where the text is, there is nothing to call by it.
    used = {name for node in nodes()[CLOCKS + "calls.py"] for name in names(node)}
    assert not used & {"importlib", "import_module", "pynvml", "getattr", "vars", "subprocess"}


def test_options_that_set_clocks_are_for_people_to_type() -> None:
    told = files(lambda node: bool(SETTING_OPTION.search(text(node))))
    assert told == {CLOCKS + "plan.py", CLOCKS + "journal.py"}
    started = files(lambda node: any(name.split(".")[0] in {"subprocess", "system", "popen", "execv", "posix_spawn"} for name in names(node)))
    assert CLOCKS + "guard.py" in started
    assert not told & started


def test_controls_are_made_by_their_driver_alone() -> None:
    for board in ("nvml", "simulated"):
        kind = {"nvml": "NvmlControls", "simulated": "SimulatedControls"}[board]
        assert files(lambda node, kind=kind: kind in names(node)) == {f"{CLOCKS}{board}.py"}


def test_one_function_hands_controls_out() -> None:
    assert files(lambda node: "_controls" in names(node)) == {CLOCKS + "consent.py"}
    (function,) = [
        node.name
        for node in nodes()[CLOCKS + "consent.py"]
        if isinstance(node, ast.FunctionDef) and any("_controls" in names(inner) for inner in ast.walk(node))
    ]
    assert function == "grant"


def test_two_places_ask_for_controls_and_perform_calls() -> None:
    asking = {CLOCKS + "session.py", CLOCKS + "restoring.py"}
    assert files(lambda node: calls(node, "grant")) == asking
    assert files(lambda node: calls(node, "perform")) == asking


def test_a_consent_comes_from_the_command_line_or_a_journal() -> None:
    assert files(lambda node: calls(node, "Consent")) == {CLOCKS + "restoring.py"}
    assert {name.partition("/")[0] for name in files(lambda node: calls(node, "from_options"))} <= {"cli"}


def test_a_session_is_begun_by_the_measured_sweep_alone() -> None:
    assert files(lambda node: calls(node, "Session")) == {"study/sweep/switching.py"}


@pytest.mark.parametrize("consent", [None, True, "yes", "--measure --over machine.gpu.hbm.clock=1593MHz", Consent("")])
def test_nothing_else_passes_for_consent(driver: SimulatedDriver, consent: object) -> None:
    with pytest.raises(InputError, match="only on --measure --over"):
        grant(driver, consent)  # type: ignore[arg-type]
