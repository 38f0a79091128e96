"""Save a model as ONNX Runtime optimises it for this CPU, so that loading it does not optimise it again."""

import json
import time
from pathlib import Path

import numpy as np
import onnxruntime

from onnx_release.core.errors import GraphError
from onnx_release.core.files import size_mb
from onnx_release.core.hardware import cpu_kind, describe_cpu
from onnx_release.core.params import Runtime
from onnx_release.core.spec import Spec
from onnx_release.graph.graph import copy_weights, external_tensors, load_model, save_model
from onnx_release.performance.metrics import LOADS, OptimizeMetrics
from onnx_release.runtime.onnx_model import CPU_KEY, OnnxModel
from onnx_release.runtime.providers import CPU
from onnx_release.runtime.session import create_session, save_optimized, session_options
from onnx_release.timing.speedup import speedup_interval


def optimize(model: Path, folder: Path, runtime: Runtime) -> Path:
    """Write `model` to `folder`/model.onnx as ONNX Runtime runs it on this CPU, marked with the CPU.

    The graph has operators that only this version of ONNX Runtime has, laid out for this CPU's vector registers;
    OnnxModel refuses it elsewhere. Raises GraphError if ONNX Runtime does not load `model` or the result.
    """
    raw = folder / "unmarked.onnx"
    save_optimized(model, raw, runtime)
    made = load_model(raw, weights=False)
    raw.unlink()
    if external_tensors(made):  # ONNX Runtime looks for unchanged weights beside the new file
        copy_weights(made, model.parent, folder)
    entry = made.metadata_props.add()
    entry.key, entry.value = CPU_KEY, json.dumps(cpu_kind(), sort_keys=True)
    path = save_model(made, folder)
    create_session(path, session_options(runtime), [CPU])
    return path


def compare_files(
    variant: str, model: Path, optimized: Path, spec: Spec, runtime: Runtime, batches: list[dict[str, np.ndarray]]
) -> OptimizeMetrics:
    """Check that the optimised file gives the same answers, and measure how much faster it loads.

    The two are loaded in turn, LOADS times each. The optimised one is loaded as in use: without graph optimisation, and
    with its CPU checked. Raises GraphError if an answer differs in a bit, on one thread.
    """
    ready = ready_made(runtime)
    alone = {"intra_threads": 1}
    before = OnnxModel(model, spec, runtime.model_copy(update=alone))
    after = OnnxModel(optimized, spec, ready.model_copy(update=alone))
    for batch in batches:
        expected, found = before.run(batch), after.run(batch)
        for name, array in expected.items():
            if not np.array_equal(array, found[name], equal_nan=True):
                raise GraphError(f"{optimized} gives another {name} than {model}: ONNX Runtime saves it wrongly")
    del before, after  # or three models would be in memory
    seconds = [(load_seconds(model, spec, runtime), load_seconds(optimized, spec, ready)) for _ in range(LOADS)]
    own, optimised = (list(column) for column in zip(*seconds, strict=True))
    speedup, low, high = speedup_interval(own, optimised, starts=1, seed=0)
    return OptimizeMetrics(
        variant=variant,
        load_ms_before=float(np.median(own)) * 1e3,
        load_ms=float(np.median(optimised)) * 1e3,
        speedup=speedup,
        speedup_low=low,
        speedup_high=high,
        nodes_before=len(load_model(model, weights=False).graph.node),
        nodes=len(load_model(optimized, weights=False).graph.node),
        size_mb=size_mb(optimized.parent),
        onnxruntime=onnxruntime.__version__,
    )


def ready_made(runtime: Runtime) -> Runtime:
    """Return the settings for an optimised file, which needs no optimisation when it is loaded."""
    return runtime.model_copy(update={"provider": "cpu", "graph_optimization": "disabled"})


def load_seconds(path: Path, spec: Spec, runtime: Runtime) -> float:
    """Return the seconds that loading takes."""
    describe_cpu.cache_clear()  # since a process that loads one model has to look it up
    start = time.perf_counter()
    OnnxModel(path, spec, runtime)
    return time.perf_counter() - start
