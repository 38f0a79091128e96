"""Plan the experiments of a sweep in an order in which none repeats the work of another.

DVC's run cache shares a stage's work among experiments that run one after the other; two at once would both do it. So a
preparing experiment runs the stages that several experiments share, and the others come after it. Two stages are
prepared together if the same experiments share them. DVC itself reads the graph of dvc.yaml.
"""

import hashlib
import json
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
from ruamel.yaml import YAML

from onnx_release.core.errors import SweepError
from onnx_release.core.paths import HARDWARE, PARAMS, PIPELINE
from onnx_release.core.yaml_files import load_yaml
from onnx_release.sweep.grid import Grid, combinations, set_value, split_key, swept_keys

# The names between ${ and } in dvc.yaml. The items of foreach and matrix match as well, and do no harm.
INTERPOLATED = re.compile(r"\$\{\s*([\w.]+)\s*\}")


@dataclass(frozen=True)
class Experiment:
    """One `dvc exp run`.

    `params` are by dotted key, after FILE: if it is not in params.yaml. `targets` are stages; none means the whole
    pipeline. `after` are the names of experiments that must end first, whose work it reuses. A `timed` experiment must
    run alone on its machine. One that only `prepares` is not in the grid and may be removed at the end.
    """

    name: str
    params: dict[str, Any]
    targets: tuple[str, ...]
    after: tuple[str, ...]
    timed: bool
    prepares: bool = False


@dataclass(frozen=True)
class PlannedStage:
    """A stage of the pipeline, as the plan sees it.

    `before` are the stages that it depends on, directly or not. `keys` are the swept parameters that it or a stage
    before it depends on. `declared` are those of them that are params of a stage. The others are in a file that is a
    dependency as a whole, and may change nothing: a later stage is then the same work, which DVC can reuse only once it
    is done. `timed` is true if it depends on artifacts/hardware.json, as all timings do, directly or not. `cached` is
    false for a stage that always runs.
    """

    keys: frozenset[str]
    declared: frozenset[str]
    before: frozenset[str]
    timed: bool
    cached: bool


def make_plan(grid: Grid, base: str, sweep: str) -> list[Experiment]:
    """Return all experiments: first those that prepare, then those of the grid in its order.

    `base` is the full hash of the commit that they start from, `sweep` the name of the grid file without .yaml. It must
    be called in the repository's root. Raises SweepError for keys that change nothing, and for a name that DVC refuses.
    """
    if not re.fullmatch(r"\w[\w-]*", sweep, re.ASCII):
        raise SweepError(f"{sweep} names the experiments: name the grid file with letters, digits, _ and - only")
    rows = combinations(grid)
    stages = stages_of_rows(rows, list(rows[0]))
    if useless := list(without_effect(grid, stages)):
        raise SweepError("\n".join(["the grid has keys that change nothing:", *(f"  {line}" for line in useless)]))
    planner = Planner(rows, stages, base, sweep)
    # Stages that more rows share come first: a stage that others depend on is shared by the same rows, or by more.
    groups = shared_work(rows, stages, at_least=1 if grid.timing else 2)
    for sharing in sorted(groups, key=lambda rows: (-len(rows), min(rows))):
        planner.add_preparation(sharing, groups[sharing])
    for row, pipeline in enumerate(stages):
        wanted = [name for name, stage in pipeline.items() if grid.timing or not stage.timed]
        planner.add(row, wanted, () if grid.timing else final_stages(wanted, pipeline), timed=grid.timing)
    return planner.plan


class Planner:
    """The `plan` so far, and which of its experiments does which work."""

    def __init__(
        self, rows: list[dict[str, Any]], stages: list[dict[str, PlannedStage]], base: str, sweep: str
    ) -> None:
        self.rows, self.stages, self.base, self.sweep = rows, stages, base, sweep
        self.plan: list[Experiment] = []
        self.prepared: dict[tuple[int, str], str] = {}  # the experiment that runs a stage, by row and stage
        self.latest: dict[tuple[str, str], str] = {}  # the last experiment that may run a stage on the same input

    def add_preparation(self, sharing: frozenset[int], wanted: set[str]) -> None:
        """Add the experiment that runs the stages `wanted` for all rows that share them."""
        row = min(sharing)
        name = self.add(row, wanted, final_stages(wanted, self.stages[row]), timed=False, prepares=True)
        self.prepared |= {(other, stage): name for other in sharing for stage in wanted}

    def add(
        self, row: int, wanted: Iterable[str], targets: tuple[str, ...], timed: bool, prepares: bool = False
    ) -> str:
        """Add an experiment that runs the stages `wanted` of a row, and return its name."""
        pipeline, params = self.stages[row], self.rows[row]
        digest = hashlib.sha256(json.dumps([self.base, params, targets], sort_keys=True).encode()).hexdigest()
        name = "-".join([self.sweep, *(["prepare"] if prepares else []), digest[:10]])
        needed = {part for stage in wanted for part in (stage, *pipeline[stage].before)}
        after = [earlier for (at, stage), earlier in self.prepared.items() if at == row and stage in needed]
        for stage in [] if timed else sorted(needed):  # a timed experiment runs alone on its machine
            if (row, stage) not in self.prepared and pipeline[stage].cached:
                work = stage, values_of(params, pipeline[stage].declared)
                after += [self.latest[work]] if work in self.latest else []
                self.latest[work] = name
        self.plan.append(Experiment(name, params, targets, tuple(dict.fromkeys(after)), timed, prepares))
        return name


