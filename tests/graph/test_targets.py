"""Which target a machine gets, and which it is refused."""

import pytest

from onnx_release.core.errors import ParameterError
from onnx_release.graph.targets import TARGETS, choose_target, runnable


def machine(architecture="x86_64", sets=("avx2",), gpus=()):
    return {"cpu": "a CPU", "architecture": architecture, "instruction_sets": list(sets), "gpus": list(gpus)}


@pytest.mark.parametrize(
    ("hardware", "name"),
    [
        (machine(), "avx2"),
        (machine(sets=("avx2", "avx512_vnni")), "vnni"),
        (machine(sets=("avx2", "avx_vnni")), "vnni"),
        (machine("AMD64"), "avx2"),
        (machine("aarch64", ("asimd",)), "arm64"),
        (machine("arm64", ()), "arm64"),
        (machine(gpus=["NVIDIA H100"]), "avx2"),
    ],
)
def test_auto_reads_the_cpu(hardware, name):
    assert choose_target("auto", hardware).name == name


def test_types_of_each_target():
    found = {name: (target.activation_type, target.reduce_range) for name, target in TARGETS.items()}
    assert found == {
        **{"avx2": ("uint8", True), "vnni": ("uint8", False), "arm64": ("int8", False), "tensorrt": ("int8", False)}
    }


def test_what_is_made_for_avx2_also_runs_where_nothing_saturates():
    assert choose_target("avx2", machine(sets=("avx2", "avx512_vnni"))).name == "avx2"
    assert runnable(machine(gpus=["NVIDIA H100"])) == ["avx2", "tensorrt"]


@pytest.mark.parametrize("name", ["vnni", "arm64", "tensorrt"])
def test_a_target_that_the_machine_cannot_run_is_an_error_that_says_what_can(name):
    with pytest.raises(ParameterError, match=f"is {name}, which this machine .* cannot run: it needs .*choose avx2"):
        choose_target(name, machine())


def test_auto_on_an_unknown_cpu_asks_for_a_choice():
    with pytest.raises(ParameterError, match="riscv64 is neither"):
        choose_target("auto", machine("riscv64", ()))
