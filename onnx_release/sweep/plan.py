"""Plan the experiments of a sweep in an order in which none repeats the work of another.

DVC's run cache shares a stage's work among experiments that run one after the other; two at once would both do it. So a
preparing experiment runs the stages that several experiments share, and the others come after it. Two stages are
prepared together if the same experiments share them. DVC itself reads the graph of the pipeline. Models share no work,
so each has a plan of its own.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx

from onnx_release.core.addresses import model_of
from onnx_release.core.errors import SweepError
from onnx_release.core.params import SPEC, SPEC_PARTS
from onnx_release.core.paths import HARDWARE, PARAMS, ModelFiles
from onnx_release.sweep.grid import Grid, combinations, split_key, swept_keys


@dataclass(frozen=True)
class Experiment:
    """One `dvc exp run`, of one model.

    `params` are by dotted key, after FILE: if it is not in params.yaml. `targets` are stages of the model. `after` are
    the names of experiments that must end first, whose work it reuses. A `timed` experiment must run alone on its
    machine. One that only `prepares` is not in the grid and may be removed at the end.
    """

    name: str
    model: str
    params: dict[str, Any]
    targets: tuple[str, ...]
    after: tuple[str, ...]
    timed: bool
    prepares: bool = False


@dataclass(frozen=True)
class PlannedStage:
    """A stage of the pipeline, as the plan sees it.

    `before` are the stages that it depends on, directly or not. `keys` are the swept parameters that it or a stage
    before it depends on. `declared` are those of them that are params of a stage. The others decide the content of a
    file, and may change nothing: a later stage is then the same work, which DVC can reuse only once it is done. `timed`
    is true if it depends on artifacts/hardware.json, as all timings do, directly or not. `cached` is false for a stage
    that always runs.

    The stage `settings`, which merges the parameters of a model, `merges`: it reads all swept parameters, and depends
    on the hardware without timing anything. The stages after it read only the parameters that they declare.
    """

    keys: frozenset[str]
    declared: frozenset[str]
    before: frozenset[str]
    timed: bool
    cached: bool
    merges: bool


def make_plan(grid: Grid, base: str, sweep: str) -> list[Experiment]:
    """Return all experiments, those of one model after the other: first those that prepare, then those of the grid.

    `base` is the full hash of the commit that they start from, `sweep` the name of the grid file without .yaml. It must
    be called in the repository's root. Raises SweepError for keys that change nothing, and for a name that DVC refuses.
    """
    if not re.fullmatch(r"\w[\w-]*", sweep, re.ASCII):
        raise SweepError(f"{sweep} names the experiments: name the grid file with letters, digits, _ and - only")
    graph = read_graph()
    pipelines = {model: stages_of(model, graph, list(combinations(grid, model)[0])) for model in grid.models}
    useless = dict.fromkeys(line for model, stages in pipelines.items() for line in without_effect(grid, model, stages))
    if useless:
        raise SweepError("\n".join(["the grid has keys that change nothing:", *(f"  {line}" for line in useless)]))
    return [step for model, stages in pipelines.items() for step in plan_model(grid, model, stages, base, sweep)]


def plan_model(grid: Grid, model: str, stages: Mapping[str, PlannedStage], base: str, sweep: str) -> list[Experiment]:
    """Return the experiments with one model, in the grid's order after those that prepare."""
    rows = combinations(grid, model)
    planner = Planner(model, rows, stages, base, sweep)
    # Stages that more rows share come first: a stage that others depend on is shared by the same rows, or by more.
    groups = shared_work(rows, stages, at_least=1 if grid.timing else 2)
    for sharing in sorted(groups, key=lambda rows: (-len(rows), min(rows))):
        planner.add_preparation(sharing, groups[sharing])
    wanted = [name for name, stage in stages.items() if grid.timing or not stage.timed]
    for row in range(len(rows)):
        planner.add(row, wanted, timed=grid.timing)
    return planner.plan


class Planner:
    """The `plan` so far, and which of its experiments does which work."""

    def __init__(
        self, model: str, rows: list[dict[str, Any]], stages: Mapping[str, PlannedStage], base: str, sweep: str
    ) -> None:
        self.model, self.rows, self.stages, self.base, self.sweep = model, rows, stages, base, sweep
        self.plan: list[Experiment] = []
        self.prepared: dict[tuple[int, str], str] = {}  # the experiment that runs a stage, by row and stage
        self.latest: dict[tuple[str, str], str] = {}  # the last experiment that may run a stage on the same input

    def add_preparation(self, sharing: frozenset[int], wanted: set[str]) -> None:
        """Add the experiment that runs the stages `wanted` for all rows that share them."""
        name = self.add(min(sharing), wanted, timed=False, prepares=True)
        self.prepared |= {(other, stage): name for other in sharing for stage in wanted}

    def add(self, row: int, wanted: Iterable[str], timed: bool, prepares: bool = False) -> str:
        """Add an experiment that runs the stages `wanted` of a row, and return its name."""
        params, targets = self.rows[row], final_stages(wanted, self.stages)
        digest = hashlib.sha256(json.dumps([self.base, params, targets], sort_keys=True).encode()).hexdigest()
        name = "-".join([self.sweep, *(["prepare"] if prepares else []), digest[:10]])
        needed = {part for stage in wanted for part in (stage, *self.stages[stage].before)}
        after = [earlier for (at, stage), earlier in self.prepared.items() if at == row and stage in needed]
        for stage in [] if timed else sorted(needed):  # a timed experiment runs alone on its machine
            if (row, stage) not in self.prepared and self.stages[stage].cached:
                work = stage, values_of(params, self.stages[stage].declared)
                after += [self.latest[work]] if work in self.latest else []
                self.latest[work] = name
        self.plan.append(Experiment(name, self.model, params, targets, tuple(dict.fromkeys(after)), timed, prepares))
        return name


