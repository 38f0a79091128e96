"""Read everything that the report shows from the files that the stages have written."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from onnx_release.choice.choice import Candidate, read_validated
from onnx_release.choice.metrics import SummaryMetrics
from onnx_release.core.files import read_json, read_made
from onnx_release.core.hardware import installed
from onnx_release.core.params import Params, load_params
from onnx_release.core.paths import HARDWARE, ModelFiles
from onnx_release.core.spec import Spec, load_spec
from onnx_release.core.variants import REDUCED, made_variants
from onnx_release.data.metrics import PrepareMetrics
from onnx_release.export.metrics import SlimMetrics
from onnx_release.graph.graph import describe_model, model_size_mb
from onnx_release.performance.metrics import OptimizeMetrics, ProfileMetrics
from onnx_release.reduce.metrics import Fp16Metrics, QuantizeDynamicMetrics
from onnx_release.static_quantization.metrics import QuantizeStaticMetrics
from onnx_release.timing.metrics import BenchmarkMetrics
from onnx_release.validate.explain import NOT_EXPLAINED

# Rows in the table of layers that add error, and in that of nodes that take time.
LISTED = 15
# Packages that write and change graphs. Those that times depend on are in the hardware's own description.
MADE_WITH = ("onnx", "onnxscript", "onnxslim", "onnxconverter-common")


@dataclass(frozen=True)
class StageMetrics:
    """The metrics of a run's stages, except those of the candidates; None for a variant that was not made."""

    prepare: PrepareMetrics
    slim: SlimMetrics
    fp16: Fp16Metrics | None
    quantize_dynamic: QuantizeDynamicMetrics | None
    quantize_static: QuantizeStaticMetrics | None
    benchmark: BenchmarkMetrics
    optimize: OptimizeMetrics
    profile: ProfileMetrics
    summary: SummaryMetrics


@dataclass(frozen=True)
class Graphs:
    """The files of the variants: their sizes in MB by variant, and each operator with its count in every variant."""

    sizes_mb: Mapping[str, float]
    operators: Sequence[tuple[str, list[int]]]


@dataclass(frozen=True)
class Explained:
    """The layers that the error of the reduced variants comes from.

    `signals` is the SQNR in dB after each step by variant; `layers` are the steps of `variant` that add the most.
    """

    variant: str
    layers: Sequence[Mapping[str, Any]]
    signals: Mapping[str, list[float]]


@dataclass(frozen=True)
class Results:
    """Everything that the pages show.

    `candidates` are the variants that were made, and `not_made` has why others could not be, by name. `latencies`
    are the times of single calls in ms by contender, and `nodes` the slowest nodes of the profile. `explained` is None
    if no variant with reduced precision was made and explained, and `not_explained` has why one was not, by name.
    """

    model: str
    spec: Spec
    params: Params
    hardware: Mapping[str, Any]
    candidates: Sequence[Candidate]
    not_made: Mapping[str, str]
    metrics: StageMetrics
    graphs: Graphs
    explained: Explained | None
    not_explained: Mapping[str, str]
    nodes: Sequence[Mapping[str, Any]]
    latencies: Mapping[str, np.ndarray]

    @property
    def passed(self) -> bool:
        """Return whether every variant passed its validation."""
        return not self.failures

    @property
    def failures(self) -> dict[str, str]:
        """Return why variants did not pass or could not be made, by name."""
        failed = {one.name: one.validation.failure for one in self.candidates if not one.validation.passed}
        return failed | dict(self.not_made)

    @property
    def chosen(self) -> Candidate | None:
        """Return the variant to release; None if there is none."""
        return next((one for one in self.candidates if one.name == self.metrics.summary.variant), None)


def collect(files: ModelFiles) -> Results:
    """Read the results of all other stages. Raises DataError if one has not run."""
    model, spec = files.model, load_spec(files.model)
    benchmark, summary = BenchmarkMetrics.read(model), SummaryMetrics.read(model)
    validated = read_validated(model, made_variants(spec), benchmark)
    names = [one.name for one in validated.candidates]
    latencies = read_table(files.plots / "latency.csv")
    nodes = read_table(files.plots / "profile.csv", keep_default_na=False)
    steps = {name: read_steps(files, name) for name in names if name in REDUCED}
    return Results(
        model=model,
        spec=spec,
        params=load_params(files),
        hardware={**read_json(HARDWARE), "made_with": {name: installed(name) for name in MADE_WITH}},
        candidates=validated.candidates,
        not_made=validated.not_made,
        metrics=StageMetrics(
            prepare=PrepareMetrics.read(model),
            slim=SlimMetrics.read(model),
            fp16=Fp16Metrics.read_if_made(model),
            quantize_dynamic=QuantizeDynamicMetrics.read_if_made(model),
            quantize_static=QuantizeStaticMetrics.read_if_made(model),
            benchmark=benchmark,
            optimize=OptimizeMetrics.read(model),
            profile=ProfileMetrics.read(model),
            summary=summary,
        ),
        graphs=Graphs({name: model_size_mb(files.variant(name)) for name in names}, count_operators(files, names)),
        explained=choose_explained(steps, summary.variant),
        not_explained={name: table[NOT_EXPLAINED][0] for name, table in steps.items() if NOT_EXPLAINED in table},
        nodes=records(nodes.head(LISTED)),
        latencies={str(name): part["latency_ms"].to_numpy() for name, part in latencies.groupby("variant", sort=False)},
    )


def choose_explained(tables: Mapping[str, pd.DataFrame], chosen: str | None) -> Explained | None:
    """Return what `explain` found, by variant, in detail for the chosen one or else the last; None if it is nothing."""
    steps = {variant: table for variant, table in tables.items() if NOT_EXPLAINED not in table}
    if not steps:
        return None
    detailed = chosen if chosen in steps else list(steps)[-1]
    signals = {variant: table["sqnr_db"].tolist() for variant, table in steps.items()}
    return Explained(detailed, worst_layers(steps[detailed]), signals)


def read_steps(files: ModelFiles, variant: str) -> pd.DataFrame:
    """Read what validate/explain.py found for a variant, in the order of its graph."""
    path = files.plots / "explain" / f"{variant}.csv"
    return read_table(path, keep_default_na=False, na_values={"added": "", "sqnr_db": ""})


def worst_layers(steps: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the steps that add the most error; those that are not finite come first."""
    order = steps["added"].sort_values(ascending=False, na_position="first").index[:LISTED]
    return records(steps.loc[order])


def count_operators(files: ModelFiles, variants: Sequence[str]) -> list[tuple[str, list[int]]]:
    """Count each operator in the graph of every variant, the most frequent of the first graph first."""
    graphs = [describe_model(files.variant(variant))["operators"] for variant in variants]
    names = sorted({name for graph in graphs for name in graph}, key=lambda name: (-graphs[0].get(name, 0), name))
    return [(name, [graph.get(name, 0) for graph in graphs]) for name in names]


def read_table(path: Path, **options: Any) -> pd.DataFrame:
    """Read a CSV that a stage has written. Raises DataError like `read_made`."""
    return read_made(path, "a table", lambda text: pd.read_csv(io.StringIO(text), **options))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
