"""Every benchmark starts as its docstring says, and those about one model read the files of that model."""

import argparse
import re
import runpy

import pytest

from onnx_release.core.files import write_json
from onnx_release.core.paths import HARDWARE
from tests.imports import ROOT
from tests.in_process import run_here
from tests.listed_models import make_models
from tests.release_project import HARDWARE_FACTS
from tests.tools.test_docs_commands import take

# serving_load and nncf_recipes are started by other benchmarks, and nncf has an environment of its own.
STARTED_BY_OTHERS = ("serving_load", "nncf_recipes")
NAMES = [
    path.stem
    for path in sorted((ROOT / "benchmarks").glob("*.py"))
    if "__main__" in path.read_text(encoding="utf-8") and path.stem not in STARTED_BY_OTHERS
]
# avx2 is about one model, too, and asks for valgrind first.
OF_ONE_MODEL = ("calibration", "page_faults", "pipeline", "quantization", "repeat")
READ_PARAMS = ("calibration", "quantization", "repeat")


class StartedError(Exception):
    """The benchmark's own parser has taken the command line."""


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_needs_no_arguments(name, monkeypatch):
    original = argparse.ArgumentParser.parse_args

    def parse(parser, *_):
        original(parser, [])
        raise StartedError

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    with pytest.raises(StartedError):
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_of_a_docstring_are_taken(name, monkeypatch):
    text = (ROOT / f"benchmarks/{name}.py").read_text(encoding="utf-8")
    commands = re.findall(r"^    (python -m benchmarks\.[^#\n]+)", text, re.MULTILINE)
    assert commands
    monkeypatch.chdir(ROOT)
    for command in commands:
        take(re.sub(r" \.\.\.|[][]", "", command).strip(), monkeypatch)


@pytest.fixture
def project(tmp_path):
    make_models(tmp_path, {"cars": "classification", "texts": "embedding"})
    write_json(tmp_path / HARDWARE, HARDWARE_FACTS)
    return tmp_path


@pytest.mark.parametrize("name", READ_PARAMS)
@pytest.mark.parametrize(("arguments", "model"), [((), "cars"), (("--model", "texts"), "texts")])
def test_it_is_about_the_chosen_model_by_default_the_first(project, name, arguments, model):
    result = run_here(project, f"benchmarks.{name}", *arguments)
    assert result.returncode == 1
    assert f"artifacts/{model}/params.json is not there" in result.stderr


@pytest.mark.parametrize("name", OF_ONE_MODEL)
def test_a_model_that_is_not_listed_is_named(project, name):
    result = run_here(project, f"benchmarks.{name}", "--model", "boats")
    assert result.returncode == 1
    assert "models.yaml does not list boats" in result.stderr
