"""Make the tables of docs/reference.md: parameters from params.yaml, metrics from the classes of their files."""

import json
import re
from collections.abc import Iterator
from typing import Any

from onnx_release.core.paths import PARAMS
from onnx_release.core.yaml_files import parse_yaml
from onnx_release.report.metrics import ALL_METRICS
from onnx_release.report.text import table
from tools.page_parts import Read

# A key of params.yaml with the comment behind it.
LINE = re.compile(r"^(?P<indent> *)(?P<key>\w+):[^#\n]*(?:# (?P<meaning>.+))?$", re.MULTILINE)


def parameters(read: Read) -> str:
    """Make the table of params.yaml: each key with its value and what the comment behind it says."""
    rows = [
        [f"`{key}`", f"`{shown(value)}`", (meaning or "").replace("|", "\\|")]
        for key, value, meaning in commented_keys(read(PARAMS.as_posix()))
        if not isinstance(value, dict)
    ]
    return table(["key", "default", "meaning"], rows)


def commented_keys(text: str) -> Iterator[tuple[str, Any, str | None]]:
    """Yield the dotted name of each key in a YAML file, with its value and the comment behind it."""
    content = parse_yaml(text)
    path: list[str] = []
    for line in LINE.finditer(text):
        path = [*path[: len(line["indent"]) // 2], line["key"]]
        value = content
        for part in path:
            value = value.get(part, KeyError) if isinstance(value, dict) else KeyError
        if value is not KeyError:  # a key within a list
            yield ".".join(path), value, line["meaning"]


def shown(value: Any) -> str:
    """Write a value of params.yaml in one line."""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return "see params.yaml"
    return value if isinstance(value, str) else json.dumps(value)


def metrics(_: Read) -> str:
    """Make a table for each file below metrics/NAME/."""
    parts = []
    for file in dict.fromkeys(metric.file for metric in ALL_METRICS if metric.file != "*"):
        rows = [
            [f"`{metric.key}`", metric.meaning, metric.unit, "" if metric.better == "neither" else metric.better]
            for metric in ALL_METRICS
            if metric.file == file
        ]
        title = f"### metrics/NAME/{file.replace('*', 'VARIANT')}.json"
        parts.append(f"{title}\n\n{table(['key', 'meaning', 'unit', 'better'], rows)}")
    return "\n\n".join(parts)
