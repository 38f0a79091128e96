"""Write the first screen of the report: what to release and why, and what is in the way."""

from onnx_release.core.params import ENOUGH_TO_CALIBRATE
from onnx_release.core.plain_text import count_of
from onnx_release.core.spec import Task
from onnx_release.report.results import Results
from onnx_release.report.text import number, share_cell
from onnx_release.timing.metrics import BenchmarkMetrics, ContenderMetrics
from onnx_release.timing.speedup import Speedup, describe_doubt, over_compile, over_eager

# Agreement with PyTorch in a sentence, by task.
AGREEMENT_SENTENCES: dict[Task, str] = {
    "classification": "the same answer as PyTorch on {} of the samples",
    "detection": "{} of the boxes matched with PyTorch's",
    "embedding": "the same nearest neighbour as in PyTorch for {} of the samples",
}
# A graph that is worse by more than this on other samples was calibrated on too few.
MOST_DB_LOST = 3.0


def describe_verdict(results: Results) -> str:
    """Say in one sentence what to release and why, and in a second one what is in the way."""
    failed = ", ".join(results.failures)
    chosen = results.chosen
    if chosen is None:
        return f"Nothing to release: {failed} failed." if failed else "Nothing to release: no variant could be timed."
    why = results.metrics.summary.reason
    size = results.graphs.sizes_mb[chosen.name]
    parts = [*describe_speedups(chosen.timing, results.metrics.benchmark), f"{number(size)} MB"]
    found = chosen.validation
    if found.agreement is not None:
        agreement = share_cell(found.agreement, found.agreement_low, found.agreement_high)
        parts.insert(0, AGREEMENT_SENTENCES[results.spec.task].format(agreement))
    end = f" In the way: {failed} failed." if failed else ""
    return f"Release {chosen.name}, {why}: {', '.join(parts)}.{end}"


def describe_speedups(timing: ContenderMetrics, benchmark: BenchmarkMetrics) -> list[str]:
    """Say how many times as fast a contender is as PyTorch in its two forms, if they could be timed."""
    found = speedups_by_base(timing, benchmark)
    doubts = {speedup.doubt for speedup in found.values()}
    if len(doubts) == 1 and "" not in doubts:
        return [f"speed not measured ({doubts.pop()})"]
    return [describe_speedup(speedup, name) for name, speedup in found.items()]


def speedups_by_base(timing: ContenderMetrics, benchmark: BenchmarkMetrics) -> dict[str, Speedup]:
    """Return the speed-ups over PyTorch in its two forms, if they could be timed."""
    found = {"PyTorch eager": over_eager(timing, benchmark), "torch.compile": over_compile(timing, benchmark)}
    return {name: speedup for name, speedup in found.items() if speedup.value is not None}


def describe_speedup(speedup: Speedup, name: str) -> str:
    """Say how many times as fast a contender is as `name`."""
    if speedup.doubt:
        return f"speed against {name} not measured ({speedup.doubt})"
    interval = f"[{number(speedup.low)}, {number(speedup.high)}]"
    if speedup.no_difference:
        return f"as fast (no difference {interval}) as {name}"
    return f"{number(speedup.value)} {interval} times as fast as {name}"


def describe_warnings(results: Results) -> list[str]:
    """Say in Markdown what was not measured, and why int8_static may need more calibration; each with a fix."""
    warnings = [describe_unmeasured(results), describe_calibration(results)]
    return [warning.strip() for warning in warnings if warning]


def describe_unmeasured(results: Results) -> str:
    """Say which speed-up of the chosen variant was not measured, and what to do; empty if both were."""
    if results.chosen is None or not results.metrics.summary.not_measured:
        return ""
    found = speedups_by_base(results.chosen.timing, results.metrics.benchmark)
    doubtful = {name: speedup for name, speedup in found.items() if speedup.doubt}
    against = "" if len(doubtful) > 1 else f" against {next(iter(doubtful))}"
    fix = describe_doubt(next(iter(doubtful.values())), results.model)
    return f"**Speed{against} was not measured.** {fix}"


def describe_calibration(results: Results) -> str:
    """Say why int8_static may be worse than it could be, and what to do; empty if nothing suggests that."""
    static = results.metrics.quantize_static
    made = next((one for one in results.candidates if one.name == "int8_static"), None)
    if static is None or made is None:
        return ""
    samples, searched = results.metrics.prepare.calibration_samples, static.calibration_sqnr_db
    validated = made.validation.sqnr_db
    found = []
    if samples < ENOUGH_TO_CALIBRATE:
        found.append(f"calibrated on {count_of(samples, 'sample')}")
    if searched is not None and validated is not None and searched - validated > MOST_DB_LOST:
        found.append(
            f"{number(searched - validated)} dB worse on evaluation samples ({number(validated)} dB) than on "
            f"calibration samples ({number(searched)} dB)"
        )
    if not found:
        return ""
    return (
        f"**int8_static is {', and '.join(found)}.** Calibrate on more and more varied samples: at least "
        f"{ENOUGH_TO_CALIBRATE} that are like those in use. `prepare.calibration` limits their number, in params.yaml "
        f"or in models/{results.model}/params.yaml."
    )
