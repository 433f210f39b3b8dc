"""What every file that people write has in common: quantities with units, frozen checked models, and one clear error for the first mistake."""

from __future__ import annotations

import ast
import difflib
import inspect
import itertools
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from membound import units
from membound.errors import InputError, UnitError


class Spec(BaseModel):
    """Base of everything that a user may write: immutable, no unknown keys, no NaN; a field's docstring says what it means."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


SpecT = TypeVar("SpecT", bound=BaseModel)

UNSOURCED: Final = "given by the user"
"""The `source` of values for which nobody has named another."""


@dataclass(frozen=True)
class Quantity:
    """Annotation for a float in the SI `unit` that may be written with units: `Annotated[float, Quantity("Hz")]` reads '2619 MHz' and 2.619e9.

    The value must be above zero, or at least zero where `zero` is set.
    """

    unit: str
    zero: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._read, handler(source))

    def _read(self, value: object) -> float:
        if not isinstance(value, str | int | float):
            raise self._refusal(_cure_of_unit(self.unit))
        try:
            number = units.parse(value, self.unit)
        # An integer of four hundred digits has no float.
        except OverflowError:
            raise self._refusal("write a finite number") from None
        except UnitError as error:
            raise self._refusal(error.cure) from error
        if number < 0 or (number == 0 and not self.zero):
            raise self._refusal("must be at least 0" if self.zero else "must be above 0")
        return number

    def _refusal(self, cure: str) -> PydanticCustomError:
        return PydanticCustomError("quantity", "{cure}", {"cure": cure})


def _cure_of_unit(unit: str) -> str:
    try:
        units.parse("?", unit)
    except UnitError as error:
        return error.cure
    raise AssertionError(unit)


Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Bytes = Annotated[float, Quantity("B")]
BytesPerSecond = Annotated[float, Quantity("B/s")]
Hertz = Annotated[float, Quantity("Hz")]
TransfersPerSecond = Annotated[float, Quantity("T/s")]
FlopPerSecond = Annotated[float, Quantity("FLOP/s")]
Watts = Annotated[float, Quantity("W")]
Celsius = Annotated[float, Quantity("degC")]
Bits = Annotated[float, Quantity("bit")]


def read(model: type[SpecT], data: object, field: str = "") -> SpecT:
    """Check `data` against `model`; raises one `InputError` whose field is dotted and begins with `field`."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise from_pydantic(error, model, field) from error


def with_values(value: SpecT, changes: Mapping[str, object], field: str = "") -> SpecT:
    """Copy `value` with dotted `changes` ({'gpu.hbm.clock': '1593 MHz'}) and check it whole; raises `InputError`."""
    data = value.model_dump()
    for dotted, new in changes.items():
        put(data, dotted.split("."), new, field)
    return read(type(value), data, field)


def put(data: dict[str, Any], keys: list[str], new: object, field: str = "") -> None:
    """Set the part of `data` that the path `keys` leads to; raises `InputError` where the path runs through a plain value."""
    for depth, key in enumerate(keys[:-1], start=1):
        inner = data.get(key)
        # An absent or empty part is made here, and refused by the model's own check if it has no such part.
        if inner is None:
            inner = data[key] = {}
        if not isinstance(inner, dict):
            raise InputError(_dotted([field, *keys[: depth + 1]]), new, f"{_dotted([field, *keys[:depth]])} has no parts")
        data = inner
    data[keys[-1]] = new


def from_pydantic(error: ValidationError, model: type[BaseModel], field: str = "") -> InputError:
    """The most telling mistake in `error` as one `InputError`: dotted field, value, cure. `field` is the dotted name of the whole."""
    first = min(error.errors(include_url=False), key=_rank)
    # Where pydantic reports a union, its location also holds names of the branches tried: those are no part of the written path.
    path, owner = _walk(first["loc"], model, last_is_key=first["type"] == "extra_forbidden")
    name = _dotted([field, *path]) or model.__name__.lower()
    kind = InputError if first["type"] != "quantity" else UnitError
    return kind(name, _told(first), _cure(first, owner))


def _rank(error: ErrorDetails) -> int:
    # A misspelt key is reported twice, as unknown and as missing: the unknown one shows the mistake.
    return {"extra_forbidden": 0, "missing": 2}.get(error["type"], 1)


def _dotted(parts: Iterable[str]) -> str:
    return ".".join(part[:100] for part in parts if part)


def _told(error: ErrorDetails) -> object:
    value = None if error["type"] == "missing" else error["input"]
    if isinstance(value, str):
        return value[:200]
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 10**30 else float("inf")
    # Never print a whole collection: aliases in YAML can make a small file's text endless.
    return f"a {type(value).__name__}"


def _walk(loc: tuple[int | str, ...], model: type[BaseModel], last_is_key: bool) -> tuple[list[str], type[BaseModel] | None]:
    """The written path of a pydantic location, and the model that holds its last key (None where that is no model).

    Parts that are neither a field nor an index are left out, but for an unknown key at the end.
    """
    path: list[str] = []
    here: list[type[BaseModel]] = [model]
    owner: type[BaseModel] | None = model
    for step, part in enumerate(loc):
        holder = next((each for each in here if str(part) in _keys(each)), None)
        if holder is not None:
            path.append(str(part))
            owner, here = holder, list(_models(_keys(holder)[str(part)]))
        elif branch := [each for each in here if each.__name__ == part]:
            here = branch
        elif isinstance(part, int) or (last_is_key and step == len(loc) - 1):
            path.append(str(part))
            owner = here[0] if here else None
    return path, owner


def _keys(model: type[BaseModel]) -> dict[str, Any]:
    return {info.alias or name: info.annotation for name, info in model.model_fields.items()}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _cure(error: ErrorDetails, owner: type[BaseModel] | None) -> str:
    match error["type"]:
        case "extra_forbidden":
            return _nearest("unknown key", error["loc"][-1], _keys(owner) if owner else ())
        case "literal_error" | "enum":
            return _nearest("not one of the choices", error["input"], re.findall(r"'([^']*)'", error["ctx"]["expected"]))
        case "missing":
            return f"must be given{_meaning(owner, error['loc'][-1])}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "write a mapping of keys to values"
        case "value_error" | "assertion_error":
            return str(error["ctx"]["error"])
    return error["msg"].replace("Input should be", "must be")


def _meaning(owner: type[BaseModel] | None, key: int | str) -> str:
    meaning = _docstrings(owner).get(str(key)) if owner else None
    return f" ({meaning})" if meaning else ""


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The docstrings under the fields of `model`. Read from its source when they are needed: pydantic's own reading costs 30 ms of each start."""
    lines = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    body = lines.body if isinstance(lines, ast.ClassDef) else []
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def _nearest(what: str, given: object, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(str(given)[:100], names, n=1, cutoff=0.5)
    return f"{what}; did you mean {near[0]}?" if near else f"{what}; known: {', '.join(names)}"
