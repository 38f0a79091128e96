"""The same machine is the same bytes, and only what timings depend on is in them."""

import json
import os
import shutil
import subprocess

import cpuinfo
import pytest

from onnx_release.core.hardware import (
    GENERATION,
    INSTRUCTION_SETS,
    available_cores,
    describe_cpu,
    describe_hardware,
    gpus,
    linux_cpu,
    machine_name,
)
from onnx_release.core.params import Runtime
from onnx_release.runtime.session import session_options


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


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "250000 100000"}, 3),  # a part of a core is one more thread
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({}, 8),
    ],
    ids=["half", "two and a half", "no limit", "two, cgroup v1", "no limit, cgroup v1", "no container"],
)
def test_the_cpu_quota_of_a_container_is_what_counts_as_cores(tmp_path, monkeypatch, files, cores):
    """On a machine of eight cores whose control group has these files."""
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    exists, opened = os.path.exists, open

    def here(path):
        return str(path).replace("/sys/fs/cgroup", str(tmp_path))

    monkeypatch.setattr("os.path.exists", lambda path: exists(here(path)))
    monkeypatch.setattr("builtins.open", lambda path, *rest, **options: opened(here(path), *rest, **options))
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert available_cores() == cores
    assert session_options(Runtime()).intra_op_num_threads == cores


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


def test_linux_is_asked_for_the_cpu_and_says_what_py_cpuinfo_says():
    found = linux_cpu()
    if found is None:
        pytest.skip("not Linux on x86")
    known = cpuinfo.get_cpu_info()
    assert {key: found[key] for key in ("brand_raw", *GENERATION)} == {
        key: known[key] for key in ("brand_raw", *GENERATION)
    }
    assert set(INSTRUCTION_SETS) & set(found["flags"]) == set(INSTRUCTION_SETS) & set(known["flags"])


@pytest.mark.parametrize(
    "text",
    [
        "processor\t: 0\nFeatures\t: fp asimd\n\nprocessor\t: 1\n",
        "model name\t: Xeon\ncpu family\t: 6\nmodel\t\t: 85\nstepping\t: unknown\nflags\t\t: avx2\n",
    ],
    ids=["arm64", "unknown stepping"],
)
def test_what_linux_does_not_say_is_left_to_py_cpuinfo(monkeypatch, tmp_path, text):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr("onnx_release.core.hardware.PROC", tmp_path / "cpuinfo")
    assert linux_cpu() is None
    known = {"brand_raw": "A CPU", "flags": ["avx2", "mmx"], "family": 6, "model": 85}
    monkeypatch.setattr(cpuinfo, "get_cpu_info", lambda: known)
    found = describe_cpu.__wrapped__()
    assert (found["cpu"], found["instruction_sets"]) == ("A CPU", ["avx2"])
    assert found["cpu_family_model_stepping"] == [6, 85, None]
