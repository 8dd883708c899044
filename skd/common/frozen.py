"""Frozen models of data, their canonical form and its digest."""

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

# Raised only when the canonical form itself changes: every run then gets a new identity.
IDENTITY_FORMAT = 1


IDENTITY_LENGTH = 16


def added_later(default: Any, *, neutral: Any, description: str | None = None) -> Any:
    """Declare a field that older specs lack.

    ``neutral`` is the behaviour from before the field existed. It is left out of the canonical
    form, so that old runs keep their identity, and is what a stored spec without the field means,
    even where the default has since become another.
    """
    return Field(default, description=description, json_schema_extra={"neutral": neutral})


class FrozenModel(BaseModel):
    """An immutable model that refuses unknown keys, naming the allowed ones."""

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
                raise ValueError(f"{names[key]}: {str(value).lower()} is no value for it")
            if not _may_hold_bool(annotation) and _holds_bool(value):
                raise ValueError(f"{names[key]}: true and false are not allowed in it")
        if info.context == "stored":
            missing = {n: v for n, v in _neutral_values(cls).items() if n not in data}
            return {**data, **missing}
        return data

    @classmethod
    def restore(cls, data: dict[str, Any]) -> Self:
        """Validate a stored canonical form: what it lacks has the neutral value, not the default.

        Raises:
            pydantic.ValidationError: the data are not of this model.
        """
        return cls.model_validate(data, context="stored")


@cache
def _names(model: type[BaseModel]) -> dict[str, str]:
    """Return the fields' names by what they are called in data. A record has many models."""
    return {field.alias or name: name for name, field in model.model_fields.items()}


@cache
def _may_hold_bool(annotation: Any) -> bool:
    """Return whether a boolean may be within a field: elsewhere pydantic takes it for 0 or 1."""
    if parts := get_args(annotation):
        return any(map(_may_hold_bool, parts))
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation in (bool, Any) or is_model  # a model checks its own


def _holds_bool(value: Any) -> bool:
    if isinstance(value, dict):
        value = [*value.values()]
    return isinstance(value, bool) or (
        isinstance(value, list | tuple) and any(map(_holds_bool, value))
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
    """Return plain data to hash and store; neutral fields are left out."""
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
    """Return the identity of plain data: the head of the SHA-256 of its sorted JSON."""
    text = json.dumps([IDENTITY_FORMAT, value], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:IDENTITY_LENGTH]
