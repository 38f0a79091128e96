"""The numbers of a pydantic model that have no lower or no upper end."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

LOWER, UPPER = {"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}


def open_ended(model: type[BaseModel]) -> list[str]:
    """As MODEL.FIELD, in order, found in the JSON schema: in lists, unions and the models below it, too."""
    schema = model.model_json_schema()
    models = {schema["title"]: schema, **schema.get("$defs", {})}
    return [
        f"{title}.{field}"
        for title, found in models.items()
        for field, value in found["properties"].items()
        if any(not (keys & LOWER and keys & UPPER) for keys in numbers(value))
    ]


def numbers(schema: Any) -> Iterator[set[str]]:
    """The keys of every number in a part of a schema; what it refers to has its own turn."""
    if isinstance(schema, dict):
        if schema.get("type") in ("integer", "number"):
            yield set(schema)
        for value in schema.values():
            yield from numbers(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from numbers(value)
