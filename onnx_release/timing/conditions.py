"""Describe the conditions of a benchmark: the machine, the provider, and PyTorch's device."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnx_release.core.hardware import machine_name
from onnx_release.core.params import Runtime
from onnx_release.runtime.providers import CPU, device_id


@dataclass(frozen=True)
class Conditions:
    """The conditions of a run of the benchmark; the names are those of BenchmarkMetrics."""

    machine: str
    provider: str
    provider_note: str
    copies: str


def find_conditions(hardware: dict[str, Any], found: Mapping[str, str]) -> Conditions:
    """Return the conditions for artifacts/hardware.json and artifacts/NAME/provider.json."""
    return Conditions(
        machine=machine_name(hardware),
        provider=found["provider"],
        provider_note=found["note"],
        copies="none" if found["provider"] == CPU else "included",
    )


def torch_device(provider: str, runtime: Runtime) -> str:
    """Return torch's name of the device that PyTorch runs on, which is the one that the provider uses."""
    return "cpu" if provider == CPU else f"cuda:{device_id(provider, runtime)}"
