"""Make the picture of the pipeline: DVC's graph of dvc.yaml, with its stages grouped into boxes."""

import re
import subprocess
import sys

import networkx as nx

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
    drawn = subprocess.run(
        [sys.executable, "-m", "dvc", "dag", "--mermaid"], capture_output=True, text=True, check=False
    )
    if drawn.returncode:
        for path in (PARAMS, PIPELINE, LOCK):
            load_yaml(path, DataError)  # which says more
        raise DataError(f"`dvc dag --mermaid` failed: {drawn.stderr.strip()}")
    stages = {node: name.split("@")[0] for node, name in re.findall(r'(node\d+)\["(.*)"\]', drawn.stdout)}
    graph = nx.DiGraph()
    graph.add_nodes_from(stages.values())
    graph.add_edges_from(
        (stages[start], stages[end]) for start, end in re.findall(r"(node\d+)-->(node\d+)", drawn.stdout)
    )
    return graph