def without_effect(grid: Grid, model: str, stages: Mapping[str, PlannedStage]) -> Iterator[str]:
    """Yield a line for each key that no stage reads, and for each varied key that only stages read that do not run.

    A key with one value in the sweep may be only for timed stages: it applies when the winner is applied and timed.
    """
    swept = swept_keys(grid)
    for key in combinations(grid, model)[0]:
        readers = {name: stage for name, stage in stages.items() if key in stage.keys and not stage.merges}
        if not readers:
            yield f"no stage reads {key}: take it out"
        elif key in swept and not grid.timing and all(stage.timed for stage in readers.values()):
            first = sorted(name for name, stage in readers.items() if readers.keys().isdisjoint(stage.before))
            yield f"only {', '.join(first)} reads {key}, and timing: false runs no timed stage: take it out"


def values_of(params: Mapping[str, Any], keys: Iterable[str]) -> str:
    return json.dumps({key: params[key] for key in sorted(keys)})


def shared_work(
    rows: list[dict[str, Any]], stages: Mapping[str, PlannedStage], at_least: int
) -> dict[frozenset[int], set[str]]:
    """Return the stages to prepare, by the rows that share them, if at least `at_least` rows do.

    Rows share a stage if the parameters that it depends on have the same values. Timed stages, and stages that the run
    cache cannot restore, are left to the experiments of the grid. So is the merging of parameters: no two rows have the
    same, and every experiment does it for its own.
    """
    units: dict[tuple[str, str], set[int]] = defaultdict(set)
    for row, params in enumerate(rows):
        for name, stage in stages.items():
            if stage.cached and not stage.timed and not stage.merges:
                units[name, values_of(params, stage.keys)].add(row)
    groups: dict[frozenset[int], set[str]] = defaultdict(set)
    for (name, _), sharing in units.items():
        if len(sharing) >= at_least:
            groups[frozenset(sharing)].add(name)
    return groups


def final_stages(names: Iterable[str], pipeline: Mapping[str, PlannedStage]) -> tuple[str, ...]:
    """Return the stages that none of the others depends on; running them runs the others as well."""
    names = list(names)
    before = {earlier for name in names for earlier in pipeline[name].before}
    return tuple(sorted(name for name in names if name not in before))


def read_graph() -> nx.DiGraph:
    """Read all stages with DVC; an edge points at what a stage depends on."""
    from dvc.repo import Repo

    with Repo() as repo:
        return repo.index.graph


def stages_of(model: str, graph: nx.DiGraph, keys: list[str]) -> dict[str, PlannedStage]:
    """Return the stages of a model and those that they depend on, by the names that DVC takes as targets."""
    files = ModelFiles(model)
    before = {stage: nx.descendants(graph, stage) for stage in graph}
    of_model = {stage for stage in graph if model_of(stage.addressing) == model}
    merging = {stage for stage in graph if any(Path(out.def_path) == files.params for out in stage.outs)}
    reads_hardware = {stage for stage in graph if any(Path(dep.def_path) == HARDWARE for dep in stage.deps)} - merging
    declared = {stage: {key for key in keys if stage in merging or declares(stage, key, files)} for stage in graph}
    decided = {stage: {key for key in keys if decides(key, stage, files)} for stage in graph}
    stages = {}
    for stage in of_model.union(*(before[stage] for stage in of_model)):
        parts = {stage, *(before[stage] - merging)}
        stages[stage.addressing] = PlannedStage(
            keys=frozenset(key for part in parts for key in declared[part] | decided[part]),
            declared=frozenset(key for part in parts for key in declared[part]),
            before=frozenset(earlier.addressing for earlier in before[stage]),
            timed=not reads_hardware.isdisjoint(parts),
            cached=not stage.always_changed,
            merges=stage in merging,
        )
    return stages


def declares(stage: Any, key: str, files: ModelFiles) -> bool:
    """Return whether a parameter, its section, or a part of it is among the stage's params in the merged file."""
    declared = [name for dep in stage.params if Path(dep.def_path) == files.params for name in dep.params]
    return any(overlap(name, merged_name(key)) for name in declared)


def decides(key: str, stage: Any, files: ModelFiles) -> bool:
    """Return whether the stage depends on a file that `settings` writes by this parameter, besides the merged ones."""
    written = {files.target: "quantize_static.target", files.provider: "runtime"}
    read = [written[path] for dep in stage.deps if (path := Path(dep.def_path)) in written]
    return any(overlap(name, merged_name(key)) for name in read)


def merged_name(key: str) -> str:
    """Return the name of a key in artifacts/NAME/params.json, as `write_params` has it there."""
    file, names = split_key(key)
    if file == PARAMS:
        return ".".join(names)
    return ".".join([SPEC, *([] if names[0] in SPEC_PARTS else ["network"]), *names])


def overlap(first: str, second: str) -> bool:
    """Return whether two names of parameters are the same, or one is a section with the other."""
    one, other = first.split("."), second.split(".")
    return one[: len(other)] == other[: len(one)]


def set_arguments(experiment: Experiment) -> list[str]:
    """Return the arguments of `dvc exp run` that set its parameters, with `-S` before each; ++ adds missing keys.

    What is in params.yaml for all models is set in the model's own file: there it is no change to any other model.
    """
    arguments = []
    for key, value in experiment.params.items():
        file, names = split_key(key)
        path = ModelFiles(experiment.model).overrides if file == PARAMS else file
        arguments += ["-S", f"{path.as_posix()}:++{'.'.join(names)}={json.dumps(value, ensure_ascii=False)}"]
    return arguments
