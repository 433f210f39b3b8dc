"""What the terminal can show: its width, whether it has colours, and which signs its encoding holds."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions
from rich.text import Text

from membound.report.inert import inert, keep_tail
from membound.units import show

# Beyond this, lines are too long to read.
_WIDEST = 100


@dataclass(frozen=True)
class Face:
    """One terminal."""

    width: int
    colour: bool
    ascii: bool

    @classmethod
    def of(cls, console: Console, options: ConsoleOptions) -> Face:
        """The face of the console that is being written to."""
        return cls(min(options.max_width, _WIDEST), console.color_system is not None and not console.no_color, options.ascii_only)

    @property
    def yes(self) -> str:
        """Before good news."""
        return "+" if self.ascii else "✔"

    @property
    def no(self) -> str:
        """Before bad news."""
        return "x" if self.ascii else "✘"

    @property
    def dot(self) -> str:
        """Before an item of a list."""
        return "-" if self.ascii else "·"

    def say(self, value: object, style: str = "", limit: int = 240) -> Text:
        """`value` as inert text: never markup, never an escape sequence, never a character that the encoding lacks."""
        text = inert(value, limit)
        return Text(text.encode("ascii", "replace").decode() if self.ascii else text, style=style, overflow="fold")

    def tail(self, value: object, room: int, style: str = "") -> Text:
        """`value` in `room` cells, its end kept."""
        return self.say(keep_tail(inert(value), max(room, 8), "..." if self.ascii else "…"), style)

    def heading(self, title: str) -> Text:
        """A section's name and a rule to the edge."""
        rule = ("-" if self.ascii else "─") * max(self.width - len(title) - 1, 0)
        return Text.assemble((title, "bold"), " ", (rule, "dim"))


def size(nbytes: float, digits: int = 3) -> str:
    """Bytes as people read them."""
    return show(nbytes, "B", digits)
