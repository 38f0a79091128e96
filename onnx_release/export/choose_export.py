"""Try the exporters and opsets that the parameters allow, and keep the file that is right with the fewest nodes."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from onnx_release.core.child_process import ChildError, run_in_child
from onnx_release.core.errors import ExportError, ReleaseError
from onnx_release.core.files import replacing_folder
from onnx_release.core.params import OPSETS, Export
from onnx_release.core.paths import MODEL_FILE, ModelFiles
from onnx_release.core.plain_text import count_of
from onnx_release.core.spec import Spec
from onnx_release.export.advice import without_advice
from onnx_release.export.candidates import Attempt, Candidate, make_candidate
from onnx_release.export.metrics import ExportMetrics
from onnx_release.graph.graph import default_opset, load_model, model_size_mb, parameter_count

# The opsets that `auto` tries: 18 is what torch.onnx builds, and since 20 there is a Gelu, which ONNX Runtime fuses.
AUTO_OPSETS = (18, 20)


@dataclass(frozen=True)
class Refused:
    """An attempt that gave no file, and why."""

    attempt: Attempt
    reason: str


def export_model(
    build: Callable[[], torch.nn.Module], spec: Spec, params: Export, files: ModelFiles, folder: Path
) -> ExportMetrics:
    """Write `folder` with model.onnx and sources.json, and return the metrics.

    `build` returns the network, and is pickled: each attempt runs in a process of its own. The references of `files`
    say what is right. Raises ExportError with the reason of each attempt if none gives a file that runs.
    """
    with replacing_folder(folder) as partial:
        candidates: list[Candidate] = []
        refused: list[Refused] = []
        tried = dict.fromkeys(attempt.exporter for attempt in attempts(params))
        for number, attempt in enumerate(attempts(params)):
            if attempt.capture == "strict" and any(candidate.level == 0 for candidate in candidates):
                continue  # the other capture gives the same graph
            own = partial / str(number)
            try:
                candidates.append(try_attempt(build, spec, attempt, files, own))
            except ReleaseError as error:
                refused.append(Refused(attempt, without_advice(str(error).replace(f"{own}/", ""), tried)))
                shutil.rmtree(own, ignore_errors=True)
        if not candidates:
            raise ExportError(describe_refusals(refused))
        best = min(candidates, key=lambda candidate: (candidate.level, candidate.nodes))
        keep_only(best, partial)
    if best.agreement.wrong:
        print(f"warning: the export is wrong: {describe_wrong(best)}", file=sys.stderr)
    return metrics_of(folder / MODEL_FILE, best, describe_others(best, candidates, refused))


def try_attempt(
    build: Callable[[], torch.nn.Module], spec: Spec, attempt: Attempt, files: ModelFiles, folder: Path
) -> Candidate:
    """Make the candidate in a process of its own; if that ends without a result, once more for the first opset alone.

    Raises what `make_candidate` does, and ChildError.
    """
    try:
        return run_in_child(make_candidate, build, spec, attempt, files, folder)
    except ChildError:
        if len(attempt.opsets) == 1:
            raise
    shutil.rmtree(folder, ignore_errors=True)
    first = replace(attempt, opsets=attempt.opsets[:1])
    return run_in_child(make_candidate, build, spec, first, files, folder)


def attempts(params: Export) -> list[Attempt]:
    """Return the ways to try, in the order of preference."""
    found: list[Attempt] = []
    wanted = AUTO_OPSETS if params.opset == "auto" else (params.opset,)
    if params.exporter != "torchscript":
        found += [Attempt("dynamo", "non-strict", wanted), Attempt("dynamo", "strict", wanted)]
    if params.exporter != "dynamo" and all(opset in OPSETS["torchscript"] for opset in wanted):
        found.append(Attempt("torchscript", "trace", wanted, refuse_reads=params.exporter == "auto"))
    return found


def keep_only(best: Candidate, folder: Path) -> None:
    """Move the files of the candidate to `folder`, and remove all others."""
    for path in best.folder.iterdir():
        path.rename(folder / path.name)
    for part in [path for path in folder.iterdir() if path.is_dir()]:
        shutil.rmtree(part)


def describe_refusals(refused: list[Refused]) -> str:
    """Describe why each attempt failed; the reason alone if there was one attempt."""
    reasons = list(dict.fromkeys(item.reason for item in refused))
    if len(reasons) == 1:
        return reasons[0]
    listed = "".join(f"\n- {item.attempt.name}: {item.reason}" for item in refused)
    return f"no exporter converts the network. Fix what one of them names:{listed}"


def describe_others(best: Candidate, candidates: list[Candidate], refused: list[Refused]) -> str:
    """Describe in one line why each other attempt and opset was not taken."""
    parts = [f"{best.attempt.name}: {best.other_opsets}"] if best.other_opsets else []
    parts += [f"{other.attempt.name}: {why_not(other, best)}" for other in candidates if other is not best]
    parts += [f"{item.attempt.name}: {first_sentence(item.reason)}" for item in refused]
    if best.agreement.difference:
        parts.insert(0, f"none is within the tolerance: {describe_wrong(best)}")
    return "; ".join(parts)


def describe_wrong(best: Candidate) -> str:
    """Describe how far off the answers are, and where the first wrong value is made."""
    return "; ".join(part for part in (best.agreement.difference, best.blamed) if part)


def why_not(other: Candidate, best: Candidate) -> str:
    """Say why `other` was not taken."""
    if other.level > best.level:
        return other.agreement.difference
    return f"{count_of(other.nodes, 'node')} at opset {other.opset}, no fewer"


def first_sentence(reason: str) -> str:
    """Return the first line of a reason, cut to a length that a table shows."""
    line = reason.strip().splitlines()[0]
    return line if len(line) <= 240 else f"{line[:237]}..."


def metrics_of(path: Path, best: Candidate, others: str) -> ExportMetrics:
    """Read the metrics of an export from its file."""
    model = load_model(path, weights=False)
    return ExportMetrics(
        opset=default_opset(model),
        exporter=best.attempt.exporter,
        capture=best.attempt.capture,
        others=others,
        nodes=len(model.graph.node),
        optimized_nodes=best.nodes,
        parameters=parameter_count(model),
        size_mb=model_size_mb(path),
    )
