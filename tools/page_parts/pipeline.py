"""Make the picture of the pipeline: DVC's graph of dvc.yaml, with its stages grouped into boxes."""

import networkx as nx
from dvc.exceptions import DvcException
from dvc.repo import Repo

from onnx_release.core.errors import DataError
from onnx_release.core.paths import LOCK, PARAMS, PIPELINE
from onnx_release.core.yaml_files import load_yaml
from tools.page_parts import Read

# Every stage of dvc.yaml is in one box; the boxes are in the order of the pipeline.
BOXES = {
    "Fetch and prepare": ("hardware", "sources", "fetch", "prepare"),
    "PyTorch's own answers": ("reference",),
    "FP32": ("export", "slim"),
    "FP16": ("fp16",),
    "INT8, dynamic": ("quantize_dynamic",),
    "INT8, static": ("calibrate", "quantize_static"),
    "Compare with PyTorch": ("validate", "explain"),
    "Time against PyTorch": ("benchmark",),
    "Choose": ("choose", "optimize", "profile"),
    "Report": ("report",),
    "Release": ("package",),
}


def pipeline_picture(_: Read) -> str:
    """Return the picture in Mermaid. Raises DataError for a stage in no box, and if DVC cannot read dvc.yaml."""
    boxes = group(stage_graph())
    lines = [f'    {stages[0]}["{box}<br/>{", ".join(stages)}"]' for box, stages in BOXES.items()]
    for box, stages in BOXES.items():
        readers = [BOXES[reader][0] for reader in BOXES if boxes.has_edge(box, reader)]
        if readers:
            lines.append(f"    {stages[0]} --> {' & '.join(readers)}")
    return "\n".join(["```mermaid", "flowchart TD", *lines, "```"])


def group(stages: nx.DiGraph) -> nx.DiGraph:
    """Return the graph of boxes, without the arrows that a longer way already implies."""
    box_of = {stage: box for box, members in BOXES.items() for stage in members}
    wrong = sorted(box_of.keys() ^ set(stages))
    if wrong:
        raise DataError(
            f"{PIPELINE} and BOXES in tools/page_parts/pipeline.py differ in {', '.join(wrong)}: "
            "put each stage in one box"
        )
    edges = {(box_of[start], box_of[end]) for start, end in stages.edges}
    return nx.transitive_reduction(nx.DiGraph((start, end) for start, end in edges if start != end))


def stage_graph() -> nx.DiGraph:
    """Return the stages of dvc.yaml with an edge from each to those that read its outputs; a matrix is one stage."""
    try:
        with Repo() as repo:
            edges = [(before.addressing, after.addressing) for after, before in repo.index.graph.edges]
            names = [stage.addressing for stage in repo.index.stages]
    except DvcException as cause:
        for path in (PARAMS, PIPELINE, LOCK):
            load_yaml(path, DataError)  # which says more
        raise DataError(f"DVC cannot read {PIPELINE}: {cause}") from cause
    graph = nx.DiGraph([tuple(name.partition("@")[0] for name in edge) for edge in edges])
    graph.add_nodes_from(name.partition("@")[0] for name in names)
    return graph