def without_effect(grid: Grid, stages: list[dict[str, PlannedStage]]) -> Iterator[str]:
    """Yield a line for each key that no stage reads, and for each varied key that only stages read that do not run.

    A key with one value in the sweep may be only for timed stages: it applies when the winner is applied and timed.
    """
    swept = swept_keys(grid)
    for key in combinations(grid)[0]:
        readers = {name: stage for row in stages for name, stage in row.items() if key in stage.keys}
        if not readers:
            yield f"no stage reads {key}: take it out"
        elif key in swept and not grid.timing and all(stage.timed for stage in readers.values()):
            first = sorted(name for name, stage in readers.items() if readers.keys().isdisjoint(stage.before))
            yield f"only {', '.join(first)} reads {key}, and timing: false runs no timed stage: take it out"


def values_of(params: Mapping[str, Any], keys: Iterable[str]) -> str:
    return json.dumps({key: params[key] for key in sorted(keys)})


def shared_work(
    rows: list[dict[str, Any]], stages: list[dict[str, PlannedStage]], at_least: int
) -> dict[frozenset[int], set[str]]:
    """Return the stages to prepare, by the rows that share them, if at least `at_least` rows do.

    Rows share a stage if the parameters that it depends on have the same values. Timed stages, and stages that the run
    cache cannot restore, are left to the experiments of the grid.
    """
    units: dict[tuple[str, str], set[int]] = defaultdict(set)
    for row, (params, pipeline) in enumerate(zip(rows, stages, strict=True)):
        for name, stage in pipeline.items():
            if stage.cached and not stage.timed:
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


def stages_of_rows(rows: list[dict[str, Any]], keys: list[str]) -> list[dict[str, PlannedStage]]:
    """Return the pipeline of every row by the stages' names. Rows differ if dvc.yaml has ${NAME} of a swept NAME."""
    written = {name.split(".")[0] for name in INTERPOLATED.findall(PIPELINE.read_text(encoding="utf-8"))}
    pipelines: dict[str, dict[str, PlannedStage]] = {}
    result = []
    for params in rows:
        in_pipeline = {key: value for key, value in params.items() if key.split(".")[0] in written}
        spelled = json.dumps(in_pipeline, sort_keys=True)
        if spelled not in pipelines:
            pipelines[spelled] = read_pipeline(in_pipeline, keys)
        result.append(pipelines[spelled])
    return result


def read_pipeline(params: Mapping[str, Any], keys: list[str]) -> dict[str, PlannedStage]:
    """Read dvc.yaml with DVC for these parameters."""
    from dvc.repo import Repo

    yaml = YAML(typ="safe", pure=True)
    content = load_yaml(PARAMS, SweepError)
    for key, value in params.items():
        set_value(content, split_key(key)[1], value)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(PIPELINE, folder)
        with (Path(folder) / PARAMS).open("w", encoding="utf-8") as file:
            yaml.dump(content, file)
        with Repo(folder, uninitialized=True) as repo:
            graph = repo.index.graph
    before = {stage: nx.descendants(graph, stage) for stage in graph}  # an edge points at what the stage depends on
    reads_hardware = {stage for stage in graph if any(dep.def_path == HARDWARE.as_posix() for dep in stage.deps)}
    in_file = {stage: {key for key in keys if any(is_in_file(dep, key) for dep in stage.deps)} for stage in graph}
    declared = {stage: {key for key in keys if key in params or declares(stage, key)} for stage in graph}
    return {
        stage.name: PlannedStage(
            keys=frozenset(key for part in (stage, *before[stage]) for key in in_file[part] | declared[part]),
            declared=frozenset(key for part in (stage, *before[stage]) for key in declared[part]),
            before=frozenset(earlier.name for earlier in before[stage]),
            timed=not reads_hardware.isdisjoint((stage, *before[stage])),
            cached=not stage.always_changed,
        )
        for stage in graph
    }


def is_in_file(dep: Any, key: str) -> bool:
    """Return whether the dependency is the whole file of a parameter, or a folder above it."""
    file, _ = split_key(key)
    return not hasattr(dep, "params") and Path(dep.def_path) in (file, *file.parents)


def declares(stage: Any, key: str) -> bool:
    """Return whether a parameter, its section, or a part of it is among the stage's params."""
    file, names = split_key(key)
    declared = [name.split(".") for dep in stage.params if Path(dep.def_path) == file for name in dep.params]
    return any(names[: len(name)] == name[: len(names)] for name in declared)


def set_arguments(params: Mapping[str, Any]) -> list[str]:
    """Return the arguments of `dvc exp run` that set these parameters, with `-S` before each; ++ adds missing keys."""
    arguments = []
    for key, value in params.items():
        file, colon, name = key.rpartition(":")
        arguments += ["-S", f"{file}{colon}++{name}={json.dumps(value, ensure_ascii=False)}"]
    return arguments
