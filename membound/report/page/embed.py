"""Text and scripts put into HTML so that nothing in them can end them early, or run unless it is ours."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from typing import Any, Final

# HTML, "Restrictions for contents of script elements": without these no text can close a script element or open a comment in it.
# U+2028 and U+2029 end lines in scripts of before 2019.
_UNSAFE: Final = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def json_text(value: Any) -> str:
    """`value` as JSON that can stand in a script element."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).translate(_UNSAFE)


def policy(scripts: Iterable[str]) -> str:
    """The page's Content-Security-Policy: no network at all, and no script but these."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts)
    rules = {
        "default-src": "'none'",
        "script-src": hashes or "'none'",
        "style-src": "'unsafe-inline'",
        "img-src": "data: blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{rule} {sources}" for rule, sources in rules.items())
