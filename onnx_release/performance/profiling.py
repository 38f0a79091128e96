"""Profile a model on real samples with ONNX Runtime, by operator and by node with its PyTorch module.

The profiler adds microseconds to each node and rounds every time down to whole ones, so a profile tells how the time is
divided and the benchmark tells how long it is. The time of a node that is fused into another counts there. On a GPU, a
node's time is that of launching its work, and the wait for the work is outside of all nodes.
"""

import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from onnx_release.core.errors import GraphError
from onnx_release.core.files import replacing
from onnx_release.core.params import Runtime
from onnx_release.core.spec import Spec
from onnx_release.graph.graph import producers
from onnx_release.graph.source_lines import file_and_line
from onnx_release.performance.metrics import OperatorMetrics, ProfileMetrics
from onnx_release.runtime.onnx_model import OnnxModel

# Calls that do not count: the first ones allocate memory and wake threads.
WARM_UP = 10
KERNEL = "_kernel_time"
# ONNX Runtime computes these activations within the convolution before them, into which it folds a batch norm.
ACTIVATIONS = ("Clip", "Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid")
CONVOLUTIONS = ("Conv", "BatchNormalization")
# The names of ONNX Runtime's own casts of a float16 value begin with it, and so do those of nodes that replace them.
INSERTED_CAST = "InsertedPrecisionFreeCast_"

Event = Mapping[str, Any]


@dataclass(frozen=True)
class NodeTime:
    """A node as ONNX Runtime runs it, with its runs and its own time in ms. Both are means over the calls of the model.

    Nodes within an If or a Loop are nodes of their own, and their time is no part of that of the If or the Loop.
    """

    name: str
    operator: str
    runs: float
    ms: float


@dataclass(frozen=True)
class Timing:
    """Means over `calls` calls of the model, in ms; means, because they add up. The slowest node comes first.

    `model_ms` is a whole call, and `outside_ms` the part of it in which no node was running. The times of the nodes sum
    up to the rest; in the parallel execution mode they overlap and sum up to more.
    """

    calls: int
    model_ms: float
    outside_ms: float
    nodes: tuple[NodeTime, ...]

    def share(self, ms: float) -> float:
        """Return the share of the time of all nodes."""
        total = sum(node.ms for node in self.nodes)
        return ms / total if total else 0.0


def profile_model(
    path: Path, spec: Spec, runtime: Runtime, batches: Sequence[Mapping[str, np.ndarray]], calls: int, trace: Path
) -> Timing:
    """Profile `calls` calls over the batches in turn, after WARM_UP others, and write ONNX Runtime's trace to `trace`.

    The trace includes the warm-up, and opens in chrome://tracing and Perfetto. Raises what OnnxModel raises, and
    GraphError if the trace lacks a call; then nothing is written.
    """
    with tempfile.TemporaryDirectory() as folder:
        model = OnnxModel(path, spec, runtime, Path(folder) / "trace")
        for call in range(WARM_UP + calls):
            model.run(batches[call % len(batches)])
        written = Path(model.session.end_profiling())
        timing = summarize(json.loads(written.read_text(encoding="utf-8")), WARM_UP, calls)
        with replacing(trace) as partial:
            shutil.move(written, partial)
    return timing


def summarize(events: Sequence[Event], warm_up: int, calls: int) -> Timing:
    """Return the means of `calls` calls after `warm_up` others. Raises GraphError if the trace lacks a call."""
    runs = sorted((event for event in events if event["name"] == "model_run"), key=start)
    if len(runs) != warm_up + calls:
        raise GraphError(
            f"the profile has {len(runs)} of {warm_up + calls} calls, since ONNX Runtime stops at a million events: "
            "lower profile.calls in params.yaml or in the model's own"
        )
    counted = runs[warm_up:]
    nodes = [event for event in events if event["name"].endswith(KERNEL) and start(event) >= start(counted[0])]
    microseconds: dict[tuple[str, str], list[int]] = defaultdict(list)
    for event, own in zip(nodes, own_times(nodes), strict=True):
        microseconds[event["name"].removesuffix(KERNEL), event["args"]["op_name"]].append(own)
    times = [
        NodeTime(name, operator, len(own) / calls, sum(own) / calls / 1e3)
        for (name, operator), own in microseconds.items()
    ]
    whole = sum(event["dur"] for event in counted)
    return Timing(
        calls=calls,
        model_ms=whole / calls / 1e3,
        outside_ms=(whole - covered(nodes)) / calls / 1e3,
        nodes=tuple(sorted(times, key=lambda node: (-node.ms, node.name))),
    )


