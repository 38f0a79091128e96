"""Declare the paths of the pipeline's files, relative to the repository root, from which everything runs."""

from dataclasses import dataclass
from pathlib import Path

PARAMS = Path("params.yaml")
MODEL_LIST = Path("models.yaml")
PIPELINE = Path("dvc.yaml")
LOCK = Path("dvc.lock")
# The stages that look at the machine and at files outside of the repository, once for all models.
MACHINE_PIPELINE = Path("stages/dvc.yaml")
MACHINE_LOCK = Path("stages/dvc.lock")

# The other stages of each model, and what DVC shows and fetches of it.
PIPELINES = Path("pipelines")

MODELS = Path("models")
RAW = Path("data/raw")
PREPARED = Path("data/prepared")
ON_DISK = Path("data/sources")
ARTIFACTS = Path("artifacts")
METRICS = Path("metrics")

# Only the machine is the same for all models.
HARDWARE = ARTIFACTS / "hardware.json"

# The names of files in the folders of a model's artifacts.
MODEL_FILE = "model.onnx"
RANGES_FILE = "ranges.json"
SOURCES_FILE = "sources.json"

# Written by hand with `python -m benchmarks.NAME`, and kept in git.
REPEAT_BENCHMARK = Path("benchmarks/repeat.json")
MODELS_BENCHMARK = Path("benchmarks/models.json")
PAGE_FAULTS_BENCHMARK = Path("benchmarks/page_faults.json")


@dataclass(frozen=True)
class ModelFiles:
    """The files of the model of this name: its folder, and what the pipeline makes of it, apart from other models."""

    model: str

    @property
    def folder(self) -> Path:
        """Return the folder that a person writes."""
        return MODELS / self.model

    @property
    def spec(self) -> Path:
        """Return the file that declares the model."""
        return self.folder / "spec.yaml"

    @property
    def overrides(self) -> Path:
        """Return the file of the parameters that are this model's own."""
        return self.folder / "params.yaml"

    @property
    def pipeline(self) -> Path:
        """Return the file that declares all stages of the model but the last."""
        return PIPELINES / self.model / PIPELINE

    @property
    def lock(self) -> Path:
        """Return the file in which DVC keeps what those stages ran on."""
        return PIPELINES / self.model / LOCK

    @property
    def on_disk(self) -> Path:
        """Return the file with the sha256 of the sources on this machine."""
        return ON_DISK / f"{self.model}.json"

    @property
    def raw(self) -> Path:
        """Return the folder of the fetched sources."""
        return RAW / self.model

    @property
    def calibration_samples(self) -> Path:
        """Return the prepared samples of the split that calibrates."""
        return PREPARED / self.model / "calibration.npz"

    @property
    def evaluation_samples(self) -> Path:
        """Return the prepared samples of the split that validates."""
        return PREPARED / self.model / "evaluation.npz"

    @property
    def artifacts(self) -> Path:
        """Return the folder of what the stages make."""
        return ARTIFACTS / self.model

    @property
    def params(self) -> Path:
        """Return the parameters of this model: params.yaml with its overrides."""
        return self.artifacts / "params.json"

    @property
    def target(self) -> Path:
        """Return the file that says what INT8 is made for."""
        return self.artifacts / "target.json"

    @property
    def provider(self) -> Path:
        """Return the file that says what runs the model here."""
        return self.artifacts / "provider.json"

    @property
    def choice(self) -> Path:
        """Return the file that names the variant to release."""
        return self.artifacts / "choice.json"

    @property
    def reference(self) -> Path:
        """Return the folder of PyTorch's outputs."""
        return self.artifacts / "reference"

    @property
    def reference_samples(self) -> Path:
        """Return PyTorch's outputs for the evaluation samples."""
        return self.reference / "evaluation.npz"

    @property
    def reference_cases(self) -> Path:
        """Return PyTorch's outputs for the shape cases."""
        return self.reference / "cases.npz"

    @property
    def calibration(self) -> Path:
        """Return the folder of the equalized model and its ranges."""
        return self.artifacts / "calibration"

    @property
    def ranges(self) -> Path:
        """Return the ranges of the activations."""
        return self.calibration / RANGES_FILE

    @property
    def sources(self) -> Path:
        """Return the lines of source code that the nodes of the export come from."""
        return self.artifacts / "export" / SOURCES_FILE

    @property
    def optimized(self) -> Path:
        """Return the folder of the graph that ONNX Runtime makes."""
        return self.artifacts / "optimized"

    @property
    def trace(self) -> Path:
        """Return the trace of the profile."""
        return self.artifacts / "profile/trace.json"

    @property
    def report(self) -> Path:
        """Return the folder of the report."""
        return self.artifacts / "report"

    @property
    def pictures(self) -> Path:
        """Return the folder of the report's charts, each a file that DVC draws."""
        return self.artifacts / "pictures"

    @property
    def release(self) -> Path:
        """Return the folder of the release."""
        return self.artifacts / "release"

    @property
    def metrics(self) -> Path:
        """Return the folder of the metrics."""
        return METRICS / self.model

    @property
    def plots(self) -> Path:
        """Return the folder of the tables that DVC plots."""
        return self.metrics / "plots"

    def variant(self, name: str) -> Path:
        """Return the ONNX file of a variant, or of the calibrated model in the folder of this name."""
        return self.artifacts / name / MODEL_FILE
