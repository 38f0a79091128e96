"""The table of metrics has every key that a stage writes."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from pydantic import BaseModel

from onnx_release.core.files import read_json
from onnx_release.core.params import Params
from onnx_release.core.paths import METRICS
from onnx_release.core.spec import Spec
from onnx_release.core.variants import VARIANTS
from onnx_release.report.metrics import ALL_METRICS, flatten, metric
from tests.imports import ROOT
from tests.validated import TASKS, validated

# Of every model whose metrics are in git, MODEL/FILE.json.
FILES = sorted(path.relative_to(ROOT / METRICS) for path in (ROOT / METRICS).rglob("*.json"))


def name_of(file: Path) -> str:
    """The file's name in the table, which is that of all models."""
    return file.relative_to(file.parts[0]).with_suffix("").as_posix()


def test_every_stage_that_measures_has_its_file():
    assert FILES
    needed = {"prepare", "export", "slim", "benchmark", "summary", *(f"validate/{name}" for name in VARIANTS)}
    for model in {path.parts[0] for path in FILES}:
        assert {name_of(path) for path in FILES if path.parts[0] == model} >= needed, model


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_emitted_key_is_in_the_table(file):
    for key, _ in flatten(read_json(ROOT / METRICS / file)):
        assert metric(name_of(file), key).meaning


def test_every_row_of_the_table_is_emitted():
    emitted = {metric(name_of(file), key) for file in FILES for key, _ in flatten(read_json(ROOT / METRICS / file))}
    # metrics/ holds those of some models, which may not have all tasks.
    for task in TASKS:
        emitted |= {metric("validate/fp32", key) for key, _ in flatten(validated(task))}
    at_times = ("left_out", "not_made", "settings.*.", "refused.")
    assert [row for row in ALL_METRICS if row not in emitted and not row.key.startswith(at_times)] == []


def dotted(settings: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted key of every setting, those of its sections included."""
    for name, field in settings.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from dotted(field.annotation, f"{prefix}{name}.")


def test_every_setting_that_a_meaning_names_exists():
    known = {*dotted(Params), *dotted(Spec), "torch.compile"}
    named = {(row.key, name) for row in ALL_METRICS for name in re.findall(r"\b[a-z_]\w*(?:\.[a-z_]\w*)+", row.meaning)}
    assert {name for _, name in named} >= {"fp16.max_finite_val", "tolerance.rtol"}
    assert [(key, name) for key, name in sorted(named) if name not in known] == []


def test_no_key_stands_twice():
    keys = [(row.file, row.key) for row in ALL_METRICS]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("file", FILES, ids=str)
def test_no_emitted_key_is_in_two_rows(file):
    name = name_of(file)
    for key, _ in flatten(read_json(ROOT / METRICS / file)):
        rows = [row for row in ALL_METRICS if fnmatchcase(name, row.file) and fnmatchcase(key, row.key)]
        assert len(rows) == 1, key


def test_units_and_directions_are_known_ones():
    assert {row.unit for row in ALL_METRICS} <= {"", "s", "ms", "1/s", "MB", "dB"}
    assert {row.better for row in ALL_METRICS} <= {"lower", "higher", "neither"}
    assert all(row.meaning for row in ALL_METRICS)


def test_the_unit_in_a_key_is_that_of_its_row():
    for row in ALL_METRICS:
        words = row.key.replace(".", "_").split("_")
        for ending, unit in {"ms": "ms", "mb": "MB", "db": "dB"}.items():
            assert (ending in words) == (row.unit == unit), row
        assert row.key.endswith("_per_s") == (row.unit == "1/s"), row


@pytest.mark.parametrize(
    ("file", "key", "better"),
    [
        ("benchmark", "fp32.latency_ms.p99", "lower"),
        ("benchmark", "fp32.throughput_per_s", "higher"),
        ("benchmark", "torch_eager.peak_memory_mb", "lower"),
        ("validate/fp32", "outputs.logits.sqnr_db", "higher"),
        ("validate/export", "accuracy_drop", "lower"),
        ("export", "opset", "neither"),
        ("slim", "nodes_after", "lower"),
    ],
)
def test_a_metric_is_better_in_its_direction(file, key, better):
    assert metric(file, key).better == better


@pytest.mark.parametrize(
    ("file", "key"), [("export", "latency"), ("exports", "opset"), ("validate", "passed"), ("export", "Opset")]
)
def test_an_unknown_key_is_refused(file, key):
    with pytest.raises(KeyError, match=rf"{file}: {key} is in no class of"):
        metric(file, key)


def test_nested_metrics_get_dotted_keys():
    assert dict(flatten({"a": {"b": {"c": 1}, "d": None}, "e": "x"})) == {"a.b.c": 1, "a.d": None, "e": "x"}
