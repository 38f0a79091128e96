"""docs/serving.md says what the server does: its settings, its addresses and its statuses."""

import re

import pytest
from prometheus_client.metrics import MetricWrapperBase

from benchmarks.memory_bound import CONNECTION_BYTES, memory_bound
from onnx_release.core.spec import load_spec
from onnx_release.report.text import table
from serving import metrics, statistics
from serving.settings import Settings
from tests.imports import ROOT

PAGE = (ROOT / "docs/serving.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The cells of the one table of a section, without its header."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_setting_is_there_with_its_default_and_no_other():
    wanted = [
        [f"`{name}`", "null" if field.default is None else f"`{field.default}`", field.description or ""]
        for name, field in Settings.model_fields.items()
    ]
    assert rows("Settings") == wanted, table(["setting", "default", ""], wanted)


def test_the_example_of_the_environment_is_the_one_that_the_settings_read(monkeypatch):
    ((name, value),) = re.findall(r"in the environment \(`(\w+)=(\d+)`\)", section("Settings"))
    monkeypatch.setenv(name, value)
    assert Settings().port == int(value)


def test_settings_are_named_as_they_are_wherever_they_are_named():
    named = set(re.findall(r"SERVING_([A-Z_]+)", PAGE))
    assert named and named <= {name.upper() for name in Settings.model_fields}


def test_every_series_of_the_server_is_there_and_no_other():
    values = [*vars(metrics).values(), *vars(statistics).values()]
    families = [family for value in values if isinstance(value, MetricWrapperBase) for family in value.describe()]
    served = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    assert {re.split(r"[`{]", series)[1] for series, _ in rows("/metrics")} == served


def test_the_memory_of_the_example_is_that_of_the_formula():
    defaults, spec = Settings(threads=2), load_spec("mobilenet_v2")
    clients = 2 * defaults.buffered_bytes + defaults.connections * CONNECTION_BYTES
    told = f"that is {memory_bound(defaults, spec) / 1e9:.1f} GB, of which {clients / 1e9:.1f} GB are for what"
    assert told in PAGE


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_the_examples_in_python_compile(block):
    compile(block, "docs/serving.md", "exec")
