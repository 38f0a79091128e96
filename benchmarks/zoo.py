"""Take many architectures through the pipeline, and count how many releases it can make.

    python -m benchmarks.zoo                    # those that have no line in benchmarks/zoo.jsonl yet
    python -m benchmarks.zoo timm hf_bert       # of these, families or names; --again also those that have one
    python -m benchmarks.zoo --part 3/8         # every eighth network, from the third
    python -m benchmarks.zoo --page             # nothing: only writes docs/zoo.md again
    python -m benchmarks.zoo --list             # prints the names

Each network has random weights of a fixed seed, and goes from fetch to validate in a clone of the repository, where
each stage is a process of its own with a limit of time. torch.onnx.export alone converts it too, by both exporters; how
many either converts rightly is what the others are counted against. It writes a line of benchmarks/zoo.jsonl for each,
and docs/zoo.md. Needs what requirements-zoo.txt lists. A network takes half a minute on 2 cores.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks.zoo_networks.catalogue import NETWORKS
from benchmarks.zoo_networks.page import PAGE, describe_outcome, page, totals
from benchmarks.zoo_networks.results import RESULTS, add_result, read_results, write_results
from benchmarks.zoo_networks.through import make_zoo_clone, take_through
from onnx_release.core.command import run_tool
from onnx_release.core.errors import BenchmarkError


def main(arguments: argparse.Namespace) -> None:
    names = chosen(arguments.names, arguments.part)
    if arguments.list:
        print("\n".join(names))
        return
    known = read_results(arguments.results)
    wanted = [] if arguments.page else [name for name in names if arguments.again or name not in known]
    if wanted:
        take_all(wanted, arguments)
    found = read_results(arguments.results)
    write_results(arguments.results, found)
    if arguments.results == RESULTS:
        PAGE.write_text(page(found, len(NETWORKS)))
    print(totals(list(found.values())))


def take_all(names: list[str], arguments: argparse.Namespace) -> None:
    """Take the networks through, one after the other, and add a line for each."""
    with tempfile.TemporaryDirectory() as folder:
        clone = make_zoo_clone(Path(folder) / "clone", arguments.seconds)
        for number, name in enumerate(names, 1):
            result = take_through(name, clone, arguments.seconds)
            add_result(arguments.results, result)
            print(f"{number} of {len(names)}: {name}: {describe_outcome(result)}", flush=True)


def chosen(given: list[str], part: str) -> list[str]:
    """Return the names of the networks whose family or name is given, or of all; of these, every n-th by `part`.

    Raises BenchmarkError for a name that is neither, and for a part that is not one.
    """
    families = {network.family for network in NETWORKS.values()}
    for name in given:
        if name not in NETWORKS and name not in families:
            raise BenchmarkError(
                f"the zoo has no network and no family called {name}: its families are {', '.join(sorted(families))}, "
                "and --list prints the networks"
            )
    names = [name for name, one in NETWORKS.items() if not given or name in given or one.family in given]
    first, _, parts = part.partition("/")
    if not (first.isdigit() and parts.isdigit() and 1 <= int(first) <= int(parts)):
        raise BenchmarkError(f"--part {part}: give two numbers, as in 3/8 for every eighth network from the third")
    return names[int(first) - 1 :: int(parts)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="families or networks (all)")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="every N-th network, from the I-th (1/1)")
    parser.add_argument("--again", action="store_true", help="also those that have a line")
    parser.add_argument("--seconds", type=float, default=600, help="how long a process may take (600)")
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"where the lines are ({RESULTS})")
    parser.add_argument("--page", action="store_true", help="take no network; write the page and print the totals")
    parser.add_argument("--list", action="store_true", help="print the names and end")
    run_tool(main, parser)
