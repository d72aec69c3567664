"""The strict reading that every document of the index goes through.

What is read is bounded (8 MiB, 32 levels) and free of duplicate keys before a model sees it.
"""

from __future__ import annotations

import json
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import to_json

from curator.errors import IntegrityError
from curator.index._model import SPEC, Model
from curator.places import MAX_DOCUMENT_BYTES

MAX_DEPTH: Final = 32

ModelT = TypeVar("ModelT", bound=Model)


def parse(model: type[ModelT], data: bytes, name: str) -> ModelT:
    """Read one document strictly.

    Raises:
        IntegrityError: too big, too deep, no JSON object, a key twice, a float, or the wrong shape.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        raise IntegrityError(f"{name}: {len(data)} bytes, more than {MAX_DOCUMENT_BYTES}")
    _check_json(data, name)
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise IntegrityError(f"{name}: {_first(error)}") from error


def _check_json(data: bytes, name: str) -> None:
    """Refuse what two JSON readers could read differently."""
    try:
        value = json.loads(data.decode(), parse_float=_refuse_number, parse_constant=_refuse_number)
        if not _is_whole(value, data):
            json.loads(data.decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{name}: {error}") from error
    if not isinstance(value, dict):
        raise IntegrityError(f"{name}: not a JSON object")
    _check_spec(value, name)
    _check_depth(value, name)


def _is_whole(value: object, data: bytes) -> bool:
    """Say whether the value is written as it was read: then no key stood twice in it."""
    return to_json(value) == data


def _check_spec(value: dict[str, Any], name: str) -> None:
    spec = value.get("spec")
    if type(spec) is int and spec > SPEC:
        raise IntegrityError(f"{name}: written for spec {spec}, this reads {SPEC}: update curator")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def _refuse_number(text: str) -> None:
    raise ValueError(f"the number {text} is not an integer")


def _check_depth(value: dict[str, Any], name: str) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for item in level
            for child in (item.values() if type(item) is dict else item)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return
    raise IntegrityError(f"{name}: nested deeper than {MAX_DEPTH} levels")


def _first(error: ValidationError) -> str:
    """Say what is wrong with the first misshapen field, and how many more there are."""
    findings = error.errors(include_url=False, include_input=False)
    place = ".".join(str(part) for part in findings[0]["loc"]) or "document"
    more = f" (and {len(findings) - 1} more)" if findings[1:] else ""
    return f"{place}: {findings[0]['msg']}{more}"
