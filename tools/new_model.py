"""Write models/NAME/ for a new model: a spec.yaml, a network.py and a data.py that run as they are, for you to change.

It writes nothing outside models/NAME/. With --images, the photographs take the place of data.py.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from dvc.utils.serialize import modify_yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from onnx_release.core.command import run_tool
from onnx_release.core.errors import SourceError, SpecError
from onnx_release.core.files import replacing_folder
from onnx_release.core.paths import MODELS
from onnx_release.core.spec import Spec
from onnx_release.core.yaml_files import read_yaml
from onnx_release.data.checksums import path_sha256
from onnx_release.data.image_folder import ImageFolder, sorted_classes, split_folders

TASKS = ("classification", "detection", "embedding", "tensor")
TEMPLATES = Path(__file__).with_name("templates")


def main(arguments: argparse.Namespace) -> None:
    write_model(arguments.name, arguments.task, arguments.weights, arguments.images)
    print(next_steps(arguments.name, arguments.weights))


def write_model(name: str, task: str, weights: Path | None = None, images: Path | None = None) -> None:
    """Write models/`name`/, whole or not at all.

    Raises SpecError for a name that is not allowed or taken, SourceError and DataError for weights and photographs that
    are missing or unusable.
    """
    folder = MODELS / name
    check_name(name, folder)
    if images is not None and task != "classification":
        raise SpecError(f"--images is for --task classification, and the task is {task}: leave it out")
    values: dict[str, Any] = {"name": name, "task": task, "sources": [], "checkpoint": ""}
    values |= {"images": "", "classes": [], "official": None}
    if weights is not None:
        if not weights.is_file():
            raise SourceError(f"there is no file {weights}: give --weights the path of a checkpoint")
        values["sources"].append(source_entry(weights, folder))
        values["checkpoint"] = json.dumps(weights.name, ensure_ascii=False)
    if images is not None:
        values["classes"] = [json.dumps(label, ensure_ascii=False) for label in sorted_classes(images)]
        values["official"] = split_folders(images)
        values["sources"].append(source_entry(images, folder))
        values["images"] = values["sources"][-1]["name"]
    with replacing_folder(folder) as partial:
        for file, text in texts(values).items():
            (partial / file).write_text(text, encoding="utf-8", newline="\n")
        with modify_yaml(partial / "spec.yaml"):
            pass  # rewrites the file in the style in which `dvc exp run -S` does
        spec = read_yaml(partial / "spec.yaml", Spec, SpecError)
        if images is not None:
            ImageFolder(spec).read_splits(images.resolve().parent)  # the same check as in the pipeline


def check_name(name: str, folder: Path) -> None:
    if not name.isidentifier():
        raise SpecError(f"{name!r} cannot be a model's name: use letters, digits and underscores, as in my_net")
    if not MODELS.is_dir():
        raise SpecError("there is no folder models/ here: run this from the repository root")
    if folder.exists():
        raise SpecError(f"{folder} already exists: choose another name, or remove it")


def source_entry(path: Path, folder: Path) -> dict[str, str]:
    """Return a file or folder as an entry of `sources`, with YAML values and a path from the model's folder on."""
    resolved = path.resolve()
    return {
        "name": json.dumps(resolved.name, ensure_ascii=False),
        "sha256": path_sha256(resolved),
        "path": json.dumps(Path(os.path.relpath(resolved, folder.resolve())).as_posix(), ensure_ascii=False),
    }


def texts(values: dict[str, Any]) -> dict[str, str]:
    """Return the text of every file of the model, by its name."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    task = values["task"]
    files = {"spec.yaml": "spec.jinja", "network.py": f"{task}_network.jinja"}
    if not values["images"]:
        files["data.py"] = "detection_data.jinja" if task == "detection" else "digits_data.jinja"
    return {file: environment.get_template(template).render(values).rstrip() + "\n" for file, template in files.items()}


def next_steps(name: str, weights: Path | None) -> str:
    """Say what to change and what to run."""
    changes = {
        "network.py": "your network in place of the example",
        "spec.yaml": "inputs, outputs, and what a variant may lose",
        "data.py": "your samples in place of the examples",
    }
    files = [file for file in changes if (MODELS / name / file).is_file()]
    if weights is None:
        first = f"models/{name}/ runs as it is. Change the places marked CHANGE:"
    else:
        first = (
            f"models/{name}/ is written. Your weights only fit your network: change the places marked CHANGE, then run:"
        )
    lines = [first, *(f"  models/{name}/{file:<12}{changes[file]}" for file in files)]
    return "\n".join([*lines, f"  make repro MODEL={name}", "docs/bring-your-own-model.md explains each step."])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="the name of the new folder below models/")
    parser.add_argument("--task", required=True, choices=TASKS, help="the kind of answer that the network gives")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="a checkpoint: a state dict or .safetensors")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="a folder with a folder of photographs for each class"
    )
    run_tool(main, parser)
