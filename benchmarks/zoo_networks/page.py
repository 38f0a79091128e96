"""Write docs/zoo.md: how many networks of each family get which variants, and why the others do not."""

from collections.abc import Callable
from pathlib import Path

from benchmarks.zoo_networks.results import FLOAT, REDUCED, Result

PAGE = Path("docs/zoo.md")
INTRODUCTION = """# The zoo

`python -m benchmarks.zoo` builds these architectures with random weights, takes each from fetch to validate, and writes
this page. Their configurations are small, so that one takes seconds. It needs the packages of `requirements-zoo.txt`,
in an environment of their own. Where it was interrupted, it goes on: each network that is through has a line in
`benchmarks/zoo.jsonl`. The workflow `zoo.yml` runs an eighth of them every week.

**Either** counts the networks that `torch.onnx.export` alone converts rightly, with `dynamo=True` and names for the
dynamic axes, or with TorchScript: the outputs are within a thousandth of their largest value of PyTorch's, at every
corner of the declared sizes, at the example and between them. The other columns count what this pipeline makes with its
defaults: **FP32** passes against PyTorch in float64; the others keep 20 dB of signal to error. **INT8 static, or no
worse** adds the networks for which onnxruntime's own static quantizer fails too, or is more than 1 dB worse. **Of
either** is the share of those that either converts.
"""
LEFT_OUT = """## Left out

| what | why |
|---|---|
| torchaudio | its library needs the one PyTorch build that it was made for; its networks are written here instead |
| detectors of torchvision with two stages | their boxes are as many as they find: data-dependent output sizes |
| inception_v3 and mobileone of timm | untrained, their values grow to 1e11 and 1e15, as no trained network's do |
| networks that draw random numbers at every call, as VITS does | no two runs agree, PyTorch's own included |
"""


def page(results: dict[str, Result], declared: int) -> str:
    """Return the page about these results, of as many networks as the zoo has."""
    found = sorted(results.values(), key=lambda result: (result.family, result.name))
    networks = f"All {declared}" if len(found) == declared else f"{len(found)} of the {declared}"
    through = f"{networks} networks have been through the pipeline, some of them through an earlier version of it.\n"
    return "\n".join([INTRODUCTION, "## Results\n", through, table(found), failures(found), LEFT_OUT])


def table(results: list[Result]) -> str:
    """Return the counts by family, and of all."""
    if not results:
        return ""
    heads = ["family", "networks", *COLUMNS]
    rows = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    families = sorted({result.family for result in results})
    rows += [row(family, [result for result in results if result.family == family]) for family in families]
    rows += [row("**all**", results), shares(results)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


# The columns of the table, and which networks each counts.
COLUMNS: dict[str, Callable[[Result], bool]] = {
    "either": lambda result: result.convertible,
    "FP32": lambda result: result.passes(FLOAT),
    "FP16": lambda result: result.passes("fp16"),
    "INT8 dynamic": lambda result: result.passes("int8_dynamic"),
    "INT8 static": lambda result: result.passes("int8_static"),
    "INT8 static, or no worse": Result.excused,
}


def row(name: str, results: list[Result]) -> list[str]:
    return [name, str(len(results)), *(str(sum(map(counts, results))) for counts in COLUMNS.values())]


def shares(results: list[Result]) -> list[str]:
    """Return the last row: of the networks that either exporter converts, the share that each column counts."""
    either = [result for result in results if result.convertible]
    if not either:
        return ["**of either**", *["–"] * (len(COLUMNS) + 1)]
    return [
        "**of either**",
        str(len(either)),
        *(f"{sum(map(counts, either)) / len(either):.1%}" for counts in COLUMNS.values()),
    ]


def failures(results: list[Result]) -> str:
    """Return a table of what did not work, with the reason of each."""
    rows = [(result, what, why) for result in results for what, why in failures_of(result)]
    if not rows:
        return ""
    lines = [f"| {result.name} | {what} | {in_cell(why)} |\n" for result, what, why in rows]
    return "## Failures\n\n| network | what | reason |\n|---|---|---|\n" + "".join(lines)


def failures_of(result: Result) -> list[tuple[str, str]]:
    """Return what did not work for a network, and why: a stage that stopped it, variants, and the plain exporters."""
    found = [("run", result.stopped)] if result.stopped else []
    for variant in (FLOAT, *REDUCED):
        outcome = result.variants.get(variant)
        if outcome and not outcome.passed:
            found.append((variant, outcome.failure + rival(result, variant)))
    if not result.convertible:
        found += [("dynamo alone", result.dynamo), ("TorchScript alone", result.torchscript)]
    return found


def rival(result: Result, variant: str) -> str:
    """Return what onnxruntime's own quantizer makes of it, for int8_static."""
    if variant != "int8_static":
        return ""
    if result.rival_failure:
        return f"; onnxruntime's own quantizer fails: {result.rival_failure}"
    return "" if result.rival_db is None else f"; onnxruntime's own quantizer: {result.rival_db:.1f} dB"


def in_cell(text: str, longest: int = 240) -> str:
    """Return a text on one line of a table, cut to `longest` characters."""
    line = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("](", "] (")
    return line if len(line) <= longest else line[:longest] + " …"


def describe_outcome(result: Result) -> str:
    """Return one line about a network, for the terminal."""
    parts = [f"{what}: {in_cell(why, 160)}" for what, why in failures_of(result)]
    passed = [variant for variant in (FLOAT, *REDUCED) if result.passes(variant)]
    return f"{' '.join(passed) or 'nothing'} in {result.seconds:.0f} s" + "".join(f"\n    {part}" for part in parts)


def totals(results: list[Result]) -> str:
    """Return how many networks either exporter alone converts rightly, and the share of each variant among them."""
    either = [result for result in results if result.convertible]
    lines = [f"{len(either)} of {len(results)} networks are converted rightly by torch.onnx.export alone. Of these:"]
    for name, counts in list(COLUMNS.items())[1:]:
        share = sum(map(counts, either)) / len(either) if either else 0.0
        lines.append(f"  {name}: {sum(map(counts, either))} ({share:.1%})")
    return "\n".join(lines)
