"""Declare the paths of the pipeline's files, relative to the repository root, from which everything runs."""

from pathlib import Path

PARAMS = Path("params.yaml")
PIPELINE = Path("dvc.yaml")
LOCK = Path("dvc.lock")
MODELS = Path("models")

RAW = Path("data/raw")
ON_DISK = Path("data/sources")
CALIBRATION_SAMPLES = Path("data/prepared/calibration.npz")
EVALUATION_SAMPLES = Path("data/prepared/evaluation.npz")

# The name of a model in its folder.
MODEL_FILE = "model.onnx"

ARTIFACTS = Path("artifacts")
HARDWARE = ARTIFACTS / "hardware.json"
TARGET = ARTIFACTS / "target.json"
PROVIDER = ARTIFACTS / "provider.json"
CHOICE = ARTIFACTS / "choice.json"
REFERENCE = ARTIFACTS / "reference"
REFERENCE_SAMPLES = REFERENCE / "evaluation.npz"
REFERENCE_CASES = REFERENCE / "cases.npz"
CALIBRATION_FOLDER = ARTIFACTS / "calibration"
RANGES = CALIBRATION_FOLDER / "ranges.json"
SOURCES = ARTIFACTS / "export/sources.json"
OPTIMIZED = ARTIFACTS / "optimized"
TRACE = ARTIFACTS / "profile/trace.json"
REPORT = ARTIFACTS / "report"
RELEASE = ARTIFACTS / "release"

# Written by hand with `python -m benchmarks.NAME`, and kept in git.
REPEAT_BENCHMARK = Path("benchmarks/repeat.json")
MODELS_BENCHMARK = Path("benchmarks/models.json")
PAGE_FAULTS_BENCHMARK = Path("benchmarks/page_faults.json")

METRICS = Path("metrics")
PLOTS = METRICS / "plots"


def variant_model(variant: str) -> Path:
    """Return the path of the model of a variant, or of the calibrated one in the folder `variant`."""
    return ARTIFACTS / variant / MODEL_FILE
