"""Find the operators to keep in float32 when ONNX Runtime does not take a graph in float16.

`fails` says what is wrong with the graph in which some kinds of operators are kept, or nothing.
"""

import re
from collections.abc import Callable

from onnx import ModelProto

from onnx_release.graph.graph import graphs

# Without these in float16 the file would be no smaller and no faster.
COMPUTE = ("MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM", "GRU", "RNN", "Einsum", "Gather")
MOST_NAMED = 8
MOST_HALVES = 12
Fails = Callable[[frozenset[str]], str]


def kinds_to_keep(model: ModelProto, fails: Fails) -> tuple[frozenset[str], str]:
    """Return operators that must stay in float32 for ONNX Runtime to run the graph, and what is still wrong, or "".

    First it keeps the operators that the reason names, then it halves those that it might keep.
    """
    names = {node.name: node.op_type for graph in graphs(model.graph) for node in graph.node}
    kinds = sorted(set(names.values()))
    kept: frozenset[str] = frozenset()
    problem = fails(kept)
    first = problem
    for _ in range(MOST_NAMED):
        named = named_kinds(problem, names) - kept
        if not problem or not named:
            break
        kept |= named
        problem = fails(kept)
    if not problem:
        return kept, ""
    searched = [kind for kind in kinds if kind not in COMPUTE]
    if fails(frozenset(searched)):
        searched = kinds
        if fails(frozenset(kinds)):
            return frozenset(), first
    return fewer(frozenset(searched), fails), ""


def fewer(kept: frozenset[str], fails: Fails) -> frozenset[str]:
    """Return fewer operators of `kept` with which it does not fail either, by halves, in MOST_HALVES tries."""
    tries = 0
    waiting = [sorted(kept)]
    while waiting and tries < MOST_HALVES:
        group = waiting.pop(0)
        tries += 1
        if not fails(kept - set(group)):
            kept -= set(group)
        elif len(group) > 1:
            middle = len(group) // 2
            waiting += [group[:middle], group[middle:]]
    return kept


def named_kinds(problem: str, names: dict[str, str]) -> frozenset[str]:
    """Return the operators of the nodes that a message of onnx or ONNX Runtime names."""
    words = set(re.findall(r"[^\s'\"(),:]+", problem))
    by_name = {names[word] for word in words if word in names}
    casts = {kind for name, kind in names.items() if any(word.startswith(f"{name}_") for word in words)}
    return frozenset(by_name or casts or words & set(names.values()))
