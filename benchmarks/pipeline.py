"""Measure how long the pipeline takes, what it repeats, and whether its bytes depend on the folder.

    python -m benchmarks.pipeline

clones the repository twice, runs the default model in both with this environment's packages, and writes
benchmarks/pipeline.json: seconds for a fresh clone and for a run with nothing to do, the stages whose entries in
dvc.lock differ between the clones, and the stages that run after a change of the opset and of the README. The report
shows it. Takes about ten minutes on 2 cores.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from onnx_release.core.command import run_stage
from onnx_release.core.files import read_json, write_json
from onnx_release.core.hardware import machine_name
from onnx_release.core.params import load_params
from onnx_release.core.paths import HARDWARE
from tests.clone import stages_run
from tools.clone import make_clone, run


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        first, second = make_clone(Path(folder) / "first"), make_clone(Path(folder) / "the second one")
        for clone in (first, second):
            # With it, the machine that the committed timings are from would skip the benchmark.
            (clone / "dvc.lock").unlink()
        fresh, _ = timed_repro(first)
        unchanged, unchanged_stages = timed_repro(first)
        timed_repro(second)
        locks = [YAML(typ="safe").load((clone / "dvc.lock").read_text())["stages"] for clone in (first, second)]
        result = {
            "model": load_params().model,
            "machine": machine_name(read_json(first / HARDWARE)),
            "fresh_seconds": fresh,
            "unchanged_seconds": unchanged,
            "unchanged_stages": unchanged_stages,
            "differing_stages": sorted(name for name in locks[0] if locks[0][name] != locks[1][name]),
            "opset_20_stages": stages_after_opset_20(first),
            "readme_stages": stages_after_a_comment(second),
        }
    write_json(Path("benchmarks/pipeline.json"), result)
    print(json.dumps(result, indent=2))


def timed_repro(clone: Path) -> tuple[float, list[str]]:
    """Return the seconds of `make repro` without the installation of packages, and the stages that ran."""
    start = time.perf_counter()
    result = run(clone, "tools.repro")
    check(result)
    check(run(clone, "tools.gate"))
    return time.perf_counter() - start, stages_run(result.stdout)


def stages_after_opset_20(clone: Path) -> list[str]:
    result = run(clone, "dvc", "exp", "run", "-S", "export.opset=20")
    check(result)
    return stages_run(result.stdout)


def stages_after_a_comment(clone: Path) -> list[str]:
    readme = clone / "README.md"
    readme.write_text(readme.read_text() + "\n<!-- a comment -->\n")
    return sorted(json.loads(run(clone, "dvc", "status", "--json").stdout))


def check(result: Any) -> None:
    if result.returncode:
        raise SystemExit(result.stdout + result.stderr)


if __name__ == "__main__":
    run_stage(main)
