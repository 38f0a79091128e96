"""Write models/NAME/ for a new model: a spec.yaml, a network.py and a data.py, for you to change; and run it once.

With --network, the network is built and run, and spec.yaml has its inputs, outputs and sizes; what it cannot tell is
marked CHANGE. With --images, the photographs take the place of data.py. It also adds a line for the model to
models.yaml, and writes pipelines/NAME/dvc.yaml, which has the model's stages. It writes nothing else, and if anything
fails, nothing at all. Then it runs what it has written, on a sample and at two sizes; if that fails, it says why.
"""

import argparse
import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dvc.utils.serialize import modify_yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from onnx_release.core.command import run_tool
from onnx_release.core.errors import ParameterError, SourceError, SpecError
from onnx_release.core.files import remove, replacing_folder, write_text
from onnx_release.core.model_list import ModelList
from onnx_release.core.paths import MODEL_LIST, MODELS, PIPELINES, ModelFiles
from onnx_release.core.spec import Spec, load_spec
from onnx_release.core.yaml_files import read_yaml
from onnx_release.data.checksums import path_sha256
from onnx_release.data.image_folder import ImageFolder, sorted_classes, split_folders
from tools.first_run import why_it_fails

TASKS = ("classification", "detection", "embedding", "tensor")
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    autoescape=False,
)
IMAGENET: dict[str, Any] = {"resize": 256, "crop": 224, "interpolation": "bilinear", "mark": "CHANGE: "}
IMAGENET |= {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def main(arguments: argparse.Namespace) -> None:
    if arguments.network is None and arguments.task is None:
        raise SpecError("give --network, and the spec is read from it; or --task, and examples are written")
    if arguments.network is None and arguments.input:
        raise SpecError("--input is for --network: leave it out")
    write_model(arguments.name, arguments.task, arguments.weights, arguments.images, arguments.network, arguments.input)
    print(outcome(arguments.name, arguments.weights is not None, arguments.network is None))


def write_model(
    name: str,
    task: str | None,
    weights: Path | None = None,
    images: Path | None = None,
    network: str | None = None,
    inputs: Sequence[str] = (),
) -> None:
    """Write models/`name`/ and pipelines/`name`/dvc.yaml, and list the model: all of it or nothing.

    `network` and its example `inputs` are as in `onnx_release.network.named_network.open_network`. Raises SpecError for
    a name that is not allowed or taken, ParameterError for a list that takes no line, SourceError and DataError for
    weights and photographs that are missing or unusable, and NetworkError or CheckpointError for a network that is not
    there or does not run.
    """
    folder = MODELS / name
    check_name(name, folder)
    listed = list_with(name)
    values, code = initial_values(name, task, network, inputs)
    add_sources(values, folder, weights, images)
    pipeline = ModelFiles(name).pipeline
    with removed_on_failure(folder, PIPELINES, pipeline.parent, pipeline):
        with replacing_folder(folder) as partial:
            for file, text in (texts(values) | code).items():
                (partial / file).write_text(text, encoding="utf-8", newline="\n")
            with modify_yaml(partial / "spec.yaml"):
                pass  # rewrites the file in the style in which `dvc exp run -S` does
            spec = read_yaml(partial / "spec.yaml", Spec, SpecError)
            if images is not None:
                ImageFolder(spec).read_splits(images.resolve().parent)  # the same check as in the pipeline
        write_text(pipeline, pipeline_text(name))
        write_text(MODEL_LIST, listed)


def add_sources(values: dict[str, Any], folder: Path, weights: Path | None, images: Path | None) -> None:
    """Add to the values of the templates what weights and photographs say. Raises what `write_model` says of them."""
    if images is not None and values["task"] != "classification":
        raise SpecError(f"--images is for --task classification, and the task is {values['task']}: leave it out")
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


def initial_values(
    name: str, task: str | None, network: str | None, inputs: Sequence[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the values of the templates without weights and images, and code to write beside them, by file name."""
    values: dict[str, Any] = {"name": name, "task": task, "sources": [], "checkpoint": ""}
    values |= {"images": "", "classes": [], "official": None}
    if network is None:
        return values, {}
    from tools.network_values import read_network  # it needs torch

    read = read_network(network, inputs, name, task)
    values |= {"task": read.task, "found": read.values}
    values["sources"] = [source_entry(path, MODELS / name) for path in read.files]
    return values, read.code


def check_name(name: str, folder: Path) -> None:
    if not (name.isascii() and name.isidentifier()):
        raise SpecError(f"{name!r} cannot be a model's name: use English letters, digits and underscores, as in my_net")
    if not MODELS.is_dir():
        raise SpecError("there is no folder models/ here: run this from the repository root")
    if folder.exists():
        raise SpecError(f"{folder} already exists: choose another name, or remove it")


def list_with(name: str) -> str:
    """Return the text of models.yaml with a line for the model at its end, if it has none.

    All else stays as it is. Raises ParameterError if the list cannot be read, or is not written one name a line.
    """
    before = read_yaml(MODEL_LIST, ModelList, ParameterError).models or []
    text = MODEL_LIST.read_text(encoding="utf-8")
    if name in before:
        return text
    indents = re.findall(r"^( *)- ", text, re.MULTILINE) or [""]
    added = "\n".join([text.removesuffix("\n"), f"{indents[-1]}- {name}\n"])
    with contextlib.suppress(ParameterError):
        if read_yaml(MODEL_LIST, ModelList, ParameterError, added).models == [*before, name]:
            return added
    lines = "".join(f"\n- {listed}" for listed in [*before, name])
    raise ParameterError(f"{MODEL_LIST} takes no line for {name}: write the list with one name a line,\nmodels:{lines}")


@contextlib.contextmanager
def removed_on_failure(*paths: Path) -> Iterator[None]:
    """Remove those of the paths that are not there before the block, if it raises."""
    absent = [path for path in paths if not path.exists()]
    try:
        yield
    except BaseException:
        for path in absent:
            remove(path)
        raise


def source_entry(path: Path, folder: Path) -> dict[str, str]:
    """Return a file or folder as an entry of `sources`, with YAML values and a path from the model's folder on."""
    resolved = path.resolve()
    return {
        "name": json.dumps(resolved.name, ensure_ascii=False),
        "sha256": path_sha256(resolved),
        "path": json.dumps(Path(os.path.relpath(resolved, folder.resolve())).as_posix(), ensure_ascii=False),
    }


def texts(values: dict[str, Any]) -> dict[str, str]:
    """Return the text of every file of the model's folder, by its name."""
    task, found = values["task"], values.get("found")
    files = {"spec.yaml": "spec.jinja", "params.yaml": "params.jinja"}
    if found is None or found["kind"] in ("function", "timm"):  # a source is the network if not
        files["network.py"] = "found_network.jinja" if found else f"{task}_network.jinja"
    if not values["images"]:
        examples = "detection_data.jinja" if task == "detection" else "digits_data.jinja"
        files["data.py"] = "found_data.jinja" if found else examples
    values = {"found": None, "pictures": pictures(found), **values}
    return {file: rendered(template, values) for file, template in files.items()}


def pictures(found: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return how pictures are prepared: as the network found says, or as for ImageNet at its size."""
    if not found:
        return IMAGENET
    if found["settings"]:
        return {**found["settings"], "mark": ""}
    shape = found["inputs"][0]["shape"]
    crop = shape[-1] if isinstance(shape[-1], int) else IMAGENET["crop"]
    grey = len(shape) == 4 and shape[1] == 1
    values = {"mean": [0.5], "std": [0.5]} if grey else {}
    return {**IMAGENET, "crop": crop, "resize": crop * 256 // 224, **values}


def pipeline_text(name: str) -> str:
    """Return the text of pipelines/`name`/dvc.yaml, the same for every model except for the name."""
    return rendered("pipeline.jinja", {"name": name})


def rendered(template: str, values: Mapping[str, Any]) -> str:
    """Return the text of a template with these values."""
    return TEMPLATES.get_template(template).render(values).rstrip() + "\n"


def outcome(name: str, weights: bool, example: bool) -> str:
    """Run models/`name`, and say how it is and what to do next; not where it is an `example` and has own `weights`.

    Raises SpecError if it fails.
    """
    written = f"models/{name}/ is written, and {MODEL_LIST} lists it"
    steps = next_steps(name, example)
    if weights and example:
        return f"{written}. Your weights only fit your network: change the places marked CHANGE, then run:\n{steps}"
    absent = [source.name for source in load_spec(name).sources if source.origin.path is None]
    if absent:
        why = f"since the pipeline downloads {', '.join(absent)}"
        return f"{written}. It has not been run, {why}. Change the places marked CHANGE:\n{steps}"
    reason = why_it_fails(name)
    if reason is not None:
        raise SpecError(
            f"{written}, but it does not run: {reason}\nChange that, and the places marked CHANGE, then run:\n{steps}"
        )
    return f"models/{name}/ runs as it is, and {MODEL_LIST} lists it. Change the places marked CHANGE:\n{steps}"


def next_steps(name: str, example: bool) -> str:
    """Say what to change in which file, the network being an example or one that was found, and what to run."""
    changes = {
        "network.py": "your network in place of the example" if example else "how the network is built",
        "spec.yaml": ("inputs, outputs" if example else "sizes, names") + ", and what a variant may lose",
        "data.py": "your samples in place of the examples",
    }
    files = [file for file in changes if "CHANGE" in read_if_there(MODELS / name / file)]
    lines = [f"  models/{name}/{file:<12}{changes[file]}" for file in files]
    return "\n".join([*lines, f"  make repro MODEL={name}", "docs/bring-your-own-model.md explains each step."])


def read_if_there(path: Path) -> str:
    """Return the text of a file; nothing if it is not there."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="the name of the new folder below models/")
    parser.add_argument("--task", choices=TASKS, help="the kind of answer that the network gives")
    parser.add_argument(
        "--network",
        help="what builds the network: MODULE:FUNCTION, timm:NAME, transformers:FOLDER, or a .pt2 or TorchScript file",
    )
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=DTYPE[SIZES]",
        help="an example of an input of --network, such as image=float32[2,3,224,224]; once for each",
    )
    parser.add_argument("--weights", type=Path, metavar="FILE", help="a checkpoint: a state dict or .safetensors")
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="a folder with a folder of photographs for each class"
    )
    run_tool(main, parser)
