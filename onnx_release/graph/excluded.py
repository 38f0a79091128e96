"""Find the nodes that `exclude` in a model's spec names: by their own name, their operator, or their PyTorch module."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from onnx import ModelProto

from onnx_release.core.errors import SpecError
from onnx_release.core.files import read_json


def excluded_nodes(names: Sequence[str], model: ModelProto, sources: Path) -> frozenset[str]:
    """Return the names of the nodes of `model` that `names` say; `sources` is the export's sources.json.

    A module stands for all nodes in it and in the modules within it. Raises SpecError for a name that is nothing in the
    graph, with the names that are like it.
    """
    if not names:
        return frozenset()
    modules = {node: str(entry.get("module", "")) for node, entry in read_json(sources).items()}
    nodes = {node.name: (node.op_type, modules.get(node.name, "")) for node in model.graph.node}
    found: set[str] = set()
    for name in names:
        chosen = {
            node
            for node, (operator, module) in nodes.items()
            if name in (node, operator, module) or module.startswith(f"{name}.")
        }
        if not chosen:
            raise SpecError(describe_unknown(name, nodes))
        found |= chosen
    return frozenset(found)


def describe_unknown(name: str, nodes: dict[str, tuple[str, str]]) -> str:
    """Say that a name is nothing in the graph, and which names are like it."""
    known = {node for node, _ in nodes.items()}
    for operator, module in nodes.values():
        parts = module.split(".")
        known |= {operator, *(".".join(parts[: count + 1]) for count in range(len(parts)))}
    close = difflib.get_close_matches(name, sorted(known - {""}), n=3, cutoff=0.5)
    hint = f"names like it: {', '.join(close)}" if close else "see artifacts/NAME/export/sources.json"
    return (
        f"exclude: {name} is no node, operator or PyTorch module of the slimmed graph, which may have fused it into "
        f"another: {hint}"
    )
