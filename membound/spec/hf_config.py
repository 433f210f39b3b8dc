"""Reading a Hugging Face config.json that somebody else wrote: size, form and every number are checked before any framework sees it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from membound.errors import InputError

# The longest config.json seen on public hubs lists a few thousand labels: some 200 kB.
MAX_BYTES = 1_000_000
# Deepest nesting seen: a composite model's text_config.rope_scaling with lists in it.
MAX_DEPTH = 16

# Largest sensible value of each size, and the names that model families give to it. The least is 1.
_SIZES: tuple[tuple[int, str], ...] = (
    (2**20, "hidden_size n_embd d_model dim embed_dim word_embed_proj_dim"),
    (2**20, "intermediate_size moe_intermediate_size n_inner ffn_dim ffn_hidden_size d_ff encoder_ffn_dim decoder_ffn_dim"),
    (10_000, "num_hidden_layers n_layer n_layers num_layers num_decoder_layers encoder_layers decoder_layers"),
    (2**16, "num_attention_heads n_head n_heads num_heads num_key_value_heads num_kv_heads head_dim d_kv"),
    (2**16, "num_local_experts num_experts n_routed_experts num_experts_per_tok"),
    (2**24, "vocab_size"),
    (2**30, "max_position_embeddings n_positions n_ctx max_seq_len"),
)
_LIMITS = {name: limit for limit, names in _SIZES for name in names.split()}
# No number of a configuration is larger: token ids, rope bases and lengths all lie far below.
_LARGEST = 1e12


def read_config(path: Path, allow_code: bool = False) -> dict[str, Any]:
    """The checked configuration at `path`. Raises `InputError` whose field is the path or path:key."""
    config = _parsed(path, _bytes(path))
    if not isinstance(config, dict):
        raise InputError(str(path), _kind(config), "write one JSON object, as config.json files are")
    for dotted, key, value in _leaves(config, path):
        _check(f"{path}:{dotted}", key, value)
    _check_type(config, path)
    if "auto_map" in config and not allow_code:
        cure = "this model brings its own code, which is not run; remove auto_map if Transformers knows the model_type, or allow code"
        raise InputError(f"{path}:auto_map", _kind(config["auto_map"]), cure)
    return config


def _bytes(path: Path) -> bytes:
    try:
        # A pipe or a device could block or never end.
        if not path.is_file():
            raise InputError("model", str(path), "there is no such file; name a config.json or a folder that holds one")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError("model", str(path), f"cannot be read: {error.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise InputError("model", str(path), f"larger than {MAX_BYTES:,} bytes: not a config.json (are these weights?)")
    return raw


def _parsed(path: Path, raw: bytes) -> object:
    try:
        return json.loads(raw, parse_constant=lambda word: _no_number(path, word))
    except RecursionError:
        raise InputError(str(path), "nested JSON", f"nested deeper than {MAX_DEPTH} levels") from None
    # Also UnicodeDecodeError, and integers of thousands of digits.
    except ValueError as error:
        raise InputError(str(path), raw[:40].decode("utf-8", "replace"), f"is not JSON: {error}"[:200]) from None


def _no_number(path: Path, word: str) -> NoReturn:
    raise InputError(str(path), word, "is no number; write a finite one")


def _leaves(config: dict[str, Any], path: Path) -> Iterator[tuple[str, str, object]]:
    """All values that are not collections: dotted name for people, last key, value."""
    pending: list[tuple[str, str, object, int]] = [("", "", config, 0)]
    while pending:
        dotted, key, value, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise InputError(f"{path}:{dotted}", "nested JSON", f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(value, dict):
            pending += [(_join(dotted, inner), inner, value[inner], depth + 1) for inner in value]
        elif isinstance(value, list):
            pending += [(dotted, key, inner, depth + 1) for inner in value]
        else:
            yield dotted, key, value


def _join(dotted: str, key: str) -> str:
    # Names are cut short, lest a long key with many children fill the memory; lone surrogates cannot be printed.
    short = key[:60].encode("utf-8", "backslashreplace").decode("utf-8")
    return f"{dotted[:120]}.{short}" if dotted else short


def _check(field: str, key: str, value: object) -> None:
    limit = _LIMITS.get(key)
    if limit is not None and value is not None:
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
            raise InputError(field, _plain(value), f"write a whole number from 1 to {limit:,}")
    elif isinstance(value, int | float) and not (abs(value) <= _LARGEST and math.isfinite(value)):
        raise InputError(field, _plain(value), f"write a finite number up to {_LARGEST:g}")


def _check_type(config: dict[str, Any], path: Path) -> None:
    kind = config.get("model_type")
    if not isinstance(kind, str) or not kind.strip():
        raise InputError(f"{path}:model_type", _plain(kind), "must be given, such as 'llama'")


def _plain(value: object) -> object:
    # An integer may have more digits than Python prints.
    return value if not isinstance(value, int) or abs(value) < 10**30 else "an integer of more than 30 digits"


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", str: "a text", type(None): "null"}.get(type(value), "a number")
