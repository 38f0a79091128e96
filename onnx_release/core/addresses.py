"""Name the stages as DVC does, and find them in its locks: an address is a target of `dvc repro` and `dvc status`."""

import re
from pathlib import Path

from onnx_release.core.paths import LOCK, MACHINE_LOCK, PIPELINES, ModelFiles

# The stages of dvc.yaml, on which no other one depends. Each model's others are in its own pipelines/NAME/dvc.yaml.
LAST = ("package", "report")


def last_stages(model: str) -> list[str]:
    """Return the addresses that are all of a model: the stages that no other one depends on."""
    return [address(stage, model) for stage in LAST]


def address(stage: str, model: str) -> str:
    """Return the address of a model's stage; a stage that runs for each variant is called STAGE@VARIANT."""
    return f"{stage}@{model}" if stage in LAST else f"{ModelFiles(model).pipeline.as_posix()}:{stage}"


def model_of(stage: str) -> str:
    """Return the model of the stage with this address; empty if it is for all models."""
    file, _, name = stage.rpartition(":")
    if not file:
        return name.partition("@")[2]
    folder = Path(file).parent
    return folder.name if folder.parent == PIPELINES else ""


def lock_files() -> list[Path]:
    """Return every file in which DVC keeps what stages ran on: the machine's, the models', the last stages'."""
    return [MACHINE_LOCK, *sorted(PIPELINES.glob(f"*/{LOCK}")), LOCK]


def lock_entries(text: str) -> dict[str, str]:
    """Return the lines of dvc.lock by stage, in the order of the file; the lines before the first are under ""."""
    entries = {"": ""}
    stage = ""
    for line in text.splitlines():
        if re.match(r"  [^ ]", line):
            stage = line.strip().rstrip(":")
            entries[stage] = ""
        entries[stage] += line + "\n"
    return entries
