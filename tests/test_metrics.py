"""The table of metrics holds every key that a stage writes."""

import pytest

from onnx_release.files import read_json
from onnx_release.metrics import METRICS, flatten, metric
from tests.imports import ROOT

FILES = sorted(path.relative_to(ROOT / "metrics") for path in (ROOT / "metrics").rglob("*.json"))


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_emitted_key_is_in_the_table(file):
    for key, _ in flatten(read_json(ROOT / "metrics" / file)):
        assert metric(file.with_suffix("").as_posix(), key).meaning


def test_every_row_of_the_table_is_emitted():
    emitted = {
        metric(file.with_suffix("").as_posix(), key)
        for file in FILES
        for key, _ in flatten(read_json(ROOT / "metrics" / file))
    }
    assert [row for row in METRICS if row not in emitted] == []


def test_no_key_stands_twice():
    keys = [(row.file, row.key) for row in METRICS]
    assert len(keys) == len(set(keys))


def test_an_unknown_key_is_refused():
    with pytest.raises(KeyError, match=r"export: latency is not in onnx_release/metrics\.py"):
        metric("export", "latency")


def test_nested_metrics_get_dotted_keys():
    assert dict(flatten({"a": {"b": {"c": 1}, "d": None}, "e": "x"})) == {"a.b.c": 1, "a.d": None, "e": "x"}
