"""Frozen models of data, their canonical form and its digest, the identity of runs."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

from skd.common.errors import suggest

# Increased only when the canonical form itself changes: every run then gets a new identity.
IDENTITY_FORMAT = 1
IDENTITY_LENGTH = 16


def added_later(default: Any, *, neutral: Any, description: str | None = None) -> Any:
    """Declare a field that older specs lack.

    Args:
        default: the value in new specs.
        neutral: the behaviour before the field existed. The canonical form leaves this value out,
            so old runs keep their identity. A stored spec without the field has this value, even
            if the default differs.
        description: of the field.
    """
    return Field(default, description=description, json_schema_extra={"neutral": neutral})


class FrozenModel(BaseModel):
    """An immutable model that refuses unknown keys and names the allowed ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, dict):
            return data
        names = _names(cls)
        for key, value in data.items():
            if key not in names:
                raise ValueError(f"unknown key '{key}'{suggest(str(key), list(names))}")
            annotation = cls.model_fields[names[key]].annotation
            if isinstance(value, bool) and annotation is not bool:
                raise ValueError(f"{names[key]}: {str(value).lower()} is not allowed")
            if not _may_contain_bool(annotation) and _contains_bool(value):
                raise ValueError(f"{names[key]}: true and false are not allowed in it")
        if info.context == "stored":
            missing = {n: v for n, v in _neutral_values(cls).items() if n not in data}
            return {**data, **missing}
        return data

    @classmethod
    def restore(cls, data: dict[str, Any]) -> Self:
        """Validate a stored canonical form: missing fields get the neutral value, not the default.

        Raises:
            pydantic.ValidationError: the data do not fit this model.
        """
        return cls.model_validate(data, context="stored")


@cache
def _names(model: type[BaseModel]) -> dict[str, str]:
    """Return the names of a model's fields by their keys in data. Cached: records have many."""
    return {field.alias or name: name for name, field in model.model_fields.items()}


@cache
def _may_contain_bool(annotation: Any) -> bool:
    """Return whether a field may contain booleans; pydantic reads others as 0 or 1."""
    if parts := get_args(annotation):
        return any(map(_may_contain_bool, parts))
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation in (bool, Any) or is_model  # a model checks its own fields


def _contains_bool(value: Any) -> bool:
    if isinstance(value, dict):
        value = [*value.values()]
    return isinstance(value, bool) or (
        isinstance(value, list | tuple) and any(map(_contains_bool, value))
    )


@cache
def _neutral_values(model: type[BaseModel]) -> dict[str, Any]:
    extras = {name: field.json_schema_extra for name, field in model.model_fields.items()}
    return {
        name: extra["neutral"]
        for name, extra in extras.items()
        if isinstance(extra, dict) and "neutral" in extra
    }


def canonical(value: Any) -> Any:
    """Return plain data to hash and store, without fields that have their neutral value."""
    if isinstance(value, BaseModel):
        neutral = _neutral_values(type(value))
        return {
            name: canonical(getattr(value, name))
            for name in type(value).model_fields
            if not (name in neutral and getattr(value, name) == neutral[name])
        }
    if isinstance(value, dict):
        return {str(key): canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    return value


def digest(value: Any) -> str:
    """Return the identity of plain data: the first digits of the SHA-256 of its sorted JSON."""
    text = json.dumps([IDENTITY_FORMAT, value], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:IDENTITY_LENGTH]
