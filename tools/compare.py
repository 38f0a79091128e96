"""Compare the metrics of all models in two revisions, and say first in a line what became of each model.

BASE and HEAD are branches, tags, commits or names of experiments; without HEAD, the workspace is compared. Unless BASE
is an experiment, HEAD is compared with the merge base of the two, as in a pull request. The metrics of a model whose
results have moved follow its line; each has a unit, a direction, an interval and a verdict. A verdict is better, worse,
no difference (beyond the noise), not comparable, or changed if neither direction is better. new and gone are models and
metrics that only one side has.
"""

import argparse
import json

from onnx_release.core.command import run_tool
from onnx_release.core.files import rounded
from onnx_release.review.model_pages import as_json, as_markdown, as_text
from onnx_release.review.revisions import load_pair
from onnx_release.review.side_by_side import compare_models


def main(arguments: argparse.Namespace) -> None:
    base, head = load_pair(arguments.base, arguments.head)
    models = compare_models(base, head, arguments.model)
    if arguments.format == "json":
        print(json.dumps(rounded(as_json(models, base, head)), indent=2, ensure_ascii=False))
    else:
        print({"table": as_text, "markdown": as_markdown}[arguments.format](models, base, head, arguments.all))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", metavar="BASE", help="what to compare with")
    parser.add_argument("head", metavar="HEAD", nargs="?", help="what to compare (default: the workspace)")
    parser.add_argument("--model", metavar="NAME", help="compare this model alone (default: all that either side has)")
    parser.add_argument("--format", choices=("table", "markdown", "json"), default="table")
    parser.add_argument("--all", action="store_true", help="list every metric, not only those that differ")
    run_tool(main, parser)
