"""What a person reads after `membound predict`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from membound.report.export import text
from membound.report.inert import inert, keep_tail
from membound.report.palette import LABEL, LETTER, STACK, THEMES
from membound.report.terminal_bar import segments
from membound.run.schema import Fits, Missing, Run, Value
from membound.trace.schema import CATEGORIES
from tests.report.on_terminal import shown, together

HOSTILE = "evil\x1b[31m[red]name[/red]\x1b]0;owned\x07\n\u202edesrever"


def test_it_says_what_runs_where_and_whether_it_fits(run: Run) -> None:
    said = together(run)
    assert "llama-7b LoRA rank 16, bf16-mixed, ZeRO-3" in said
    assert "8 x h100-sxm (hgx-h100) · micro-batch 4, rows of 512 tokens · predicted" in said
    assert "FITS ON THE GPU needs 13.00 GiB of 16.0 GiB, 3.00 GiB spare" in said
    assert "FITS ON THE HOST needs 31.00 GiB of 64.0 GiB" in said
    assert "DOES NOT FIT" not in said


def test_the_peak_is_placed_in_the_program(run: Run) -> None:
    said = together(run, width=140)
    place = "model.layers.31.mlp.down_proj, transformers/models/llama/modeling_llama.py:174 (aten.mm.default)"
    assert f"in backward of step 1, at {place}" in said


def test_categories_bands_and_folded_holdings_are_listed(run: Run) -> None:
    said = together(run)
    assert "weights 4.00 GiB 25.0 % of the GPU" in said
    assert "model.layers.*.mlp.up_proj x32 4.00 GiB" in said
    assert "optimizer states torch/optim/adam.py:178 8.00 GiB" in said
    assert "allocated 12.00 GiB 11.8 GiB to 12.2 GiB" in said
    assert "optimizer (pinned) 8.00 GiB" in said
    assert "fused attention as CUDA would choose it" in said


def test_missing_is_said_with_its_reason_and_never_as_zero(run: Run) -> None:
    said = together(run)
    assert "pinned not known: the engine's pinned buffers were not captured" in said
    assert "gradients" not in said  # none are held at the peak
    assert " 0 B" not in said


def test_a_peak_that_is_missing_is_not_judged_by_a_number(run: Run) -> None:
    values = {**run.values, "gpu.memory.used.peak": Missing("no sensor")}
    assert "FITS ON THE GPU peak not known: no sensor" in together(replace(run, values=values))


def test_what_does_not_fit_comes_with_the_excess_and_cures(run_with: Callable[..., Run], run: Run) -> None:
    cures = [
        {"change": "recipe.micro_batch=2", "fits": False, "used": 12 * 2**30},
        {"change": "recipe.recompute=full", "fits": True, "used": 9 * 2**30},
    ]
    values = {**run.values, "gpu.memory.capacity": Missing("unknown board")}
    machine = {"name": "own", "gpu": {"hbm": {"capacity": 10.0 * 2**30}}}
    said = together(run_with(fits=Fits(False, True, "Activations fill it."), values=values, machine=machine, about={"cures": cures}))
    assert "DOES NOT FIT ON THE GPU needs 13.00 GiB, has 10.0 GiB: 3.00 GiB too much" in said
    assert "Activations fill it." in said
    assert said.index("recipe.recompute=full") < said.index("recipe.micro_batch=2")
    assert "What would fit" in said


def test_a_band_across_the_capacity_is_called_close(run: Run) -> None:
    values = {**run.values, "gpu.memory.capacity": Value(13.2 * 2**30, "B", 13.2 * 2**30, 13.2 * 2**30, "board")}
    assert re.search(r"close: 12\.3 GiB to 13\.\d GiB is expected", together(replace(run, values=values)))


@pytest.mark.parametrize("width", [24, 40, 60, 61, 80, 100, 200])
@pytest.mark.parametrize("colour", [False, True])
def test_no_line_is_wider_than_the_terminal(run: Run, width: int, colour: bool) -> None:
    lines = shown(run, width, colour).splitlines()
    assert max(len(inert(line, 10**4)) for line in lines) <= width


@pytest.mark.parametrize("width", [60, 100])
def test_without_colour_the_bar_is_made_of_letters_in_proportion(run: Run, width: int) -> None:
    bar = next(line for line in shown(run, width).splitlines() if line.startswith("xx"))
    assert len(bar) == width
    assert bar.count("w") == pytest.approx(width * 4 / 16, abs=1)
    assert bar.count("o") == pytest.approx(width * 8 / 16, abs=1)
    assert bar.count("░") == pytest.approx(width * 3 / 16, abs=1)


def test_with_colour_the_bar_is_labelled(run: Run) -> None:
    said = shown(run, 100, colour=True)
    assert "\x1b[" in said
    assert " weights " in inert(said, 10**5)


def test_the_bar_adds_up_to_what_the_driver_shows(run: Run) -> None:
    assert sum(part.nbytes for part in segments(run)) == pytest.approx(13 * 2**30, rel=1e-6)


def test_a_terminal_of_ascii_alone_gets_ascii_alone(run: Run) -> None:
    run = replace(run, job={**run.job, "model": "模型é"})
    assert shown(run, 72, encoding="ascii").isascii()


def test_hostile_names_are_inert(run: Run) -> None:
    about = {
        "moment": {"phase": HOSTILE, "step": 0, "module": HOSTILE, "line": HOSTILE, "op": HOSTILE},
        "notes": [HOSTILE],
        "cures": [{"change": HOSTILE}],
    }
    about["host_by_category"] = {HOSTILE: 5.0}
    holdings = pa.table({"category": [HOSTILE], "module": [HOSTILE], "line": [HOSTILE], "nbytes": [5], "blocks": [1]})
    values = {**run.values, "host.memory.pinned.peak": Missing(HOSTILE)}
    hostile = replace(
        run, job={"model": HOSTILE, "recipe": {"engine": HOSTILE}, "gpus": HOSTILE}, machine={"name": HOSTILE}, fits=Fits(False, False, HOSTILE),
        about=about, values=values, tables={"memory.holdings": holdings},
    )  # fmt: skip
    said = shown(hostile, 100)
    assert "[red]name[/red]" in said  # shown as it is, not obeyed
    assert not any(sign in said for sign in ("\x1b", "\x07", "\u202e"))


@pytest.mark.parametrize(
    "about",
    [{}, {"moment": None, "cures": None, "notes": None}, {"moment": {}, "cures": [3], "notes": "one"}, {"host_by_category": {"a": None}}],
)
def test_a_bare_run_is_still_shown(run: Run, about: dict[str, Any]) -> None:
    bare = Run("published", {"model": "x"}, {}, Fits(True, True), {}, {}, about)
    assert "FITS ON THE GPU" in shown(bare)


def test_the_text_export_has_no_escapes_nor_trailing_blanks(run: Run) -> None:
    said = text(run)
    assert "\x1b" not in said
    assert all(line == line.rstrip() for line in said.split("\n"))


def test_every_category_has_a_place_a_name_a_letter_and_colours() -> None:
    assert set(STACK) == set(CATEGORIES)
    for theme in THEMES.values():
        assert set(theme.fill) == set(LABEL) == set(LETTER) >= set(STACK)
        assert len(set(theme.fill.values())) == len(theme.fill)
    assert len(set(LETTER.values())) == len(LETTER)


def test_paths_keep_their_end() -> None:
    assert keep_tail("model.layers.*.self_attn.q_proj", 20) == "…*.self_attn.q_proj"
    assert keep_tail("short", 20) == "short"
