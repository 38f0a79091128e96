"""Measure what it costs to have several models listed: the CPU time of DVC with one model and with eight.

    python -m benchmarks.side_by_side

runs digits_cnn in a fresh clone, then lists seven copies of it with all that was made, and writes
benchmarks/side_by_side.json: in CPU seconds, of all processes, a full run of the one model, `dvc repro` with nothing to
do, and `dvc repro package@digits_cnn` with nothing to do. Takes 10 minutes on 2 cores.
"""

import argparse
import json
import resource
import shutil
import tempfile
from pathlib import Path

from onnx_release.core.addresses import last_stages, lock_entries
from onnx_release.core.command import run_tool
from onnx_release.core.files import read_json, write_json, write_text
from onnx_release.core.hardware import machine_name
from onnx_release.core.paths import HARDWARE, LOCK, ModelFiles
from tools.clone import forget_runs, list_models, make_clone, only_model, run
from tools.new_model import pipeline_text

RESULT = Path("benchmarks/side_by_side.json")
MODEL = "digits_cnn"
COPIES = 7


def main(_: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        clone = make_clone(Path(folder) / "clone")
        forget_runs(clone)
        only_model(clone, MODEL)
        full = cpu_seconds(clone, *last_stages(MODEL))
        one = {"full_run": full, **with_nothing_to_do(clone)}
        list_copies(clone)
        nothing = with_nothing_to_do(clone)
        several = {"full_run": cpu_seconds(clone, "--force", *last_stages(MODEL)), **nothing}
        result = {
            "model": MODEL,
            "machine": machine_name(read_json(clone / HARDWARE)),
            "cpu_seconds": {"1": one, str(1 + COPIES): several},
            "full_run_ratio": several["full_run"] / one["full_run"],
        }
    write_json(RESULT, result)
    print(json.dumps(result, indent=2))


def with_nothing_to_do(clone: Path) -> dict[str, float]:
    """Return the CPU seconds of `dvc repro` of all models and of one, once DVC has looked at every file."""
    cpu_seconds(clone)
    return {"all_models": cpu_seconds(clone), "one_model": cpu_seconds(clone, last_stages(MODEL)[0])}


def cpu_seconds(clone: Path, *arguments: str) -> float:
    """Return the CPU seconds of `dvc repro` and of all processes that it starts."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = run(clone, "dvc", "repro", *arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode:
        raise SystemExit(result.stdout + result.stderr)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def list_copies(clone: Path) -> None:
    """List copies of the model, with all that was made of it, so that DVC finds nothing to do."""
    names = [f"copy_{number}" for number in range(1, COPIES + 1)]
    files = ModelFiles(MODEL)
    own, last = files.lock, LOCK
    entries = lock_entries((clone / last).read_text(encoding="utf-8"))
    for name in names:
        copy = ModelFiles(name)
        for there, here in (
            *((files.folder, copy.folder), (files.raw, copy.raw), (files.artifacts, copy.artifacts)),
            *((files.calibration_samples.parent, copy.calibration_samples.parent), (files.metrics, copy.metrics)),
        ):
            shutil.copytree(clone / there, clone / here)
        shutil.copy(clone / files.on_disk, clone / copy.on_disk)
        write_text(clone / copy.pipeline, pipeline_text(name))
        write_text(clone / copy.lock, (clone / own).read_text(encoding="utf-8").replace(MODEL, name))
        entries |= {
            stage.replace(MODEL, name): entry.replace(MODEL, name) for stage, entry in entries.items() if MODEL in stage
        }
    write_text(clone / last, "".join(entries.values()))
    list_models(clone, MODEL, *names)


if __name__ == "__main__":
    run_tool(main, argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter))
