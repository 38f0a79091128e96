"""Convert a float32 model to float16, and keep the nodes in float32 that overflow on real samples of every size.

onnxconverter-common converts. The passes of `fp16_passes` prepare the graph for it and put right what it leaves wrong.
Each file is loaded and run before it counts; where ONNX Runtime refuses it, more operators stay in float32.
"""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto
from onnxconverter_common.float16 import DEFAULT_OP_BLOCK_LIST

from onnx_release.core.child_process import ChildError, run_in_child
from onnx_release.core.errors import DataError, GraphError
from onnx_release.core.files import replacing_folder
from onnx_release.core.params import Fp16
from onnx_release.core.paths import MODEL_FILE
from onnx_release.data.samples import SampleFile, spread_evenly
from onnx_release.graph.activations import constant_values
from onnx_release.graph.graph import check_model_file, graphs, load_model, model_size_mb, save_model
from onnx_release.graph.precision import check_not_float16, check_not_quantized
from onnx_release.reduce.fp16_passes.attempts import kinds_to_keep
from onnx_release.reduce.fp16_passes.convert import convert_graph, kinds_of, prepare
from onnx_release.reduce.fp16_passes.kept import nodes_without_float16
from onnx_release.reduce.fp16_passes.overflow import NotFinite, Observed, find_not_finite, find_overflows, observe
from onnx_release.reduce.fp16_passes.types import value_types
from onnx_release.reduce.fp16_passes.weights import count_beyond, load_converted_weights
from onnx_release.reduce.metrics import Fp16Metrics
from onnx_release.reduce.observe import Run
from onnx_release.reduce.runs import sample_runs
from onnx_release.runtime.session import open_session, run_session

# How many samples the written file runs on; the search for overflows runs on all, and on the shape cases.
TRIED = 2


@dataclass(frozen=True)
class Source:
    """A prepared float32 model, the folder with its large weights, and the samples.

    `runs` has the samples, in their order, and the shape cases; `observed` is what float32 gives on them.
    """

    model: ModelProto
    folder: Path
    samples: SampleFile
    runs: list[Run]
    observed: Observed


@dataclass(frozen=True)
class Converted:
    """A graph in float16, and the names of the nodes that stay in float32 because of a value beyond float16."""

    model: ModelProto
    overflowing: set[str]


@dataclass(frozen=True)
class Trial:
    """A sample to run: its index, its inputs with the batch axis, and the outputs that are not finite in float32."""

    index: int
    inputs: dict[str, np.ndarray]
    not_finite: dict[str, NotFinite]


def convert_to_fp16(
    source: Path,
    samples: SampleFile,
    params: Fp16,
    folder: Path,
    apart: bool = False,
    corners: Sequence[Run] = (),
) -> Fp16Metrics:
    """Write `source` in float16 to `folder`, with its inputs and outputs as they are, and return the metrics.

    No node computes in float16 that would overflow on a sample or in a run of `corners`, which are shape cases: a sum
    over 6,000 positions is larger than one over 16, and a CPU, which computes in float32, does not show it. With
    `apart`, each file is tried in a process of its own, so that one that crashes ONNX Runtime is only refused.

    Raises GraphError if `source` is already in float16 or quantized, or if ONNX Runtime refuses the result whatever
    stays in float32, and DataError if the float32 model itself gives NaN on a sample, or if there is no sample.
    """
    if not len(samples):
        raise DataError("there is no sample to check float16 on: samples(raw, 'calibration') must yield at least one")
    loaded = load_model(source, weights=False)
    check_not_quantized(loaded, source)
    check_not_float16(loaded, source)
    model = prepare(loaded)
    runs = [*sample_runs(samples), *corners]
    given = Source(model, source.parent, samples, runs, observe(model, runs, source.parent))
    operators = {*DEFAULT_OP_BLOCK_LIST, *params.block_operators}
    always = nodes_without_float16(model) | kinds_of(model, operators)
    with replacing_folder(folder) as partial:
        converted = write_first_that_runs(given, always, params.max_finite_val, partial, apart)
        size = model_size_mb(partial / MODEL_FILE)
    return fp16_metrics(given, converted, params, size)


