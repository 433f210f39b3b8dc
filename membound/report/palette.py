"""What memory is made of, in the order it is stacked, with names, letters and colours that the colour-blind can tell apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

ThemeName = Literal["light", "dark"]

# From what stays to what comes and goes, so that the steady part is the base of every stack.
STACK: Final = ("weights", "optimizer", "gradients", "communication", "workspace", "activations", "logits", "temporaries")
# Held for part of a step only: drawn with spikes.
COMES_AND_GOES: Final = frozenset({"activations", "logits", "temporaries"})
# Outside the caching allocator: always under the stack.
CONTEXT: Final = "context"
UNUSED: Final = "unused"

LABEL: Final = {
    "context": "context, libraries",
    "weights": "weights",
    "optimizer": "optimizer states",
    "gradients": "gradients",
    "communication": "communication",
    "workspace": "workspaces",
    "activations": "activations",
    "logits": "logits and loss",
    "temporaries": "temporaries",
    "unused": "reserved, unused",
}
LETTER: Final = {
    "context": "x",
    "weights": "w",
    "optimizer": "o",
    "gradients": "g",
    "communication": "c",
    "workspace": "k",
    "activations": "a",
    "logits": "l",
    "temporaries": "t",
    "unused": "-",
}

# Paul Tol, "Colour Schemes", SRON/EPS/TN/09-002 issue 3.2 (2021): `muted`, distinct in all forms of colour blindness on white.
_LIGHT: Final = {
    "context": "#bbbbbb",
    "weights": "#332288",
    "optimizer": "#88ccee",
    "gradients": "#44aa99",
    "communication": "#999933",
    "workspace": "#117733",
    "activations": "#ddcc77",
    "logits": "#cc6677",
    "temporaries": "#882255",
    "unused": "#e2e2e2",
}
# The same source: `light`, meant for filled areas with dark text; bright enough for a dark ground.
# Its light blue stands too near its light cyan to be stacked with it: `weights` is a deeper blue.
_DARK: Final = {
    "context": "#8a919b",
    "weights": "#7788ee",
    "optimizer": "#99ddff",
    "gradients": "#44bb99",
    "communication": "#bbcc33",
    "workspace": "#aaaa00",
    "activations": "#eedd88",
    "logits": "#ee8866",
    "temporaries": "#ffaabb",
    "unused": "#4b535e",
}


@dataclass(frozen=True)
class Theme:
    """Colours of a figure."""

    ground: str
    ink: str
    quiet: str
    faint: str
    alarm: str
    fill: dict[str, str]


THEMES: Final[dict[ThemeName, Theme]] = {
    "light": Theme(ground="#ffffff", ink="#1b1f24", quiet="#667080", faint="#e4e7eb", alarm="#bb2233", fill=_LIGHT),
    "dark": Theme(ground="#10151b", ink="#e8ebef", quiet="#98a2ae", faint="#29313a", alarm="#ff7a7a", fill=_DARK),
}
