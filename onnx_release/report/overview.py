"""Make the overview: a row for each model, from its spec.yaml and its metrics alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from onnx_release.choice.metrics import SummaryMetrics
from onnx_release.core.errors import DataError, ReleaseError
from onnx_release.core.paths import ARTIFACTS, ModelFiles
from onnx_release.core.plain_text import count_of
from onnx_release.core.spec import Task, load_spec
from onnx_release.core.variants import VARIANTS
from onnx_release.report.charts import DARK, LIGHT, TEXT
from onnx_release.report.pages import REPORT_TEMPLATES
from onnx_release.report.text import AGREEMENT, environment, number, percent, speedup_cell, table
from onnx_release.report.tradeoff import SQNR
from onnx_release.timing.metrics import BenchmarkMetrics
from onnx_release.timing.speedup import over_eager
from onnx_release.validate.metrics import ValidateMetrics

HEADER = ("model", "task", "passed", "released", "times as fast as PyTorch eager", "SQNR", "answers", "size")


@dataclass(frozen=True)
class Outcome:
    """What came out for a model, in words.

    `failures` says which variants did not pass and why, and `timed` how and where speed was measured. The other fields
    are about the released variant; all are empty if there is none.
    """

    failures: Sequence[str]
    timed: str
    released: str = ""
    speedup: str = ""
    sqnr: str = ""
    answers: Sequence[str] = field(default_factory=tuple)
    size: str = ""


@dataclass(frozen=True)
class Row:
    """A model with its outcome; without one, `problem` says why there is none and what to do."""

    model: str
    task: str
    outcome: Outcome | None
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Return whether every variant passed, and one of them is released."""
        return self.outcome is not None and not self.outcome.failures

    @property
    def report(self) -> str:
        """Return the link from a page in artifacts/ to the model's report."""
        return (ModelFiles(self.model).report / "index.html").relative_to(ARTIFACTS).as_posix()


def read_rows(models: Iterable[str]) -> list[Row]:
    """Return a row for each model. What is wrong with one is in its row, and the others have theirs."""
    return [read_row(model) for model in models]


def read_row(model: str) -> Row:
    spec = None
    try:
        spec = load_spec(model)
        if not SummaryMetrics.path(model).is_file():
            return Row(model, spec.task, None, f"no results yet: run `make repro MODEL={model}`")
        return Row(model, spec.task, read_outcome(model, spec.task))
    except ReleaseError as error:
        return Row(model, spec.task if spec else "", None, one_line(str(error)))


def read_outcome(model: str, task: Task) -> Outcome:
    """Read the outcome of a model that has run. Raises DataError if metrics are missing or damaged."""
    summary, benchmark = SummaryMetrics.read(model), BenchmarkMetrics.read(model)
    found = {variant: ValidateMetrics.read_if_made(model, variant) for variant in VARIANTS}
    made = {variant: validation for variant, validation in found.items() if validation is not None}
    failures = [
        one_line(f"{variant}: {validation.failure or 'it failed its validation'}")
        for variant, validation in made.items()
        if not validation.passed
    ]
    timed = f"at batch {benchmark.batch}, with {count_of(benchmark.threads, 'thread')}, on {benchmark.machine}"
    if summary.variant is None:
        return Outcome(failures or ["no variant could be timed"], timed)
    chosen, timing = ValidateMetrics.read(model, summary.variant), benchmark.contenders.get(summary.variant)
    if timing is None:
        raise DataError(
            f"{BenchmarkMetrics.path(model)} has no timing of {summary.variant}, which is released: run `make repro "
            f"MODEL={model}`"
        )
    speedup = over_eager(timing, benchmark)
    return Outcome(
        failures,
        timed,
        released=summary.variant,
        speedup="not measured" if speedup.value is None else speedup_cell(speedup),
        sqnr=SQNR.written(chosen.closeness.signal),
        answers=describe_answers(chosen, task),
        size=f"{number(summary.size_mb)} MB",
    )


def describe_answers(found: ValidateMetrics, task: Task) -> list[str]:
    """Say how a variant's answers are, by the measures of its task; nothing for a task without any."""
    answers = []
    if found.agreement is not None:
        answers.append(f"{AGREEMENT[task]}: {percent(found.agreement)}")
    if found.accuracy is not None:
        answers.append(f"accuracy: {percent(found.accuracy)}, PyTorch's {percent(found.accuracy_torch)}")
    return answers


def one_line(text: str) -> str:
    return " ".join(text.split())


def overview_table(rows: Sequence[Row], links: bool) -> str:
    """Write the table in Markdown, with or without links to the reports, and how and where speed was measured."""
    written = table(HEADER, [[cell.replace("|", "\\|") for cell in cells(row, links)] for row in rows])
    note = describe_conditions(rows)
    return f"{written}\n\n{note}" if note else written


def cells(row: Row, links: bool) -> list[str]:
    """Return the cells of a row in Markdown."""
    found = row.outcome
    if found is None:
        return [row.model, row.task, row.problem, *[""] * (len(HEADER) - 3)]
    name = f"[{row.model}]({row.report})" if links else row.model
    passed = "yes" if row.passed else f"**no**: {'; '.join(found.failures)}"
    about = [found.released or "nothing", found.speedup, found.sqnr, "; ".join(found.answers), found.size]
    return [name, row.task, passed, *about]


def describe_conditions(rows: Sequence[Row]) -> str:
    """Say how and where speed was measured, of which models if not of all alike; empty if none has an outcome."""
    models: dict[str, list[str]] = {}
    for row in rows:
        if row.outcome is not None:
            models.setdefault(row.outcome.timed, []).append(row.model)
    if not models:
        return ""
    of = {how: f": {', '.join(names)}" if len(models) > 1 else "" for how, names in models.items()}
    return " ".join([*(f"Timed {how}{names}." for how, names in of.items()), "Brackets are 95 % intervals."])


def render_html(rows: Sequence[Row]) -> str:
    """Return the page for artifacts/; it needs no network and no other file, but its links lead to the reports."""
    page = (
        environment(REPORT_TEMPLATES, autoescape=True)
        .get_template("overview.html")
        .render(rows=rows, header=HEADER, heading=describe_passed(rows), conditions=describe_conditions(rows),
                colours={"light": LIGHT, "dark": DARK, "text": TEXT})
    )  # fmt: skip
    return page.replace(" %", "\N{NO-BREAK SPACE}%")


def render_markdown(rows: Sequence[Row]) -> str:
    """Return the same in Markdown."""
    template = environment(REPORT_TEMPLATES, autoescape=False).get_template("overview.md")
    return template.render(heading=describe_passed(rows), table=overview_table(rows, links=True))


def describe_passed(rows: Sequence[Row]) -> str:
    """Say how many models passed, and how many have no results."""
    unknown = sum(row.outcome is None for row in rows)
    passed = f"{sum(row.passed for row in rows)} of {count_of(len(rows), 'model')} passed"
    return f"{passed}, {unknown} without results" if unknown else passed
