"""Compare the metrics of two revisions; each has a unit, a direction, an interval and a verdict.

BASE and HEAD are branches, tags, commits or names of experiments; without HEAD, the workspace is compared. Unless BASE
is an experiment, HEAD is compared with the merge base of the two, as in a pull request. A verdict is better, worse, no
difference (beyond the noise), not comparable, or changed if neither direction is better. new and gone are metrics that
only one side has.
"""

import argparse
import json

from onnx_release.core.command import run_tool
from onnx_release.core.files import rounded
from onnx_release.review.compare import compare
from onnx_release.review.comparison_pages import as_json, as_markdown, as_text
from onnx_release.review.revisions import load_pair


def main(arguments: argparse.Namespace) -> None:
    comparison = compare(*load_pair(arguments.base, arguments.head))
    if arguments.format == "json":
        print(json.dumps(rounded(as_json(comparison)), indent=2, ensure_ascii=False))
    else:
        print({"table": as_text, "markdown": as_markdown}[arguments.format](comparison, arguments.all))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", metavar="BASE", help="what to compare with")
    parser.add_argument("head", metavar="HEAD", nargs="?", help="what to compare (default: the workspace)")
    parser.add_argument("--format", choices=("table", "markdown", "json"), default="table")
    parser.add_argument("--all", action="store_true", help="list every metric, not only those that differ")
    run_tool(main, parser)
