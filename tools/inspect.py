"""Show the inputs, outputs, symbolic shapes, opsets, operators and size of an ONNX file."""

import argparse
import json
from pathlib import Path
from typing import Any

from onnx_release.core.command import run_tool
from onnx_release.core.files import rounded
from onnx_release.graph.graph import describe_model


def main(arguments: argparse.Namespace) -> None:
    description = describe_model(arguments.file)
    print(json.dumps(rounded(description), indent=2) if arguments.json else description_lines(description))


def description_lines(description: dict[str, Any]) -> str:
    """Write the description as lines of text."""
    lines = [
        f"{kind:<8} {value['name']}  {value['dtype']}  [{', '.join(str(axis) for axis in value['shape'])}]"
        for kind, values in (("input", description["inputs"]), ("output", description["outputs"]))
        for value in values
    ]
    opsets = ", ".join(f"{domain} {version}" for domain, version in description["opsets"].items())
    lines += [
        f"symbolic {', '.join(description['symbols']) or 'none'}",
        f"opset    {opsets} (IR version {description['ir_version']}, {description['producer'] or 'no producer'})",
        f"size     {description['size_mb']:.3f} MB, {description['parameters']:,} parameters",
        f"nodes    {description['nodes']}",
    ]
    lines += [f"  {count:>6}  {name}" for name, count in description["operators"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    run_tool(main, parser)
