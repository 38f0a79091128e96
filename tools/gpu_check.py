"""Validate and time FP32, FP16 and INT8 on an NVIDIA GPU, against PyTorch on the same GPU.

    python -m tools.gpu_check [--model NAME] [--batch N]

runs them on CUDA, and on TensorRT if it is installed, and times them in one run with PyTorch eager, compiled and with
float16 autocast. Puts the run into benchmarks/gpu.json, in place of an earlier one of the same model and batch size;
`make docs` puts all of them into docs/gpu.md. Prints the run's table. Needs a GPU, the CUDA build of torch, and a
finished `make repro` of the model, by default the first that models.yaml lists.
"""

import argparse
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnx_release.core.child_process import ChildError, run_in_child
from onnx_release.core.command import run_tool
from onnx_release.core.errors import DataError, GraphError, ParameterError, ProviderError
from onnx_release.core.files import read_json, write_json
from onnx_release.core.hardware import available_cores, gpus, installed
from onnx_release.core.params import Params, Runtime, load_params
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Spec, batch_dimension, largest_batch, load_spec
from onnx_release.core.variants import made_variants
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import SampleFile, real_batches
from onnx_release.graph.probe import find_provider
from onnx_release.report.text import number, percent, table, timing_cells
from onnx_release.runtime.onnx_model import OnnxModel
from onnx_release.runtime.providers import CUDA, PROVIDERS, TENSORRT, check_provider, missing_library
from onnx_release.timing.benchmark import check_settings, contender_metrics, measure, rounds_taken, settings
from onnx_release.timing.contenders import Contender, Kind, torch_contenders
from onnx_release.timing.metrics import ContenderMetrics
from onnx_release.timing.speedup import Rounds
from onnx_release.validate.validate import budget_of, validate
from tools.models import add_model_option, chosen_model

GPU_CHECK = Path("benchmarks/gpu.json")
# int8_dynamic is for CPUs.
CHECKED = ("fp32", "fp16", "int8_static")
PYTORCH: tuple[Kind, ...] = ("torch_eager", "torch_compile", "torch_autocast")
# The most characters of a cell: ONNX Runtime's messages may fill a page.
CELL = 300


@dataclass(frozen=True)
class GpuVerdict:
    """The comparison of a contender with PyTorch; `passed` is None for PyTorch itself.

    `runs` is False if it failed before it gave an answer, so that it cannot be timed. `note` names the nodes that run
    on another provider.
    """

    contender: str
    provider: str
    passed: bool | None
    failure: str = ""
    runs: bool = True
    sqnr_db: float | None = None
    agreement: float | None = None
    note: str = ""


def main(arguments: argparse.Namespace) -> None:
    earlier = read_json(GPU_CHECK) if GPU_CHECK.is_file() else []
    result = check_gpu(chosen_model(arguments.model), arguments.batch)
    write_json(GPU_CHECK, with_run(earlier, result))
    print(describe_gpu_check(result))


