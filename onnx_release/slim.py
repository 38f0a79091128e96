"""Slim an exported graph with onnxslim, and prove that its answers are still the same."""

from pathlib import Path
from typing import Any

import onnxruntime
import onnxslim

from onnx_release.array_files import ArrayFile
from onnx_release.errors import GraphError
from onnx_release.files import replacing_folder
from onnx_release.graph import load_model, model_size_mb, save_checked
from onnx_release.numerics import tolerance_needed
from onnx_release.params import Slim
from onnx_release.session import open_session, run_session

# ONNX Runtime's own default, "warning". onnxslim sets another one for the whole process and does not set it back.
DEFAULT_LOG_SEVERITY = 2
SKIP_HINT = "Find the fusion that does it by adding names to slim.skip_fusion_patterns in params.yaml"


def slim_model(source: Path, cases: Path, params: Slim, folder: Path) -> None:
    """Write the slimmed model of `source` to `folder`; `cases` holds the inputs of the shape cases.

    Raises GraphError where onnxslim gives up, and where the result is invalid or answers differently.
    """
    try:
        model = onnxslim.slim(str(source), skip_fusion_patterns=params.skip_fusion_patterns or None)
    except Exception as cause:  # onnxslim raises whatever goes wrong in a pass
        raise GraphError(f"onnxslim fails on {source}: {cause!r}. {SKIP_HINT}") from cause
    finally:
        onnxruntime.set_default_logger_severity(DEFAULT_LOG_SEVERITY)
    if model is None:
        raise GraphError(f"onnxslim gave no model for {source}. {SKIP_HINT}")
    with replacing_folder(folder) as partial:
        path = save_checked(model, partial)
        check_same_answers(source, path, ArrayFile(cases), params)


def check_same_answers(before: Path, after: Path, cases: ArrayFile, params: Slim) -> None:
    """Raise GraphError unless both models agree within atol and rtol on the inputs of every shape case."""
    sessions = open_session(before), open_session(after)
    for folder in cases.names:
        name, _, kind = folder.partition("/")
        if kind != "inputs":
            continue
        inputs = cases.folder(folder)
        expected, found = (run_session(session, inputs) for session in sessions)
        for output in expected:
            needed = tolerance_needed(expected[output], found[output], params.rtol)
            if not needed <= params.atol:  # a NaN fails too
                raise GraphError(
                    f"slimming changed the answers: {output} in the case {name} needs atol {needed:.3g} at rtol "
                    f"{params.rtol:g}, slim.atol is {params.atol:g}. {SKIP_HINT}"
                )


def slim_metrics(before: Path, after: Path) -> dict[str, Any]:
    """metrics/slim.json: nodes and sizes before and after."""
    return {
        "nodes_before": len(load_model(before, weights=False).graph.node),
        "nodes_after": len(load_model(after, weights=False).graph.node),
        "size_mb_before": model_size_mb(before),
        "size_mb_after": model_size_mb(after),
    }
