"""Write the comparison of all models: first a line for each, then the metrics of those whose results have moved."""

import re
from collections.abc import Sequence
from typing import Any

from onnx_release.core.plain_text import align_columns
from onnx_release.report.text import table
from onnx_release.review import comparison_pages
from onnx_release.review.compare import Comparison
from onnx_release.review.comparison_pages import escaped
from onnx_release.review.revisions import Revision
from onnx_release.review.side_by_side import ComparedModel

HEADER = ("model", "release", "verdict")


def as_text(models: Sequence[ComparedModel], base: Revision, head: Revision, everything: bool) -> str:
    """Write it for a terminal; with `everything`, every metric of every model that both sides have."""
    parts = [align_columns([HEADER, *map(line, models)]), f"base  {base.name}\nhead  {head.name}"]
    for name, comparison in shown(models, everything):
        parts.append(f"{name}: {comparison_pages.as_text(comparison, everything)}")
    return "\n\n".join(parts)


def as_markdown(models: Sequence[ComparedModel], base: Revision, head: Revision, everything: bool) -> str:
    """Write the part of a comment on a pull request that compares."""
    lines = [[escaped(name), escaped(release), bold(escaped(verdict))] for name, release, verdict in map(line, models)]
    parts = [table(HEADER, lines), f"Compared with {base.name}. Head is {head.name}."]
    for name, comparison in shown(models, everything):
        parts.append(f"### {name}\n\n{comparison_pages.as_markdown(comparison, everything)}")
    return "\n\n".join(parts)


def as_json(models: Sequence[ComparedModel], base: Revision, head: Revision) -> list[dict[str, Any]]:
    """Return every model with every row; one that only one side has has none."""
    return [
        {
            "model": one.name,
            "verdict": one.verdict,
            "base": base.name,
            "base_release": one.base.released if one.base else None,
            "head": head.name,
            "head_release": one.head.released if one.head else None,
            **comparison_pages.as_json(one.comparison or Comparison([], [])),
        }
        for one in models
    ]


def line(model: ComparedModel) -> tuple[str, str, str]:
    """Return the cells of a model's line."""
    return model.name, model.release, model.verdict


def shown(models: Sequence[ComparedModel], everything: bool) -> list[tuple[str, Comparison]]:
    """Return the models whose metrics are written: those that have moved, or all that both sides have."""
    return [(one.name, one.comparison) for one in models if one.comparison and (one.moved or everything)]


def bold(verdict: str) -> str:
    """Make what is bad in a verdict bold."""
    return re.sub(r"FAILED|\b\d+ worse", r"**\g<0>**", verdict)
