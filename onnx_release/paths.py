"""Where the pipeline keeps what it makes, relative to the repository root, from which everything runs."""

from pathlib import Path

PARAMS = Path("params.yaml")
MODELS = Path("models")

RAW = Path("data/raw")
CALIBRATION = Path("data/prepared/calibration.npz")
EVALUATION = Path("data/prepared/evaluation.npz")

ARTIFACTS = Path("artifacts")
HARDWARE = ARTIFACTS / "hardware.json"
TARGET = ARTIFACTS / "target.json"
REFERENCE = ARTIFACTS / "reference"
REFERENCE_SAMPLES = REFERENCE / "evaluation.npz"
REFERENCE_CASES = REFERENCE / "cases.npz"
CALIBRATED = ARTIFACTS / "calibration"
RANGES = CALIBRATED / "ranges.json"
SOURCES = ARTIFACTS / "export/sources.json"
REPORT = ARTIFACTS / "report"

# Made by hand, with `python -m benchmarks.pipeline`, and in git.
PIPELINE_BENCHMARK = Path("benchmarks/pipeline.json")

METRICS = Path("metrics")
PLOTS = METRICS / "plots"


def variant_model(variant: str) -> Path:
    return ARTIFACTS / variant / "model.onnx"
