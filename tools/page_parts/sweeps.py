"""Make the tables of sweeps: how long they take, whether anything ran twice, and what a large one costs."""

from onnx_release.report.text import number, table
from tools.page_parts import Read

# US dollars, as docs/scale-out.md states them: a core of a node for an hour, and a GB in S3 for a month.
CORE_HOUR = 0.085 / 2
GB_MONTH = 0.023
NODE_CORES = 2  # of the machine that benchmarks/pipeline.json is from


def sweep_cost(read: Read) -> str:
    """Show what a thousand experiments of the measured sweep on Ray cost at the prices above."""
    found, pipeline = read("benchmarks/scale_out.json"), read("benchmarks/pipeline.json")
    two = found["two_nodes"]
    count, seconds = len(two["experiments"]), sum(two["experiments"].values())
    hours = 1000 * seconds / count / 3600
    gigabytes = 1000 * two["new_mb"] / count / 1000
    whole = 1000 * pipeline["fresh_seconds"] * NODE_CORES / 3600
    rows = [
        ["`digits_cnn`, not timed", f"{number(hours)} core-hours", f"{number(hours * CORE_HOUR)}"],
        ["what it adds to the DVC remote", f"{number(gigabytes)} GB", f"{number(gigabytes * GB_MONTH)} a month"],
        [f"`{pipeline['model']}`, all of it, timed", f"{number(whole)} core-hours", f"{number(whole * CORE_HOUR)}"],
    ]
    return (
        f"{table(['1,000 experiments', '', 'US dollars'], rows)}\n\n{count} experiments of digits_cnn, preparing ones "
        f"included, took {number(found['one_node']['seconds'])} s on one node of one core and "
        f"{number(two['seconds'])} s on two nodes, which is {number(found['speedup'])} times as fast. Each took "
        f"{number(seconds / count)} s with the clone, the pull and the push, and added {number(two['new_mb'] / count)} "
        f"MB in {number(two['new_files'] / count)} files to the DVC remote ({found['machine']}, "
        "`python -m benchmarks.scale_out`). The last row is an upper bound: the whole pipeline with nothing shared, "
        f"{number(pipeline['fresh_seconds'])} s on {NODE_CORES} cores ({pipeline['machine']})."
    )


def sweeps(read: Read) -> str:
    """Show how long the grids of digits_cnn take, and whether an experiment repeated the work of another."""
    found = read("benchmarks/sweep.json")
    rows = [
        [
            f"`sweeps/{grid}.yaml`",
            *(str(item[key]) for key in ("experiments", "preparing_experiments", "stages_run", "new_in_run_cache")),
            str(sum(item["repeated"].values())),
            number(item["seconds"]),
        ]
        for grid, item in found.items()
        if grid != "machine"
    ]
    header = ["", "experiments", "preparing", "stages run", "new in the run cache", "repeated", "s"]
    return (
        f"{table(header, rows)}\n\nThe grids ran one after the other, from an empty cache, on {found['machine']}. "
        "`hardware` and `sources` run in every experiment that depends on them, and the run cache never keeps them."
    )