def write_first_that_runs(
    given: Source, always: Set[str], max_finite_val: float, folder: Path, apart: bool
) -> Converted:
    """Write the graph to `folder` with as few operators in float32, besides `always`, as ONNX Runtime accepts."""
    made: dict[frozenset[str], Converted] = {}

    def fails(kinds: frozenset[str]) -> str:
        made.clear()  # so that only what the file holds is there
        kept = set(always) | kinds_of(given.model, kinds)
        try:
            converted = convert_without_overflow(given, kept, max_finite_val)
            write_and_run(given, converted.model, max_finite_val, folder, apart)
        except (GraphError, ChildError) as error:
            return str(error)
        made[kinds] = converted
        return ""

    kinds, problem = kinds_to_keep(given.model, fails)
    problem = problem or ("" if kinds in made else fails(kinds))
    if problem:
        raise GraphError(
            f"the network cannot be converted to float16: {problem}. fix: name the operator of that node under "
            "fp16.block_operators in the model's params.yaml, or take fp16 from variants in its spec.yaml"
        )
    return made[kinds]


def convert_without_overflow(given: Source, kept: Set[str], max_finite_val: float) -> Converted:
    """Convert, and keep more nodes in float32 until none overflows in any run."""
    overflowing = set(given.observed.large)
    while True:
        converted = convert_graph(given.model, kept | overflowing, max_finite_val)
        found = find_overflows(given.model, converted, given.runs, given.observed, given.folder, overflowing)
        if not found:
            return Converted(converted, overflowing)
        overflowing |= found


def write_and_run(given: Source, converted: ModelProto, max_finite_val: float, folder: Path, apart: bool) -> None:
    """Write the file, check it, and run it on samples. Raises GraphError, and ChildError if that crashes a process."""
    model = ModelProto()
    model.CopyFrom(converted)
    load_converted_weights(model, given.folder, max_finite_val)
    path = save_model(model, folder)
    del model  # a second copy of all weights
    tried = spread_evenly(len(given.samples), TRIED)
    outputs = {value.name for value in converted.graph.output}
    runs = []
    for index in tried:
        not_finite = {name: item for name, item in given.observed.not_finite[index].items() if name in outputs}
        runs.append(Trial(index, given.samples.batch(index), not_finite))
    if apart:
        run_in_child(check_and_run, path, runs)
    else:
        check_and_run(path, runs)


def check_and_run(path: Path, runs: list[Trial]) -> None:
    """Check the file, and run it on samples.

    Raises GraphError if an output of the same shape has other NaN or infinity than in float32, or lacks it.
    """
    check_model_file(path)
    session = open_session(path)
    for run in runs:
        outputs = run_session(session, run.inputs)
        found = find_not_finite({name: array for name, array in outputs.items() if array.dtype.kind == "f"})
        for name, array in outputs.items():
            wanted = run.not_finite.get(name)
            if found.get(name) == wanted or (wanted is not None and wanted.shape != array.shape):
                continue
            if wanted is None:
                problem = f"gives NaN or infinity in {name}, only in float16"
            elif name not in found:
                problem = f"gives NaN or infinity in {name} in float32, and none in float16"
            else:
                problem = f"gives NaN or infinity in {name}, other than in float32"
            raise GraphError(f"calibration sample {run.index} {problem}")


def fp16_metrics(given: Source, converted: Converted, params: Fp16, size_mb: float) -> Fp16Metrics:
    """Count nodes, also of nested graphs, by the type of their first float output, Casts apart, and clamped weights."""
    types, constants = value_types(converted.model), constant_values(converted.model)
    every = [node for graph in graphs(converted.model.graph) for node in graph.node]
    nodes = [node for node in every if node.op_type != "Cast" and not constants & set(node.output)]
    counts = Counter(first_float(node, types) for node in nodes)
    return Fp16Metrics(
        size_mb=size_mb,
        fp16_nodes=counts[TensorProto.FLOAT16],
        float_nodes=counts[TensorProto.FLOAT],
        casts=sum(node.op_type == "Cast" for node in every),
        blocked_nodes=len(converted.overflowing),
        blocked=", ".join(node.name for node in given.model.graph.node if node.name in converted.overflowing),
        clamped_weights=count_beyond(given.model, given.folder, params.max_finite_val),
    )


def first_float(node: NodeProto, types: Mapping[str, int]) -> int | None:
    """Return the type of the node's first output that is float16 or float32."""
    found = (types.get(name) for name in node.output)
    return next((element for element in found if element in (TensorProto.FLOAT, TensorProto.FLOAT16)), None)
