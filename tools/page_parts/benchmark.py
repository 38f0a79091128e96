"""Make the tables of docs/benchmark.md: how far the benchmark repeats, and what page faults cost PyTorch."""

from collections.abc import Callable, Iterable

from onnx_release.core.variants import BASE
from onnx_release.report.text import number, percent, table
from tools.page_parts import Read


def repeat(read: Read) -> str:
    """Show every speed-up of two runs, and how far they are apart."""
    found = read("benchmarks/repeat.json")
    rows = [
        [
            name,
            *(number(latency) for latency in item["latency_ms"]),
            *(number(speedup) for speedup in item["speedups"]),
            f"[{number(item['interval'][0])}, {number(item['interval'][1])}]",
            percent(item["change"]),
        ]
        for name, item in found["contenders"].items()
    ]
    header = [
        "",
        "ms, first",
        "ms, second",
        "speed-up over eager, first",
        "second",
        "interval of the first",
        "change",
    ]
    times = " and ".join(
        f"{number(run['wall_s'])} s ({percent(run['calling_s'] / run['wall_s'])} in calls, "
        f"{percent(run['loading_s'] / run['wall_s'])} in loading and in torch.compile's compilation, "
        f"{percent(run['overhead'])} in the harness itself)"
        for run in found["runs"]
    )
    eager = found["contenders"][BASE]["latency_ms"]
    openvino = f" with OpenVINO {found['openvino']} on the same files, in float32," if found["openvino"] else ""
    return (
        f"{table(header, rows)}\n\nThe whole benchmark of {found['model']} ran twice,{openvino} "
        f"on an {found['machine']} "
        f"(`python -m benchmarks.repeat`). The largest change of a speed-up is {percent(found['largest_change'])}, "
        f"while {BASE} itself took {number(eager[0])} and {number(eager[1])} ms. The runs took {times}."
    )


def page_faults(read: Read) -> str:
    """Compare starts of PyTorch that give memory back with starts that keep it."""
    found = read("benchmarks/page_faults.json")
    rows = [
        [name, *(" to ".join(number(entry[key]) for entry in (low, high)) for key in ("ms", "faults", "kernel_ms"))]
        for name, low, high in (
            (name, extremes(found[kept], min), extremes(found[kept], max))
            for name, kept in (("memory as glibc handles it", "as_it_is"), ("memory kept", "kept"))
        )
    ]
    header = ["", "ms a call", "page faults a call", "ms of it in the kernel"]
    return (
        f"{table(header, rows)}\n\n{len(found['kept'])} starts of each; {found['model']} in PyTorch eager on an "
        f"{found['machine']} (`python -m benchmarks.page_faults`)."
    )


def extremes(entries: list[dict[str, float]], pick: Callable[[Iterable[float]], float]) -> dict[str, float]:
    """Return the least or the largest value of each key, as `pick` chooses."""
    return {key: pick(entry[key] for entry in entries) for key in entries[0]}