def own_times(events: Sequence[Event]) -> list[int]:
    """Return the microseconds of each event without those of the events on its thread that started while it ran."""
    own = [int(event["dur"]) for event in events]
    running: dict[int, list[int]] = defaultdict(list)
    # If two start in the same microsecond, the outer one comes later in the trace, which is sorted by the end.
    for index in sorted(range(len(events)), key=lambda i: (start(events[i]), -i)):
        event = events[index]
        outer = running[event["tid"]]
        while outer and end(events[outer[-1]]) <= start(event):
            outer.pop()
        if outer:
            own[outer[-1]] -= event["dur"]
        outer.append(index)
    return own


def covered(events: Sequence[Event]) -> int:
    """Return the microseconds in which at least one of the events ran, on any thread."""
    total = reached = 0
    for event in sorted(events, key=start):
        total += max(end(event) - max(start(event), reached), 0)
        reached = max(reached, end(event))
    return total


def start(event: Event) -> int:
    return int(event["ts"])


def end(event: Event) -> int:
    return int(event["ts"] + event["dur"])


def known_sources(exported: ModelProto, sources: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of sources.json by the name of the node, and by the names of the node's outputs.

    ONNX Runtime and the quantizers name a node after a value if there is no node to name it after. The output of an
    activation counts as that of the convolution before it, into which ONNX Runtime fuses it.
    """
    makers = producers(exported)
    by_value = {}
    for value, node in makers.items():
        before = makers.get(node.input[0]) if node.op_type in ACTIVATIONS else None
        maker = before if before is not None and before.op_type in CONVOLUTIONS else node
        if maker.name in sources:
            by_value[value] = sources[maker.name]
    return by_value | dict(sources)


def find_source(name: str, known: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the entry of `known_sources` with the longest name that `name`, a node of the profile, begins with.

    The rest of `name` must begin with _ or /, and no number may follow: n4_2 has nothing to do with n4. The entry is
    empty if there is none, as for a change of layout that ONNX Runtime has inserted.
    """
    name = name.removeprefix(INSERTED_CAST)
    for length in range(len(name), 0, -1):
        rest = name[length:]
        if name[:length] in known and (not rest or (rest[0] in "_/" and not rest[1:2].isdigit())):
            return known[name[:length]]
    return {}


def node_rows(timing: Timing, known: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of plots/profile.csv, the slowest node first; `module` and `source` empty if unknown."""
    rows = []
    for node in timing.nodes:
        entry = find_source(node.name, known)
        rows.append(
            {
                "node": node.name,
                "operator": node.operator,
                "module": entry.get("module", ""),
                "source": file_and_line(entry),
                "runs": node.runs,
                "ms": node.ms,
                "share": timing.share(node.ms),
            }
        )
    return rows


def profile_metrics(timing: Timing, variant: str) -> ProfileMetrics:
    """Return the metrics of a whole call and of every operator."""
    by_operator: dict[str, list[float]] = defaultdict(list)
    for node in timing.nodes:
        by_operator[node.operator].append(node.ms)
    return ProfileMetrics(
        variant=variant,
        calls=timing.calls,
        model_ms=timing.model_ms,
        outside_ms=timing.outside_ms,
        operators={
            operator: OperatorMetrics(nodes=len(times), ms=sum(times), share=timing.share(sum(times)))
            for operator, times in by_operator.items()
        },
    )
