"""What a timing depends on. The same bytes on the same machine, so that only another machine reruns the benchmark."""

import functools
import importlib.metadata
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import psutil
from loky import cpu_count

# What decides which kernels ONNX Runtime and torch pick.
INSTRUCTION_SETS = (
    *("sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"),
    *("avx512_bf16", "amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve"),
)
PACKAGES = ("torch", "onnxruntime-gpu", "onnxruntime", "openvino", "numpy")
# Where Linux describes the CPU, and what it calls an x86 CPU's generation by py-cpuinfo's names.
PROC = Path("/proc/cpuinfo")
GENERATION = {"family": "cpu family", "model": "model", "stepping": "stepping"}


def describe_hardware() -> dict[str, Any]:
    """CPU, instruction sets, cores, memory in GiB, GPUs, system and the versions of what is timed."""
    return {
        **describe_cpu(),
        "cores": available_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "gpus": gpus(),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := installed(name))},
    }


@functools.cache
def describe_cpu() -> dict[str, Any]:
    """The CPU's name, generation, architecture and the instruction sets that decide on kernels."""
    cpu = linux_cpu()
    if cpu is None:
        import cpuinfo

        cpu = cpuinfo.get_cpu_info()
    flags = set(cpu.get("flags", []))
    return {
        "cpu": cpu.get("brand_raw", platform.processor()),
        # Virtual machines often call every generation of a CPU by one name.
        "cpu_family_model_stepping": [cpu.get(key) for key in ("family", "model", "stepping")],
        "architecture": platform.machine(),
        "instruction_sets": [name for name in INSTRUCTION_SETS if name in flags],
    }


def linux_cpu() -> dict[str, Any] | None:
    """What Linux says of an x86 CPU, under py-cpuinfo's names; None elsewhere.

    py-cpuinfo takes a second, which every process that loads an optimised graph would wait for.
    """
    if not PROC.is_file():
        return None
    # The first processor's lines, up to an empty one.
    first = PROC.read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    lines = dict(line.split(":", 1) for line in first.splitlines() if ":" in line)
    found = {key.strip(): value.strip() for key, value in lines.items()}
    generation = {key: found.get(name, "") for key, name in GENERATION.items()}
    if "flags" not in found or "model name" not in found or not all(map(str.isdigit, generation.values())):
        return None
    numbers = {key: int(value) for key, value in generation.items()}
    return {"brand_raw": found["model name"], "flags": found["flags"].split(), **numbers}


def cpu_kind() -> dict[str, Any]:
    """What a graph that was optimised here is tied to: the CPU, and the version of ONNX Runtime."""
    return {**describe_cpu(), "onnxruntime": installed("onnxruntime-gpu") or installed("onnxruntime")}


def machine_name(hardware: dict[str, Any]) -> str:
    """The machine in one line: two timings compare only where it is the same."""
    family, model, _ = hardware["cpu_family_model_stepping"]
    parts = [f"{hardware['cpu']} (family {family}, model {model})", f"{hardware['cores']} cores", *hardware["gpus"]]
    return ", ".join(parts)


def available_cores() -> int:
    """The cores that this process may use: by its affinity, and by the CPU quota of its container, rounded up.

    LOKY_MAX_CPU_COUNT in the environment lowers it.
    """
    return int(cpu_count())


@functools.cache
def gpus() -> list[str]:
    """NVIDIA GPUs with memory and driver, as nvidia-smi names them; none where it is not there or fails."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.splitlines() if result.returncode == 0 else []


def installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
