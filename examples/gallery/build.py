"""Builds docs/gallery.md and its pictures: runs each entry's commands as they stand in gallery.yaml, with --json, and draws what they print.

make gallery                                    all of it, into docs
python examples/gallery/build.py NAME ...       some entries' pictures; the page's other entries stay as they are
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from membound.report import timeline
from membound.report.charts.bars import Bars
from membound.report.charts.colours import css
from membound.report.charts.figure import Figure
from membound.report.charts.lines import Lines
from membound.report.charts.stacked_bars import StackedBars
from membound.report.page import draw_bars, draw_lines
from membound.report.page.drawing import WIDE
from membound.run import store

sys.path.insert(0, str(Path(__file__).resolve().parent))
from pictures import PICTURES

ROOT = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("gallery.yaml")
PAGE, IMAGES = "gallery.md", "images/gallery"
# The memory timeline has thousands of edges: as pixels it is smaller.
PIXELS = {"timeline"}
# Room around a drawing, pixels.
_EDGE = 12
_HEAD = """# Gallery

What membound shows, and the commands that show it. `make gallery` runs them, draws the pictures and writes this page: sentences in italics are
computed from what the commands printed. Predictions need no GPU; the first time each training program is captured, which takes up to a minute each
on two cores, after that seconds.
"""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One entry of the gallery."""

    name: str
    title: str
    about: str
    commands: tuple[str, ...]
    picture: str
    labels: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """Name of its picture."""
        return f"{self.name}.{'png' if self.picture in PIXELS else 'svg'}"


def entries(path: Path = LIST) -> list[Entry]:
    """The entries in their order."""
    lists: list[dict[str, Any]] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [
        Entry(each["name"], each["title"], each["about"].strip(), tuple(each["commands"]), each["picture"], tuple(each.get("labels", ())))
        for each in lists
    ]


def run(command: str, root: Path = ROOT) -> dict[str, Any]:
    """What `command` prints as JSON, in `root`. Its folder, where it names one, is made anew."""
    words = shlex.split(command)
    if "--out" in words:
        shutil.rmtree(root / words[words.index("--out") + 1], ignore_errors=True)
    done = subprocess.run([sys.executable, "-m", *words, "--json"], capture_output=True, text=True, cwd=root, check=False)
    if done.returncode:
        raise SystemExit(f"{command}: {done.stderr.strip() or done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def draw(entry: Entry, documents: Sequence[Mapping[str, Any]], folder: Path, root: Path = ROOT) -> str:
    """Write the picture of `entry` into `folder`; the sentence that says what it shows."""
    figure = PICTURES[entry.picture](documents, entry.labels)
    folder.mkdir(parents=True, exist_ok=True)
    if entry.picture in PIXELS:
        words = shlex.split(entry.commands[0])
        content = timeline.render(store.read(root / words[words.index("--out") + 1]), "png", width=900)
    else:
        content = svg(figure, entry.name).encode()
    (folder / entry.file).write_bytes(content)
    return figure.says


def svg(figure: Figure, name: str) -> str:
    """`figure` as SVG that stands alone: on white, the page's variables in their light values."""
    drawn = _drawn(figure, f"{name}-")
    colours = css("light")
    drawn = re.sub(r"var\((--[\w-]+)\)", lambda found: colours[found[1]], drawn)
    drawn = drawn.replace("<svg ", '<svg font-family="DejaVu Sans, Verdana, sans-serif" ', 1)
    wide, high = (float(size) for size in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn)[0])
    wide, high = wide + 2 * _EDGE, high + 2 * _EDGE
    drawn = re.sub(r'viewBox="[^"]*"', f'viewBox="{-_EDGE} {-_EDGE} {wide:g} {high:g}"', drawn, count=1)
    ground = f'<rect x="{-_EDGE}" y="{-_EDGE}" width="{wide:g}" height="{high:g}" fill="{colours["--ground"]}"/>'
    return re.sub(r"(<svg [^>]*>)", rf"\1{ground}", drawn, count=1) + "\n"


def _drawn(figure: Figure, prefix: str) -> str:
    if isinstance(figure, Bars):
        return draw_bars.bars(figure, WIDE, prefix)
    if isinstance(figure, StackedBars):
        return draw_bars.stacked(figure, WIDE, prefix)
    assert isinstance(figure, Lines)
    return draw_lines.lines(figure, WIDE, prefix)


def page(found: Iterable[Entry], sentences: Mapping[str, str]) -> str:
    """The page in Markdown."""
    parts = [_HEAD]
    for entry in found:
        commands = "\n".join(entry.commands)
        parts.append(
            f"## {entry.title}\n\n{entry.about}\n\n```\n{commands}\n```\n\n![{entry.title}]({IMAGES}/{entry.file})\n\n*{sentences[entry.name]}*\n"
        )
    return "\n".join(parts)


def sentences(text: str, found: Iterable[Entry]) -> dict[str, str]:
    """The sentence of each entry that the page `text` has."""
    told = {}
    for entry in found:
        match = re.search(rf"\({re.escape(IMAGES)}/{re.escape(entry.file)}\)\n\n\*(.*)\*\n", text)
        if match:
            told[entry.name] = match[1]
    return told


def build(names: Sequence[str], docs: Path) -> None:
    """Draw the entries called `names`, all without any, and write the page into `docs`."""
    every = entries()
    known = [entry.name for entry in every]
    if unknown := sorted(set(names) - set(known)):
        raise SystemExit(f"{', '.join(unknown)}: no such entry; known: {', '.join(known)}")
    place = docs / PAGE
    told = sentences(place.read_text(encoding="utf-8"), every) if place.is_file() else {}
    for entry in every:
        if names and entry.name not in names:
            continue
        print(entry.name, file=sys.stderr, flush=True)
        # A command may read what one before it wrote.
        after = [command for command in entry.commands if " compare " in command]
        with ThreadPoolExecutor(2) as pool:
            documents = list(pool.map(run, [command for command in entry.commands if command not in after]))
        told[entry.name] = draw(entry, [*documents, *map(run, after)], docs / IMAGES)
    place.write_text(page(every, told), encoding="utf-8")
    print(place)


if __name__ == "__main__":
    build(sys.argv[1:], ROOT / "docs")
