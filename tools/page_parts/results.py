"""Make the tables of results: one of all models, and those of one model with PyTorch and every variant."""

from collections.abc import Mapping, Sequence

from onnx_release.choice.metrics import SummaryMetrics
from onnx_release.core.model_list import load_models
from onnx_release.core.paths import MODELS_BENCHMARK
from onnx_release.core.spec import load_spec
from onnx_release.core.variants import BASE, VARIANTS
from onnx_release.data.metrics import PrepareMetrics
from onnx_release.report.overview import overview_table, read_rows
from onnx_release.report.pages import contender_names
from onnx_release.report.text import AGREEMENT, ANSWER_DETAILS, number, percent, share_cell, table, timing_cells
from onnx_release.timing.metrics import BenchmarkMetrics, ContenderMetrics
from onnx_release.validate.metrics import ValidateMetrics
from tools.page_parts import Maker, Read


def all_models(_: Read) -> str:
    """Make the table of README.md: the overview of the models on the list, without links, since git has no reports."""
    return overview_table(read_rows(load_models()), links=False)


def results(model: str) -> Maker:
    """Return the maker of a model's table: all that was timed, with the metrics that its task has."""

    def make(read: Read) -> str:
        benchmark, prepare = BenchmarkMetrics.read(model), PrepareMetrics.read(model)
        released, task = SummaryMetrics.read(model).variant, load_spec(model).task
        found = {variant: ValidateMetrics.read_if_made(model, variant) for variant in VARIANTS}
        validations = {variant: row for variant, row in found.items() if row is not None and row.made}
        columns = [
            name for name in ("accuracy", *ANSWER_DETAILS[task]) if getattr(validations["fp32"], name) is not None
        ]
        return (
            f"{variants_table(AGREEMENT[task], columns, validations, benchmark)}\n\n"
            f"{prepare.evaluation_samples} samples from {prepare.evaluation_groups} groups, "
            f"{prepare.evaluation_labelled} labelled; batch {benchmark.batch}, {benchmark.threads} threads, "
            f"{benchmark.machine}. Brackets are 95 % intervals. {f'`{released}`' if released else 'Nothing'} is "
            f"released.{duration(model, read)}"
        )

    return make


def duration(model: str, read: Read) -> str:
    """Say how long the pipeline takes for the model, where a benchmark has measured it."""
    pipeline = read("benchmarks/pipeline.json")
    if pipeline["model"] == model:
        unchanged = f" and {number(pipeline['unchanged_seconds'])} s when nothing changed"
        seconds, where = pipeline["fresh_seconds"], f"`python -m benchmarks.pipeline`, {pipeline['machine']}"
    elif found := read(MODELS_BENCHMARK.as_posix()).get(model):
        unchanged = ""
        seconds, where = found["seconds"], f"`python -m benchmarks.models {model}`, {found['machine']}"
    else:
        return ""
    return f" The pipeline takes {number(seconds)} s in a fresh clone with the packages installed{unchanged} ({where})."


def variants_table(
    agreement: str,
    columns: Sequence[str],
    validations: Mapping[str, ValidateMetrics],
    benchmark: BenchmarkMetrics,
) -> str:
    """Make a row for each form of PyTorch and each variant: agreement, `columns` of its validation, SQNR, timing."""
    rows = []
    for name in [name for name in contender_names(benchmark.contenders) if name.startswith("torch_")]:
        known = {"accuracy": percent(validations["export"].accuracy_torch)} if name == BASE else {}
        details = [known.get(column, "") for column in columns]
        rows.append([name, "", *details, "", *cells(benchmark.contenders[name], benchmark)])
    for variant, row in validations.items():
        values = {name: getattr(row, name) for name in columns}
        details = [percent(value) if name == "accuracy" else number(value, 5) for name, value in values.items()]
        same = share_cell(row.agreement, row.agreement_low, row.agreement_high)
        rows.append([variant, same, *details, number(row.sqnr_db), *cells(benchmark.contenders[variant], benchmark)])
    header = [
        *("", agreement),
        *(name.replace("_", " ").replace("iou", "IoU") for name in columns),
        *("SQNR, dB", "latency, ms", "speed-up over eager", "over torch.compile", "peak memory, MB"),
    ]
    return table(header, rows)


def cells(timing: ContenderMetrics, benchmark: BenchmarkMetrics) -> list[str]:
    """Return latency, speed-up over eager, speed-up over torch.compile, and peak memory."""
    return [*timing_cells(timing, benchmark), number(timing.peak_memory_mb)]
