"""Boxes and arrows as SVG text, for diagrams that are drawn from a Job or a Machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import Final

_LETTERS: Final = "font-size='12' text-anchor='middle' fill='var(--ink)'"
_MARKER: Final = (
    "<defs><marker id='tip' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' markerHeight='7' orient='auto'>"
    "<path d='M0 0L8 4L0 8z' fill='var(--quiet)'/></marker></defs>"
)


@dataclass
class Drawing:
    """An SVG under way; coordinates in pixels, y down."""

    width: int
    height: int
    _parts: list[str] = field(default_factory=list)

    def box(self, x: float, y: float, width: float, height: float, words: str, colour: int | None = None) -> None:
        """A box with `words` in it, a line each, in the page's colour number `colour` or none."""
        fill = "fill='none'" if colour is None else f"fill='var(--c{colour})' fill-opacity='0.16'"
        line = "var(--quiet)" if colour is None else f"var(--c{colour})"
        self._parts.append(f"<rect x='{x}' y='{y}' width='{width}' height='{height}' rx='5' {fill} stroke='{line}' stroke-width='1.3'/>")
        lines = words.split("\n") if words else []
        for at, text in enumerate(lines):
            self.words(x + width / 2, y + height / 2 + 4 + (at - (len(lines) - 1) / 2) * 16, text)

    def frame(self, x: float, y: float, width: float, height: float, words: str) -> None:
        """A dashed frame around other things, named at its upper left."""
        self._parts.append(
            f"<rect x='{x}' y='{y}' width='{width}' height='{height}' rx='8' fill='none' stroke='var(--quiet)' stroke-dasharray='5 4'/>"
        )
        self._parts.append(f"<text x='{x + 8}' y='{y + 16}' font-size='12' fill='var(--quiet)'>{escape(words)}</text>")

    def words(self, x: float, y: float, text: str) -> None:
        """Words centred at x."""
        self._parts.append(f"<text x='{x}' y='{y}' {_LETTERS}>{escape(text)}</text>")

    def arrow(self, x: float, y: float, to_x: float, to_y: float) -> None:
        """An arrow."""
        ends = f"x1='{x}' y1='{y}' x2='{to_x}' y2='{to_y}'"
        self._parts.append(f"<line {ends} stroke='var(--quiet)' stroke-width='1.3' marker-end='url(#tip)'/>")

    def line(self, x: float, y: float, to_x: float, to_y: float) -> None:
        """A line."""
        self._parts.append(f"<line x1='{x}' y1='{y}' x2='{to_x}' y2='{to_y}' stroke='var(--quiet)' stroke-width='1.3'/>")

    def svg(self) -> str:
        """All of it."""
        box = f"viewBox='0 0 {self.width} {self.height}'"
        return f"<svg xmlns='http://www.w3.org/2000/svg' {box}>{_MARKER}{''.join(self._parts)}</svg>"
