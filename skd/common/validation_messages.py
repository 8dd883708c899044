"""Messages about invalid values, in the terms of sheets. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Context = Mapping[str, Any]
DATE_MESSAGE = "must be a date and time with a time zone"
# By pydantic's type of error. Its own messages name Python's types.
MESSAGES: dict[str, str | Callable[[Context], str]] = {
    "missing": "is required",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text; put it in quotes",
    "string_pattern_mismatch": lambda context: f"must match {context['pattern']}",
    "path_type": "must be a path",
    "datetime_type": DATE_MESSAGE,
    "datetime_parsing": DATE_MESSAGE,
    "datetime_from_date_parsing": DATE_MESSAGE,
    "timezone_aware": DATE_MESSAGE,
    "dict_type": "must be a mapping, {key: value}",
    "mapping_type": "must be a mapping, {key: value}",
    "model_type": "must be a mapping, {key: value}",
    "model_attributes_type": "must be a mapping, {key: value}",
    "tuple_type": "must be a list, [a, b]",
    "list_type": "must be a list, [a, b]",
    "too_short": lambda context: f"must have at least {_items(context['min_length'])}",
    "too_long": lambda context: f"must have at most {_items(context['max_length'])}",
    "literal_error": lambda context: f"allowed: {context['expected']}",
    "greater_than": lambda context: f"must be greater than {context['gt']:g}",
    "greater_than_equal": lambda context: f"must be at least {context['ge']:g}",
    "less_than": lambda context: f"must be less than {context['lt']:g}",
    "less_than_equal": lambda context: f"must be at most {context['le']:g}",
}
MAX_VALUE_LENGTH = 60  # characters of a value


def validation_message(error: Mapping[str, Any]) -> str:
    """Return what is wrong with a value, and the value, from one of pydantic's errors."""
    kind, message = error["type"], error["msg"].removeprefix("Value error, ")
    if kind == "value_error":
        return message
    template = MESSAGES.get(kind, message)
    text = template if isinstance(template, str) else template(error.get("ctx", {}))
    return text if kind == "missing" else f"{text}, got {format_value(error['input'])}"


def error_location(error: Mapping[str, Any]) -> str:
    """Return the place of a value as a path of keys; list items are counted from 0."""
    return ".".join(str(part) for part in error["loc"] if part != "[key]")


def _items(count: int) -> str:
    return "1 item" if count == 1 else f"{count} items"


def format_value(value: Any) -> str:
    """Return a value as a sheet writes it, shortened if it is long."""
    plain = {None: "nothing", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return plain[value]
    text = repr(value)
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:MAX_VALUE_LENGTH]}…"
