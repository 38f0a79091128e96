"""Take one network through the pipeline in a clone, from fetch to validate, and through plain exports beside it."""

import shutil
import signal
import time
from pathlib import Path
from typing import Any

from benchmarks.zoo_networks import work
from benchmarks.zoo_networks.catalogue import NETWORKS
from benchmarks.zoo_networks.forked import TIMED_OUT, Ended, run_forked, run_module
from benchmarks.zoo_networks.results import FLOAT, REDUCED, Outcome, Result
from onnx_release.core.files import read_json
from onnx_release.core.paths import ModelFiles
from tools.clone import list_models, make_clone

STAGES = (
    "settings",
    "fetch",
    "prepare",
    "reference",
    "export",
    "slim",
    "fp16",
    "quantize_dynamic",
    "calibrate",
    "quantize_static",
)
# Small networks with random weights: more samples and more search would show nothing more.
PARAMETERS = {
    "prepare.calibration": "24",
    "prepare.evaluation": "24",
    "quantize_static.minutes": "0.05",
    "validate.resamples": "200",
}
LONGEST = 500  # characters of a reason


def make_zoo_clone(folder: Path, seconds: float) -> Path:
    """Make a clone with few samples and little search, in which the stages that look at the machine have run."""
    clone = make_clone(folder, PARAMETERS)
    ended = run_forked(run_module, "stages.hardware", folder=clone, seconds=seconds)
    if ended.code:
        raise SystemExit(ended.output)
    return clone


def take_through(name: str, clone: Path, seconds: float) -> Result:
    """Return what becomes of the network called `name`; each process may take `seconds`."""
    start = time.monotonic()
    dynamo = plain_reason(name, "dynamo", clone, seconds)
    torchscript = plain_reason(name, "torchscript", clone, seconds)
    files = ModelFiles(name)
    found: dict[str, Any] = {"stopped": "", "variants": {}}
    try:
        found = run_stages(name, clone, seconds)
        exported = clone / files.metrics / "export.json"
        found["exporter"] = read_json(exported).get("exporter", "") if exported.exists() else ""
        static = found["variants"].get("int8_static")
        if static and not static.passed:
            found |= run_rival(name, clone, seconds)
    finally:
        for made in (files.folder, files.raw, Path("data/prepared") / name, files.artifacts, files.metrics):
            shutil.rmtree(clone / made, ignore_errors=True)
    seconds_taken = round(time.monotonic() - start, 1)
    return Result(name, NETWORKS[name].family, dynamo, torchscript, **found, seconds=seconds_taken)


def plain_reason(name: str, exporter: str, clone: Path, seconds: float) -> str:
    """Return why torch.onnx.export alone does not convert the network rightly, or an empty text."""
    ended = run_forked(work.convert_plainly, name, exporter, folder=clone, seconds=seconds)
    return reason(ended) if ended.code else work.read_answer(clone)


def run_stages(name: str, clone: Path, seconds: float) -> dict[str, Any]:
    """Return what stopped the run, if anything, and the outcome of each variant."""
    variants: dict[str, Outcome] = {}
    written = run_forked(work.write_model, name, folder=clone, seconds=seconds)
    if written.code:
        return {"stopped": f"zoo: {reason(written)}", "variants": variants}
    list_models(clone, name)
    for stage in STAGES:
        ended = run_forked(run_module, f"stages.{stage}", name, folder=clone, seconds=seconds)
        if ended.code:
            return {"stopped": f"{stage}: {reason(ended)}", "variants": variants}
    for variant in ("export", FLOAT, *REDUCED):
        ended = run_forked(run_module, "stages.validate", name, variant, folder=clone, seconds=seconds)
        if ended.code:
            return {"stopped": f"validate {variant}: {reason(ended)}", "variants": variants}
        variants[variant] = outcome(read_json(clone / ModelFiles(name).metrics / "validate" / f"{variant}.json"))
    return {"stopped": "", "variants": variants}


def outcome(metrics: dict[str, Any]) -> Outcome:
    """Read the metrics of a variant's validation."""
    made = bool(metrics.get("made", True)) and "passed" in metrics
    return Outcome(made, bool(metrics.get("passed")), metrics.get("sqnr_db"), str(metrics.get("failure", ""))[:LONGEST])


def run_rival(name: str, clone: Path, seconds: float) -> dict[str, Any]:
    """Return what onnxruntime's own static quantizer makes of the float32 model."""
    ended = run_forked(work.quantize_plainly, name, folder=clone, seconds=seconds)
    if ended.code:
        return {"rival_failure": reason(ended)}
    return {"rival_db": float(work.read_answer(clone))}


def reason(ended: Ended) -> str:
    """Return why a process failed: the message of its error, with TRACEBACK before it where it had none of its own."""
    if ended.code == TIMED_OUT:
        return "no end in time"
    if ended.code < 0:
        return f"CRASH {signal.Signals(-ended.code).name}"
    lines = [line for line in ended.output.replace("\r", "\n").splitlines() if line.strip() and "%|" not in line]
    first = next((number for number, line in enumerate(lines) if line.startswith("error:")), None)
    told = " ".join(lines[-1:] if first is None else lines[first:])
    return (("TRACEBACK " if first is None else "") + told)[:LONGEST]
