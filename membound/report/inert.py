"""Text from outside (model names, module paths, file names) made harmless before it is shown."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

# ECMA-48: control sequences, operating system commands, and other two-byte escapes.
_ESCAPES: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-_]?|\x9b[0-?]*[ -/]*[@-~]")
# Cc control, Cf format (bidirectional overrides, zero width), Cs surrogates, Co private use, Zl and Zp line breaks.
_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def inert(value: object, limit: int = 240) -> str:
    """`value` as one line of visible characters, at most `limit`: no escape sequences, no control or direction-changing characters."""
    text = _ESCAPES.sub("", str(value)[: limit * 8])
    if not text.isascii() or not text.isprintable():
        text = "".join(_shown(character) for character in text)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def keep_tail(text: str, limit: int, ellipsis: str = "…") -> str:
    """`text` in at most `limit` characters; what goes is the front, since the end of a path tells most."""
    if len(text) <= limit:
        return text
    room = max(limit - len(ellipsis), 1)
    tail = text[-room:]
    cut = min((at for at in (tail.find("."), tail.find("/")) if at >= 0), default=-1)
    # Cut at a path component where that costs little.
    return ellipsis + (tail[cut + 1 :] if 0 <= cut < room // 3 else tail)


def _shown(character: str) -> str:
    if character in "\t\r\n\v\f":
        return " "
    return "" if unicodedata.category(character) in _UNSEEN else character
