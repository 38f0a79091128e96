"""A project whose models have a spec and the metrics of a run, and nothing else: no artifacts, no data."""

import json
import shutil
from pathlib import Path

from onnx_release.core.files import write_text
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Task
from tests.clone import list_models
from tests.release_project import write_results
from tests.validated import small_spec


def make_models(folder: Path, tasks: dict[str, Task], *run: str) -> None:
    """Write a folder and a line of models.yaml for each model, and metrics for those that have `run`."""
    for model, task in tasks.items():
        files = ModelFiles(model)
        write_text(folder / files.spec, json.dumps(small_spec(task)))
        write_text(folder / files.overrides, "{}\n")
    list_models(folder, *tasks)
    for model in run:
        write_results(folder, model)
        validations = folder / ModelFiles(model).metrics / "validate"
        shutil.copyfile(validations / "fp32.json", validations / "export.json")
