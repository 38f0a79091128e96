"""Measure how long the pipeline takes, what it repeats, and whether its bytes depend on the folder.

    python -m benchmarks.pipeline [--model NAME]

clones the repository twice, runs one model in both with this environment's packages, and writes
benchmarks/pipeline.json: seconds for a fresh clone and for a run with nothing to do, the stages whose entries in
dvc.lock differ between the clones, and the stages of the model that run after a change of the opset and of the README.
docs/benchmark.md has the seconds. Takes about ten minutes on 2 cores with mobilenet_v2.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from onnx_release.core.addresses import last_stages
from onnx_release.core.command import run_tool
from onnx_release.core.files import read_json, write_json
from onnx_release.core.hardware import machine_name
from onnx_release.core.paths import HARDWARE, LOCK, ModelFiles
from tests.clone import stages_run
from tools.clone import forget_runs, make_clone, run
from tools.models import add_model_option, chosen_model


def main(arguments: argparse.Namespace) -> None:
    model = chosen_model(arguments.model).model
    with tempfile.TemporaryDirectory() as folder:
        first, second = (fresh_clone(Path(folder) / name) for name in ("first", "the second one"))
        fresh, _ = timed_repro(first, model)
        unchanged, unchanged_stages = timed_repro(first, model)
        timed_repro(second, model)
        locks = [locked(clone, model) for clone in (first, second)]
        result = {
            "model": model,
            "machine": machine_name(read_json(first / HARDWARE)),
            "fresh_seconds": fresh,
            "unchanged_seconds": unchanged,
            "unchanged_stages": unchanged_stages,
            "differing_stages": sorted(name for name in locks[0] if locks[0][name] != locks[1][name]),
            "opset_20_stages": stages_after_opset_20(first, model),
            "readme_stages": stages_after_a_comment(second, model),
        }
    write_json(Path("benchmarks/pipeline.json"), result)
    print(json.dumps(result, indent=2))


def fresh_clone(folder: Path) -> Path:
    """Clone the repository without its locks: with them, the machine of the committed timings would skip stages."""
    clone = make_clone(folder)
    forget_runs(clone)
    return clone


def locked(clone: Path, model: str) -> dict[str, Any]:
    """Return what DVC has locked of each stage of the model."""
    files = [YAML(typ="safe").load((clone / lock).read_text())["stages"] for lock in (ModelFiles(model).lock, LOCK)]
    return files[0] | {name: files[1][name] for name in last_stages(model)}


def timed_repro(clone: Path, model: str) -> tuple[float, list[str]]:
    """Return the seconds of `make repro` without the installation of packages, and the stages that ran."""
    start = time.perf_counter()
    result = run(clone, "tools.repro", "--model", model)
    check(result)
    check(run(clone, "tools.gate", "--model", model))
    return time.perf_counter() - start, stages_run(result.stdout)


def stages_after_opset_20(clone: Path, model: str) -> list[str]:
    result = run(clone, "dvc", "exp", "run", "-S", "export.opset=20", *last_stages(model))
    check(result)
    return stages_run(result.stdout)


def stages_after_a_comment(clone: Path, model: str) -> list[str]:
    readme = clone / "README.md"
    readme.write_text(readme.read_text() + "\n<!-- a comment -->\n")
    return sorted(json.loads(run(clone, "dvc", "status", "--json", "--with-deps", *last_stages(model)).stdout))


def check(result: Any) -> None:
    if result.returncode:
        raise SystemExit(result.stdout + result.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_option(parser)
    run_tool(main, parser)
