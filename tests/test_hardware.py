"""The same machine is the same bytes, and only what timings depend on is in them."""

import json
import shutil
import subprocess

import pytest

from onnx_release.hardware import describe_hardware, gpus, machine_name


def test_two_looks_at_one_machine_are_the_same():
    first, second = describe_hardware(), describe_hardware()
    assert json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)


def test_it_says_what_timings_depend_on_and_not_whose_machine_it_is():
    found = describe_hardware()
    assert found["cores"] >= 1
    assert found["packages"]["torch"]
    assert set(found) == {
        *("cpu", "cpu_family_model_stepping", "architecture", "instruction_sets", "cores", "memory_gib", "gpus"),
        *("system", "python", "packages"),
    }


def test_a_machine_in_one_line():
    described = {"cpu": "AMD EPYC", "cpu_family_model_stepping": [26, 2, 1], "cores": 2, "gpus": ["H100, 570.1"]}
    assert machine_name(described) == "AMD EPYC (family 26, model 2), 2 cores, H100, 570.1"


@pytest.mark.parametrize(("code", "found"), [(0, ["A100, 40960 MiB, 550.1"]), (9, [])])
def test_gpus_are_what_nvidia_smi_lists_unless_it_fails(monkeypatch, code, found):
    monkeypatch.setattr(shutil, "which", lambda _: "nvidia-smi")
    result = subprocess.CompletedProcess([], code, stdout="A100, 40960 MiB, 550.1\n", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: result)
    assert gpus.__wrapped__() == found  # what the cache has is of this machine


def test_without_nvidia_smi_there_are_none(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert gpus.__wrapped__() == []
