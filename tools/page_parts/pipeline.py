"""Make the picture of the pipeline: DVC's graph of all stages, grouped into boxes."""

import networkx as nx
from dvc.exceptions import DvcException
from dvc.repo import Repo

from onnx_release.core.addresses import lock_files
from onnx_release.core.errors import DataError
from onnx_release.core.paths import MACHINE_PIPELINE, MODEL_LIST, PARAMS, PIPELINE, PIPELINES
from onnx_release.core.yaml_files import load_yaml
from tools.page_parts import Read

SIDE_BY_SIDE = "benchmarks/side_by_side.json"
# Every stage is in one box; the boxes are in the order of the pipeline.
BOXES = {
    "Fetch and prepare": ("hardware", "sources", "settings", "fetch", "prepare"),
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


def cost_of_models(read: Read) -> str:
    """Return the table of the CPU seconds that DVC takes with one model and with several."""
    measured = read(SIDE_BY_SIDE)
    counts = measured["cpu_seconds"]
    rows = {
        "all stages of one model run": "full_run",
        "nothing to do, all models: `dvc repro`": "all_models",
        "nothing to do, one model: `dvc repro package@NAME`": "one_model",
    }
    lines = [f"| CPU seconds of {measured['model']} | " + " | ".join(f"{count} listed" for count in counts) + " |"]
    lines += ["| --- |" + " --- |" * len(counts)]
    for text, key in rows.items():
        lines.append(f"| {text} | " + " | ".join(f"{counts[count][key]:.1f}" for count in counts) + " |")
    return "\n".join(lines)


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
    """Return all stages with an edge from each to those that read its outputs; a matrix is one stage."""
    try:
        with Repo() as repo:
            edges = [(before.name, after.name) for after, before in repo.index.graph.edges]
            names = [stage.name for stage in repo.index.stages]
    except DvcException as cause:
        for path in (MODEL_LIST, PARAMS, PIPELINE, MACHINE_PIPELINE, *PIPELINES.glob(f"*/{PIPELINE}"), *lock_files()):
            if path.is_file():
                load_yaml(path, DataError)  # which says more
        raise DataError(f"DVC cannot read {PIPELINE}: {cause}") from cause
    graph = nx.DiGraph([tuple(name.partition("@")[0] for name in edge) for edge in edges])
    graph.add_nodes_from(name.partition("@")[0] for name in names)
    return graph
