"""Describe the hardware and the packages that timings depend on.

The same machine gives the same bytes, so that only another machine reruns the benchmark.
"""

import functools
import importlib.metadata
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psutil
from loky import cpu_count

# ONNX Runtime and torch choose kernels by these.
INSTRUCTION_SETS = (
    *("sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"),
    *("avx512_bf16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve"),
)
TIMED_PACKAGES = ("torch", "onnxruntime-gpu", "onnxruntime", "openvino", "numpy")
# The file in which Linux describes the CPU, and its names for what py-cpuinfo calls family, model and stepping.
PROC = Path("/proc/cpuinfo")
GENERATION = {"family": "cpu family", "model": "model", "stepping": "stepping"}


def describe_hardware() -> dict[str, Any]:
    """Describe CPU, instruction sets, cores, memory in GiB, GPUs, system and the versions of the timed packages."""
    return {
        **describe_cpu(),
        "cores": available_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "gpus": gpus(),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: version for name in TIMED_PACKAGES if (version := installed(name))},
    }


@functools.cache
def describe_cpu() -> dict[str, Any]:
    """Describe the CPU: name, generation, architecture and the instruction sets that decide on kernels."""
    cpu = linux_cpu()
    if cpu is None:
        import cpuinfo

        cpu = cpuinfo.get_cpu_info()
    flags = set(cpu.get("flags", []))
    return {
        "cpu": cpu.get("brand_raw", platform.processor()),
        # Virtual machines often give every generation of a CPU the same name.
        "cpu_family_model_stepping": [cpu.get(key) for key in ("family", "model", "stepping")],
        "architecture": platform.machine(),
        "instruction_sets": [name for name in INSTRUCTION_SETS if name in flags],
    }


def linux_cpu() -> dict[str, Any] | None:
    """Return the description that Linux gives of an x86 CPU, under py-cpuinfo's names; None elsewhere.

    py-cpuinfo takes a second, and every process that loads an optimised graph would wait for it.
    """
    if not PROC.is_file():
        return None
    # The lines of the first processor, up to an empty line.
    first = PROC.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    lines = dict(line.split(":", 1) for line in first.splitlines() if ":" in line)
    found = {key.strip(): value.strip() for key, value in lines.items()}
    generation = {key: found.get(name, "") for key, name in GENERATION.items()}
    if "flags" not in found or "model name" not in found or not all(map(str.isdigit, generation.values())):
        return None
    numbers = {key: int(value) for key, value in generation.items()}
    return {"brand_raw": found["model name"], "flags": found["flags"].split(), **numbers}


def cpu_kind() -> dict[str, Any]:
    """Describe the CPU and the version of ONNX Runtime that a graph optimised here needs."""
    return {**describe_cpu(), "onnxruntime": installed("onnxruntime-gpu") or installed("onnxruntime")}


def machine_name(hardware: dict[str, Any]) -> str:
    """Describe the machine in one line. Timings can only be compared on the same machine."""
    family, model, _ = hardware["cpu_family_model_stepping"]
    parts = [f"{hardware['cpu']} (family {family}, model {model})", f"{hardware['cores']} cores", *hardware["gpus"]]
    return ", ".join(parts)


def available_cores() -> int:
    """Return how many cores this process may use, by its affinity and the CPU quota of its container, rounded up.

    The environment variable LOKY_MAX_CPU_COUNT lowers it.
    """
    return int(cpu_count())


@functools.cache
def gpus() -> list[str]:
    """Return the NVIDIA GPUs with memory and driver, as nvidia-smi names them; none if it is missing or fails."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.splitlines() if result.returncode == 0 else []


def installed(package: str) -> str | None:
    """Return the installed version of a package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
