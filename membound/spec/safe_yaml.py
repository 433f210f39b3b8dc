"""YAML that somebody else wrote: one mapping of plain values. Tags, aliases, deep nesting and repeated keys are refused before anything is built."""

from __future__ import annotations

from typing import Any

import yaml
from yaml import events

from membound.errors import InputError

try:
    from yaml import CSafeLoader as _Base
except ImportError:
    from yaml import SafeLoader as _Base  # type: ignore[assignment]

# A job file nests three deep.
MAX_DEPTH = 16


class _Loader(_Base):
    """Plain values, every key once."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise _refusal(f"the key {str(key.value)[:60]!r} is no text", key)
            if key.value in seen:
                raise _refusal(f"the key {key.value[:60]!r} stands twice", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


# A date is the text that was written: nothing in a Job is a date.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag not in {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:merge"}]
    for first, resolvers in _Base.yaml_implicit_resolvers.items()
}


def mapping(text: str, source: str) -> dict[str, Any]:
    """The mapping that `text` holds. Raises `InputError`, which names the file `source`."""
    data = _load(text, "job file", source)
    if not isinstance(data, dict):
        raise InputError("job file", source, "write a mapping of keys to values, beginning with model: and data:")
    return data


def value(text: str, field: str) -> object:
    """The value of `field` that `text` writes in YAML: 8, 'full', true, null, [a, b]. Raises `InputError`."""
    return _load(text, field, text)


def _load(text: str, field: str, told: str) -> object:
    try:
        _check_form(text)
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise InputError(field, told, _where(error)) from None
    except yaml.YAMLError as error:
        raise InputError(field, told, f"is not YAML: {str(error).splitlines()[0][:120]}") from None
    # An integer of five thousand digits, or a number out of its own type's range.
    except (ValueError, OverflowError, RecursionError) as error:
        raise InputError(field, told, f"holds what cannot be read: {str(error)[:120]}") from None


def _check_form(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Base):
        if isinstance(event, events.AliasEvent) or getattr(event, "anchor", None):
            raise _refusal("anchors and aliases (& and *) are not read", event)
        if getattr(event, "tag", None):
            raise _refusal("tags (!) are not read", event)
        depth += isinstance(event, events.CollectionStartEvent) - isinstance(event, events.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _refusal(f"nested deeper than {MAX_DEPTH} levels", event)


def _refusal(problem: str, where: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=where.start_mark)


def _where(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{place}{error.problem or 'is not YAML'}"
