"""Write models/NAME/ for a new model: a spec.yaml, a network.py and a data.py that run at once, to change line by line.

Nothing outside of models/NAME/ is touched. With --images, the photographs stand in for data.py.
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

    Raises SpecError for a name that cannot be or is taken, SourceError and DataError for weights and photographs that
    are not there or not as they should be.
    """
    folder = MODELS / name
    check_name(name, folder)
    if images is not None and task != "classification":
        raise SpecError(f"--images: folders of photographs are classes, and the task is {task}: leave it out")
    values: dict[str, Any] = {"name": name, "task": task, "sources": [], "checkpoint": ""}
    values |= {"images": "", "classes": [], "official": None}
    if weights is not None:
        if not weights.is_file():
            raise SourceError(f"there is no file {weights}: --weights is a checkpoint")
        values["sources"].append(source_of(weights, folder))
        values["checkpoint"] = json.dumps(weights.name, ensure_ascii=False)
    if images is not None:
        values["classes"] = [json.dumps(label, ensure_ascii=False) for label in sorted_classes(images)]
        values["official"] = split_folders(images)
        values["sources"].append(source_of(images, folder))
        values["images"] = values["sources"][-1]["name"]
    with replacing_folder(folder) as partial:
        for file, text in texts(values).items():
            (partial / file).write_text(text, encoding="utf-8", newline="\n")
        with modify_yaml(partial / "spec.yaml"):
            pass  # names are quoted and folded now as they are when `dvc exp run -S` sets a value
        spec = read_yaml(partial / "spec.yaml", Spec, SpecError)
        if images is not None:
            ImageFolder(spec).read_splits(images.resolve().parent)  # as the pipeline will


def check_name(name: str, folder: Path) -> None:
    if not name.isidentifier():
        raise SpecError(f"{name!r} cannot be the name of a model: it is letters, digits and underscores, as in my_net")
    if not MODELS.is_dir():
        raise SpecError("there is no folder models/ here: run this from the repository root")
    if folder.exists():
        raise SpecError(f"{folder} is there already: choose another name, or remove it")


def source_of(path: Path, folder: Path) -> dict[str, str]:
    """A file or folder as an entry of `sources`: its path starts at the model's folder, and all are YAML."""
    resolved = path.resolve()
    return {
        "name": json.dumps(resolved.name, ensure_ascii=False),
        "sha256": path_sha256(resolved),
        "path": json.dumps(Path(os.path.relpath(resolved, folder.resolve())).as_posix(), ensure_ascii=False),
    }


def texts(values: dict[str, Any]) -> dict[str, str]:
    """The text of every file of the model, by its name."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    task = values["task"]
    files = {"spec.yaml": "spec.jinja", "network.py": f"{task}_network.jinja"}
    if not values["images"]:
        files["data.py"] = "detection_data.jinja" if task == "detection" else "digits_data.jinja"
    return {file: environment.get_template(template).render(values).rstrip() + "\n" for file, template in files.items()}


def next_steps(name: str, weights: Path | None) -> str:
    """What to change and what to run, for a person."""
    changes = {
        "network.py": "your network in place of the one there",
        "spec.yaml": "what goes in and comes out, and what a variant may lose",
        "data.py": "your samples in place of the ones there",
    }
    files = [file for file in changes if (MODELS / name / file).is_file()]
    if weights is None:
        first = f"models/{name}/ runs as it is. Make it yours where CHANGE stands:"
    else:
        first = (
            f"models/{name}/ is there. Your weights fit your network alone: change what is marked CHANGE, then run it:"
        )
    lines = [first, *(f"  models/{name}/{file:<12}{changes[file]}" for file in files)]
    return "\n".join(
        [*lines, f"  make repro MODEL={name}", "docs/bring-your-own-model.md goes through it step by step."]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="of the new folder below models/")
    parser.add_argument("--task", required=True, choices=TASKS, help="what kind of answer the network gives")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="a checkpoint: a state dict or .safetensors")
    parser.add_argument("--images", type=Path, metavar="DIR", help="photographs in a folder for each class")
    run_tool(main, parser)