def with_run(earlier: Sequence[dict[str, Any]], result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the runs with `result` in place of an earlier one of the same model and batch size, or at their end."""
    alike = [(run["model"], run["batch"]) == (result["model"], result["batch"]) for run in earlier]
    if not any(alike):
        return [*earlier, result]
    return [result if same else run for same, run in zip(alike, earlier, strict=True)]


def check_gpu(files: ModelFiles, batch: int | None = None) -> dict[str, Any]:
    """Validate and time everything of a model, and return the run, one item of benchmarks/gpu.json.

    `batch` is the batch size that is timed, by default the first of the benchmark. Raises ProviderError if there is no
    GPU, torch does not see it, or CUDA's provider does not load; GraphError if it loads and does not run; DataError for
    a missing variant; ParameterError for a batch size that the model does not declare.
    """
    if not gpus():
        raise ProviderError("nvidia-smi is missing or lists no NVIDIA GPU: run this on a machine that has one")
    versions = torch_versions()
    check_provider(CUDA)
    run_in_child(find_provider, Runtime(provider="cuda"))  # cuDNN is loaded only when a convolution runs
    variants = [variant for variant in CHECKED if variant in made_variants(load_spec(files.model))]
    check_variants_made(files, variants)
    params = at_batch(load_params(files), batch, load_spec(files.model))
    no_tensorrt = missing_library(TENSORRT)
    return {
        "model": files.model,
        "gpu": describe_gpu(gpus(), torch_gpu()),
        "versions": {**versions, "onnxruntime-gpu": installed("onnxruntime-gpu")},
        "batch": params.benchmark.batches[0],
        "no_tensorrt": no_tensorrt or "",
        **check_all(files, params, variants, ["cuda"] if no_tensorrt else ["cuda", "tensorrt"], "cuda"),
    }


def at_batch(params: Params, batch: int | None, spec: Spec) -> Params:
    """Return the parameters with this batch size as the only one; None leaves them as they are.

    Raises ParameterError for one outside the declared range.
    """
    if batch is None:
        return params
    high = largest_batch(spec)
    if not 1 <= batch <= high:
        raise ParameterError(
            f"--batch {batch}: the model's spec.yaml declares {batch_dimension(spec)} from 1 to {high}: "
            "choose one in this range"
        )
    return params.model_copy(update={"benchmark": params.benchmark.model_copy(update={"batches": [batch]})})


def torch_versions() -> dict[str, str]:
    """Return the versions of torch and of its CUDA. Raises ProviderError for a CPU build, or if it sees no GPU."""
    import torch  # imported late, since it takes seconds

    version, cuda = str(torch.__version__), torch.version.cuda
    if cuda is None:
        raise ProviderError(
            f"torch {version} is the CPU build: install the same version's build for CUDA 13 into .venv "
            "(https://pytorch.org/get-started/locally)"
        )
    if not torch.cuda.is_available():
        raise ProviderError(
            f"torch {version} sees no GPU, and nvidia-smi lists {'; '.join(gpus())}: "
            f"the driver may be too old for CUDA {cuda}, or CUDA_VISIBLE_DEVICES hides it"
        )
    return {"torch": version, "cuda": cuda}


def torch_gpu() -> str:
    """Return the name of the GPU that torch calls "cuda"."""
    import torch

    return torch.cuda.get_device_name(0)


def describe_gpu(lines: Sequence[str], name: str) -> dict[str, str]:
    """Return name, memory and driver of the GPU `name` from nvidia-smi's lines; of the first GPU if it is not there."""
    parts = [line.rsplit(", ", 2) for line in lines]
    return dict(zip(("name", "memory", "driver"), next((p for p in parts if p[0] == name), parts[0]), strict=True))


def check_variants_made(files: ModelFiles, variants: Sequence[str]) -> None:
    """Raise DataError for a missing variant."""
    missing = [str(files.variant(variant)) for variant in variants if not files.variant(variant).is_file()]
    if missing:
        raise DataError(f"missing: {', '.join(missing)}; run `make repro MODEL={files.model}` first")


def check_all(
    files: ModelFiles, params: Params, variants: Sequence[str], providers: Sequence[str], device: str
) -> dict[str, Any]:
    """Validate and time the variants on the providers, which are named as in params.yaml.

    Returns the rounds that were timed, and `rows`: one for PyTorch in each form and for each variant on each provider.
    Uses the first batch size and the first thread count of the benchmark. Raises ParameterError like `check_settings`,
    and BenchmarkError if nothing can be timed.
    """
    spec = load_spec(files.model)
    check_settings(params, spec, available_cores())
    verdicts = [try_validate(files, variant, provider, params) for provider in providers for variant in variants]
    batch = params.benchmark.batches[0]
    batches = real_batches(SampleFile(files.evaluation_samples), batch, spec, load_data(files.model))
    run = measure(contenders(verdicts, files, params, spec, device), batches, params.benchmark)
    return {
        "rounds": params.benchmark.starts * params.benchmark.rounds,
        **rounds_taken(run),
        "rows": rows(verdicts, contender_metrics(run, batch, params.benchmark)),
    }


def try_validate(files: ModelFiles, variant: str, provider: str, params: Params) -> GpuVerdict:
    """Return the verdict of `validated`, or its error as the verdict, so that the others are still measured."""
    try:
        verdict: GpuVerdict = run_in_child(validated, files, variant, provider, params)
    except (ChildError, GraphError, ProviderError) as error:
        return GpuVerdict(variant, provider, passed=False, failure=str(error), runs=False)
    return verdict


def validated(files: ModelFiles, variant: str, provider: str, params: Params) -> GpuVerdict:
    """Compare a variant on a provider with PyTorch, as the stage `validate` does.

    Raises ProviderError if the provider does not run it, or if TensorRT leaves nodes to another one, and GraphError if
    the model does not load or run.
    """
    # With auto, CUDA may leave some nodes to the CPU, and notes them; it may also leave all of them.
    runtime = runtime_on("auto" if provider == "cuda" else provider, variant, params)
    spec = load_spec(files.model)
    model = OnnxModel(files.variant(variant), spec, runtime)
    if model.provider != PROVIDERS[provider]:
        raise ProviderError(model.note)
    found, _ = validate(model, load_data(files.model), files, params.validate_, budget_of(variant, spec))
    return GpuVerdict(
        variant,
        provider,
        passed=found.passed,
        failure=found.failure,
        sqnr_db=found.sqnr_db,
        agreement=found.agreement,
        note=model.note,
    )


def runtime_on(provider: str, variant: str, params: Params) -> Runtime:
    """Return the runtime settings of the model on this provider, and on the first GPU, which torch takes as well.

    TensorRT may compute in float16 only for fp16, and in 8 bits only for int8_static.
    """
    runtime = params.runtime
    return runtime.model_copy(
        update={
            "provider": provider,
            "intra_threads": settings(params, available_cores())[0][1],
            "cuda": runtime.cuda.model_copy(update={"device_id": 0}),
            "tensorrt": runtime.tensorrt.model_copy(
                update={"device_id": 0, "fp16": variant == "fp16", "int8": variant == "int8_static"}
            ),
        }
    )


def contenders(
    verdicts: Iterable[GpuVerdict], files: ModelFiles, params: Params, spec: Spec, device: str
) -> list[Contender]:
    """Return what is timed: PyTorch in its forms, and every variant that runs.

    A variant that leaves no node to the CPU is timed on `cuda`, where a node that is left would be an error, and not on
    `auto`.
    """
    entries = torch_contenders(files.model, files.raw, spec, runtime_on("cpu", "", params), device, PYTORCH)
    for verdict in verdicts:
        if verdict.runs:
            runtime = runtime_on("auto" if verdict.note else verdict.provider, verdict.contender, params)
            target = str(files.variant(verdict.contender))
            entries.append(Contender(entry_name(verdict), "onnx", target, files.raw, spec, runtime))
    return entries


def entry_name(verdict: GpuVerdict) -> str:
    return f"{verdict.contender} on {verdict.provider}"


def rows(verdicts: Iterable[GpuVerdict], figures: Mapping[str, ContenderMetrics]) -> list[dict[str, Any]]:
    """Join verdicts and timing metrics of each contender; `timing` is None for one that does not run."""
    timings = {name: found.model_dump() for name, found in figures.items()}
    torch_rows = [{**asdict(GpuVerdict(kind, "PyTorch", passed=None)), "timing": timings[kind]} for kind in PYTORCH]
    return torch_rows + [{**asdict(item), "timing": timings.get(entry_name(item))} for item in verdicts]


def describe_runs(runs: Iterable[Mapping[str, Any]]) -> str:
    """Write the tables of all runs of benchmarks/gpu.json, each under a heading of its model and batch size."""
    return "\n\n".join(f"### {run['model']}, batch {run['batch']}\n\n{describe_gpu_check(run)}" for run in runs)


def describe_gpu_check(result: Mapping[str, Any]) -> str:
    """Write the table of one run in Markdown, and below it how it was measured."""
    gpu, versions = result["gpu"], result["versions"]
    header = [
        *("contender", "provider", "validated", "SQNR, dB", "agreement", "latency, ms", "p95, ms"),
        *("speed-up over eager", "over torch.compile", "note"),
    ]
    tensorrt = f" TensorRT is not installed: {result['no_tensorrt']}." if result["no_tensorrt"] else ""
    return (
        f"{table(header, (result_cells(row, result) for row in result['rows']))}\n\n"
        f"{result['model']} at batch {result['batch']} on {gpu['name']}, {gpu['memory']}, driver {gpu['driver']}; "
        f"torch {versions['torch']} with CUDA {versions['cuda']}, onnxruntime-gpu {versions['onnxruntime-gpu']}. "
        "The time of both sides includes the copies from the host's memory to the GPU's and back. Latencies are "
        f"medians and brackets 95 % intervals; if the interval contains 1, there is no difference.{tensorrt}"
    )


def result_cells(row: Mapping[str, Any], result: Mapping[str, Any]) -> list[str]:
    """Return one line of the table; a dash stands for a value that could not be measured."""
    timing = ContenderMetrics.model_validate(row["timing"]) if row["timing"] else None
    rounds = Rounds(result.get("rounds", 0), result.get("disturbed_rounds", 0))  # older results do not have them
    notes = [row["note"]]
    if timing and timing.failure:
        notes.append(f"not timed: {timing.failure}")
    elif timing and timing.provider_note != row["note"]:  # for example because the GPU's memory was full
        notes.append(f"timed on {timing.provider}: {timing.provider_note}")
    latency, *speedups = timing_cells(timing, rounds) if timing else ["–"] * 3
    return [
        row["contender"],
        row["provider"],
        one_line(verdict_cell(row)),
        number(row["sqnr_db"]),
        percent(row["agreement"]),
        latency,
        number(timing.latency_ms.p95) if timing else "–",
        *speedups,
        one_line("; ".join(note for note in notes if note)),
    ]


def verdict_cell(row: Mapping[str, Any]) -> str:
    if row["passed"] is None:
        return ""
    return "passed" if row["passed"] else f"failed: {row['failure']}"


def one_line(text: str) -> str:
    """Shorten a text to fit into a cell; benchmarks/gpu.json has all of it."""
    return textwrap.shorten(text, CELL, placeholder=" …").replace("|", "\\|")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_option(parser)
    parser.add_argument("--batch", type=int, metavar="N", help="batch size to time (default: the benchmark's first)")
    run_tool(main, parser)
