"""Make the tables of results: PyTorch and every variant of a model, with answers and timings."""

from onnx_release.core.metrics import LEFT_OUT
from onnx_release.core.paths import MODELS_BENCHMARK
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import BASE, SHIPPABLE, VARIANTS
from onnx_release.data.metrics import PrepareMetrics
from onnx_release.report.pages import contender_names
from onnx_release.report.text import AGREEMENT, ANSWER_DETAILS, number, percent, share_cell, table, timing_cells
from onnx_release.timing.metrics import BenchmarkMetrics, ContenderMetrics
from onnx_release.timing.speedup import Rounds
from onnx_release.validate.metrics import ValidateMetrics
from tools.page_parts import Maker, Read

# The metric that has the size of each variant's file.
SIZES = {
    "fp32": ("slim", "size_mb_after"),
    "fp16": ("fp16", "size_mb"),
    "int8_dynamic": ("quantize_dynamic", "size_mb"),
    "int8_static": ("quantize_static", "size_mb"),
}


def short_results(read: Read) -> str:
    """Make the table of README.md: PyTorch, each variant that may be released, and how they were measured."""
    benchmark, prepare, validations = read_metrics(read)
    released = read("metrics/summary.json")["variant"]
    rows = []
    for name in ("torch_eager", "torch_compile"):
        accuracy = percent(validations["export"].accuracy_torch) if name == BASE else ""
        rows.append([name, "", accuracy, "", "", *timing_cells(benchmark.contenders[name], benchmark)[:2]])
    for name in [name for name in SHIPPABLE if name in validations]:
        file, key = SIZES[name]
        row, size = validations[name], read(f"metrics/{file}.json")[key]
        answers = [percent(row.agreement), percent(row.accuracy), number(row.sqnr_db)]
        timings = timing_cells(benchmark.contenders[name], benchmark)[:2]
        rows.append([f"**{name}**, released" if name == released else name, *answers, number(size), *timings])
    header = ["", "same answer", "accuracy", "SQNR, dB", "file, MB", "latency, ms", "speed-up over PyTorch eager"]
    return f"{table(header, rows)}\n\n{described(prepare, benchmark.batch, benchmark.threads, benchmark.machine)}"


def results(read: Read) -> str:
    """Make the table of docs/benchmark.md: all that was timed of the default model."""
    benchmark, prepare, validations = read_metrics(read)
    pipeline = read("benchmarks/pipeline.json")
    answers = variants_table("same answer as PyTorch", ["accuracy"], validations, benchmark.contenders, benchmark)
    where = described(prepare, benchmark.batch, benchmark.threads, benchmark.machine)
    return (
        f"{answers}\n\n{where} The pipeline takes "
        f"{number(pipeline['fresh_seconds'])} s in a fresh clone with the packages installed and "
        f"{number(pipeline['unchanged_seconds'])} s when nothing changed (`python -m benchmarks.pipeline`, "
        f"{pipeline['machine']})."
    )


def read_metrics(read: Read) -> tuple[BenchmarkMetrics, PrepareMetrics, dict[str, ValidateMetrics]]:
    """Read the benchmark, the samples, and the validation of every variant that was made."""
    found = {f"metrics/validate/{variant}.json": read(f"metrics/validate/{variant}.json") for variant in VARIANTS}
    return (
        BenchmarkMetrics.parse(read("metrics/benchmark.json"), "metrics/benchmark.json"),
        PrepareMetrics.parse(read("metrics/prepare.json"), "metrics/prepare.json"),
        {
            variant: ValidateMetrics.parse(row, path)
            for variant, (path, row) in zip(VARIANTS, found.items(), strict=True)
            if LEFT_OUT not in row
        },
    )


def described(prepare: PrepareMetrics, batch: int, threads: int, machine: str) -> str:
    """Say on how many samples, and where, the results were measured."""
    return (
        f"{prepare.evaluation_samples} samples from {prepare.evaluation_groups} groups, "
        f"{prepare.evaluation_labelled} labelled; batch {batch}, {threads} threads, {machine}. "
        "Brackets are 95 % intervals."
    )


def other_model(model: str) -> Maker:
    """Return the maker of the same table for another model, with the metrics that its task has."""

    def make(read: Read) -> str:
        found = read(MODELS_BENCHMARK.as_posix())[model]
        source, task = f"{MODELS_BENCHMARK}, {model}", load_spec(model).task
        benchmark, prepare = found["benchmark"], PrepareMetrics.parse(found["prepare"], source)
        contenders = {
            name: ContenderMetrics.model_validate(row) for name, row in benchmark.items() if isinstance(row, dict)
        }
        validations = {
            name: ValidateMetrics.parse(found["validate"][name], source)
            for name in VARIANTS
            if name in found["validate"]
        }
        first = validations["fp32"]
        columns = [name for name in ("accuracy", *ANSWER_DETAILS[task]) if getattr(first, name) is not None]
        # The file does not say how many rounds were disturbed, so no timing is left out.
        answers = variants_table(AGREEMENT[task], columns, validations, contenders, Rounds(0, 0))
        return (
            f"{answers}\n\n{described(prepare, benchmark['batch'], benchmark['threads'], found['machine'])} "
            f"`{found['summary']['variant']}` is released. "
            f"The pipeline took {number(found['seconds'])} s in a fresh clone with the packages installed "
            f"(`python -m benchmarks.models {model}`)."
        )

    return make


def variants_table(
    agreement: str,
    columns: list[str],
    validations: dict[str, ValidateMetrics],
    contenders: dict[str, ContenderMetrics],
    rounds: BenchmarkMetrics | Rounds,
) -> str:
    """Make a row for each form of PyTorch and each variant: agreement, `columns` of its validation, SQNR, timing."""
    rows = []
    for name in [name for name in contender_names(contenders) if name.startswith("torch_")]:
        known = {"accuracy": percent(validations["export"].accuracy_torch)} if name == BASE else {}
        details = [known.get(column, "") for column in columns]
        rows.append([name, "", *details, "", *cells(contenders[name], rounds)])
    for variant, row in validations.items():
        values = {name: getattr(row, name) for name in columns}
        details = [percent(value) if name == "accuracy" else number(value, 5) for name, value in values.items()]
        same = share_cell(row.agreement, row.agreement_low, row.agreement_high)
        rows.append([variant, same, *details, number(row.sqnr_db), *cells(contenders[variant], rounds)])
    header = [
        *("", agreement),
        *(name.replace("_", " ").replace("iou", "IoU") for name in columns),
        *("SQNR, dB", "latency, ms", "speed-up over eager", "over torch.compile", "peak memory, MB"),
    ]
    return table(header, rows)


def cells(timing: ContenderMetrics, rounds: BenchmarkMetrics | Rounds) -> list[str]:
    """Return latency, speed-up over eager, speed-up over torch.compile, and peak memory."""
    return [*timing_cells(timing, rounds), number(timing.peak_memory_mb)]
