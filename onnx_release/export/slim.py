"""Slim an exported graph with onnxslim, and check that its answers stay the same."""

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import onnxslim
from onnx import ModelProto, TensorProto, helper
from onnx.external_data_helper import uses_external_data

from onnx_release.core.array_files import ArrayFile, writing_arrays
from onnx_release.core.errors import GraphError
from onnx_release.core.files import replacing_folder
from onnx_release.core.params import Slim
from onnx_release.export.metrics import SlimMetrics
from onnx_release.graph.graph import (
    check_model_file,
    copy_weights,
    external_files,
    load_model,
    load_weights,
    model_size_mb,
    save_model,
)
from onnx_release.measure.case_names import case_names
from onnx_release.measure.numerics import tolerance_needed
from onnx_release.runtime.session import open_session, run_session

# ONNX Runtime's own default, "warning". onnxslim sets another one for the whole process and does not restore it.
DEFAULT_LOG_SEVERITY = 2
# Weights of this many elements in another file are hidden from onnxslim. The values that it needs, shapes, axes and
# scalars, have fewer.
LARGE_WEIGHT = 2**14
SKIP_HINT = "Find the fusion to blame by adding names to slim.skip_fusion_patterns in params.yaml or in the model's own"


def slim_model(source: Path, cases: Path, params: Slim, folder: Path) -> None:
    """Write the slimmed model of `source` to `folder`; `cases` has the inputs of the shape cases.

    Raises GraphError if onnxslim fails, and if the result is invalid or its answers differ.
    """
    with replacing_folder(folder) as partial:
        path = save_model(slimmed(source, params, partial), partial)
        check_model_file(path)
        check_same_answers(source, path, ArrayFile(cases), params)


def slimmed(source: Path, params: Slim, folder: Path) -> ModelProto:
    """Slim `source`, and return the model to save in `folder`. Raises GraphError if onnxslim fails.

    In a file over 2 GB onnxslim gets large weights as inputs, and so does not fold or fuse them. With them it would
    have four copies of the file in memory, and protobuf could not pass them to shape inference.
    """
    if not external_files(source):
        return with_inputs(run_onnxslim(source, str(source), params), source)
    model, large = without_large_weights(source)
    result = with_inputs(with_weights(run_onnxslim(source, model, params), large), source)
    copy_weights(result, source.parent, folder)
    return result


def with_inputs(model: ModelProto, source: Path) -> ModelProto:
    """Give `model` all inputs of the file `source` again: onnxslim drops those that no node takes."""
    kept = {value.name: value for value in model.graph.input}
    inputs = [kept.get(value.name, value) for value in load_model(source, weights=False).graph.input]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return model


def run_onnxslim(source: Path, model: str | ModelProto, params: Slim) -> ModelProto:
    """Run onnxslim on `model`, which comes from `source`. Raises GraphError if it fails."""
    try:
        found = onnxslim.slim(model, skip_fusion_patterns=params.skip_fusion_patterns or None)
    except Exception as cause:  # a pass of onnxslim may raise anything
        raise GraphError(f"onnxslim fails on {source}: {cause!r}. {SKIP_HINT}") from cause
    finally:
        onnxruntime.set_default_logger_severity(DEFAULT_LOG_SEVERITY)
    if found is None:
        raise GraphError(f"onnxslim returned no model for {source}. {SKIP_HINT}")
    return found


def without_large_weights(source: Path) -> tuple[ModelProto, dict[str, TensorProto]]:
    """Return the model with its large weights as inputs, and these weights by name, their values in files."""
    model = load_model(source, weights=False)
    tensors = list(model.graph.initializer)
    large = [tensor for tensor in tensors if uses_external_data(tensor) and np.prod(tensor.dims) >= LARGE_WEIGHT]
    names = {tensor.name for tensor in large}
    inputs = [helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in large]
    model.graph.input.extend(inputs)
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensor for tensor in tensors if tensor.name not in names)
    load_weights(model, source.parent)
    return model, {tensor.name: tensor for tensor in large}


def with_weights(model: ModelProto, weights: dict[str, TensorProto]) -> ModelProto:
    """Turn the inputs with the names of `weights` into weights again, and return the model."""
    inputs = list(model.graph.input)
    del model.graph.input[:]
    model.graph.input.extend(value for value in inputs if value.name not in weights)
    model.graph.initializer.extend(weights[value.name] for value in inputs if value.name in weights)
    return model


def check_same_answers(before: Path, after: Path, cases: ArrayFile, params: Slim) -> None:
    """Raise GraphError unless both models agree within atol and rtol on the inputs of every shape case.

    Only one model is open at a time; the answers of `before` are kept in a file.
    """
    names = case_names(cases)
    with tempfile.TemporaryDirectory() as made:
        answers = Path(made) / "answers.npz"
        write_answers(before, cases, names, answers)
        session, earlier = open_session(after), ArrayFile(answers)
        for name in names:
            found = run_session(session, cases.folder(f"{name}/inputs"))
            for output, expected in earlier.folder(name).items():
                needed = tolerance_needed(expected, found[output], params.rtol)
                if not needed <= params.atol:  # a NaN fails too
                    raise GraphError(
                        f"slimming changed the answers: {output} in the case {name} needs atol {needed:.3g} at rtol "
                        f"{params.rtol:g}, slim.atol is {params.atol:g}. {SKIP_HINT}"
                    )


def write_answers(model: Path, cases: ArrayFile, names: list[str], path: Path) -> None:
    """Write the answers of a model to the shape cases."""
    session = open_session(model)
    with writing_arrays(path) as writer:
        for name in names:
            writer.add_all(name, run_session(session, cases.folder(f"{name}/inputs")))


def slim_metrics(before: Path, after: Path) -> SlimMetrics:
    """Count nodes and bytes of a model before and after onnxslim."""
    return SlimMetrics(
        nodes_before=len(load_model(before, weights=False).graph.node),
        nodes_after=len(load_model(after, weights=False).graph.node),
        size_mb_before=model_size_mb(before),
        size_mb_after=model_size_mb(after),
    )
