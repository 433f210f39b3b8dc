"""Stored distributions of row lengths, in tokens, each with its source in its file."""

from __future__ import annotations

import json
from importlib import resources
from typing import Final

ROWS: Final = 512
"""Rows of stored lengths that a real run is fed, over and over: the first of them."""


def stored(name: str) -> list[int]:
    """Token counts of the rows of the data set `name`, before truncation."""
    text = resources.files("membound.spec").joinpath(f"data/lengths/{name}.json").read_text()
    return list(json.loads(text)["tokens"])
