"""Put the released variant into a folder that runs without PyTorch and without the repository.

The folder mirrors the repository, so that the same code finds the same files from its root.
"""

import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from onnx_release.choice.metrics import SummaryMetrics
from onnx_release.core.errors import SpecError
from onnx_release.core.files import copy_file, read_json, sha256, write_json, write_text
from onnx_release.core.git import git_output
from onnx_release.core.imports import reached_files
from onnx_release.core.params import Runtime
from onnx_release.core.paths import HARDWARE, MACHINE_LOCK, MODEL_FILE, PARAMS, PIPELINE, ModelFiles
from onnx_release.core.spec import Spec, class_count, load_spec
from onnx_release.data.fetch import copy_tree
from onnx_release.data.image_folder import class_names
from onnx_release.data.metrics import PrepareMetrics
from onnx_release.graph.graph import describe_model, external_files
from onnx_release.packaging.card import ReleaseMetrics, fill, model_card
from onnx_release.packaging.packages import CONSTRAINTS, REQUIREMENTS, SERVING, pinned_packages
from onnx_release.packaging.triton import triton_config
from onnx_release.runtime.providers import CPU
from onnx_release.runtime.release import (
    FORMAT,
    LABELS,
    MANIFEST,
    NOT_RELEASED,
    RUNTIME,
    Manifest,
    open_release,
    read_labels,
)
from onnx_release.static_quantization.metrics import QuantizeStaticMetrics
from onnx_release.timing.metrics import BenchmarkMetrics
from onnx_release.validate.metrics import ValidateMetrics

SERVER = Path("serving")
# The rooms of the library that run without the pipeline. They import no other room, and only packages of a server.
CARRIED = (Path("onnx_release/core"), Path("onnx_release/data"), Path("onnx_release/runtime"))
# The paths that a data.py imports.
TYPES = Path("onnx_release/types.py")
# These files and the model's folder decide what is in a release; the rest may differ from the commit that it names.
CODE = (
    *(Path("onnx_release"), SERVER, Path("stages"), PARAMS, PIPELINE),
    *(REQUIREMENTS, CONSTRAINTS, SERVING),
)
VERSIONS = ("numpy", "onnxruntime", "pillow", "pydantic", "fastapi", "uvicorn")


def package(files: ModelFiles, runtime: Runtime, confidence: float, folder: Path) -> None:
    """Fill the empty `folder` with the release of the model, or with NOT_RELEASED.txt if no variant may be released.

    `runtime` is how the server runs the model, `confidence` that of the intervals of its validation. Raises
    SpecError if the model's folder or serving/ cannot be released, and DataError if an earlier stage has not run.
    """
    model, summary = files.model, SummaryMetrics.read(files.model)
    if summary.variant is None:
        write_text(folder / NOT_RELEASED, fill(NOT_RELEASED, model=model, reasons=summary.refused))
        return
    spec, hardware, provider = load_spec(model), read_json(HARDWARE), read_json(files.provider)["provider"]
    labels, code = label_names(files.raw, spec), code_files(model)
    packages = pinned_packages([path.as_posix() for path in code], provider)
    copy_files(files, spec, summary.variant, code, folder)
    write_json(folder / RUNTIME, runtime.model_dump())
    if labels:
        write_text(folder / LABELS, "\n".join(labels) + "\n")
    write_text(folder / f"triton/{model}/config.pbtxt", triton_config(model, spec, runtime, provider))
    minor = hardware["python"].rpartition(".")[0]
    write_text(folder / "Dockerfile", fill("Dockerfile", model=model.lower(), python=minor))
    write_text(folder / ".dockerignore", fill("dockerignore"))
    write_text(folder / "requirements.txt", package_list(packages, hardware, provider))
    metrics = read_metrics(model, summary)
    facts = {
        "format": FORMAT,
        "model": model,
        "variant": summary.variant,
        "task": spec.task,
        "git": git_state(files),
        "metrics": metrics.content(),
        "hardware": hardware,
        "versions": main_versions(hardware, packages),
        "opsets": describe_model(files.variant(summary.variant))["opsets"],
    }
    without_files = Manifest.model_validate({**facts, "files": {}})
    write_text(folder / "MODEL_CARD.md", model_card(without_files, metrics, spec, len(labels), confidence, provider))
    write_json(folder / MANIFEST, {**facts, "files": describe_files(folder)})
    open_release(folder)  # as a server would


def copy_files(files: ModelFiles, spec: Spec, variant: str, code: list[Path], folder: Path) -> None:
    """Copy the release's files from the repository: its code, sources that it reads, and the model; write its spec."""
    for path in (*code, *page_files()):
        copy_file(path, folder / path)
    write_text(folder / files.spec, spec_text(spec))
    for source in spec.sources:
        if source.release:
            copy_source(files.raw / source.name, folder / files.raw / source.name)
    onnx_file = files.variant(variant)
    for name in (MODEL_FILE, *sorted(external_files(onnx_file))):
        copy_file(onnx_file.with_name(name), folder / name)


def spec_text(spec: Spec) -> str:
    """Return the content of spec.yaml without its comments, since no stage reruns for a comment."""
    text = io.StringIO()
    YAML().dump(spec.model_dump(by_alias=True, exclude_unset=True, mode="json"), text)
    return text.getvalue()


def code_files(model: str) -> list[Path]:
    """Return the modules of `python -m serving` for this model: all of CARRIED, and the others that it imports.

    Raises SpecError if serving/ is missing.
    """
    main = SERVER / "__main__.py"
    if not main.is_file():
        raise SpecError(
            f"{main} is not there, so the release could not be served: restore it with `git restore serving`"
        )
    carried = {TYPES, *(path for room in CARRIED for path in room.rglob("*.py"))}
    modules = carried | {Path(name) for name in reached_files(main.as_posix(), model=model)}
    packages = {parent / "__init__.py" for module in modules for parent in module.parents}
    return sorted(modules | {path for path in packages if path.is_file()})


def page_files() -> list[Path]:
    """Return the files of serving/ that are no modules: the web page. Files in .dvcignore are left out."""
    files = [path for path in sorted(SERVER.rglob("*")) if path.is_file() and not path.name.startswith(".")]
    return [path for path in files if path.suffix not in (".py", ".pyc", ".partial")]


def copy_source(source: Path, target: Path) -> None:
    if source.is_dir():
        copy_tree(source, target)
    else:
        copy_file(source, target)


def label_names(raw: Path, spec: Spec) -> list[str]:
    """Return the classes' names in the order of their numbers: `labels`, or those of `images`; empty without either.

    If `images` names fewer classes than the network has, the others are named by their numbers. Raises SpecError if a
    file of labels does not have one line for each class.
    """
    if isinstance(spec.labels, str):
        return read_labels(raw / spec.labels, spec, SpecError)
    if spec.labels is not None:
        return spec.labels
    if spec.images is None:
        return []
    known = class_names(spec.images, raw)
    return [*known, *map(str, range(len(known), class_count(spec) or 0))]


def package_list(packages: dict[str, str], hardware: dict[str, Any], provider: str) -> str:
    """Write the release's requirements.txt."""
    notes = ["These are the versions that it was tested with; the list is complete."]
    if provider != CPU:
        notes.append("CUDA and cuDNN come with onnxruntime-gpu, in the versions that pip finds for it.")
    system = f"{hardware['system']} on {hardware['architecture']}"
    return fill("requirements.txt", packages=packages, notes=notes, system=system, python=hardware["python"])


def read_metrics(model: str, summary: SummaryMetrics) -> ReleaseMetrics:
    """Read the metrics of the released variant. Raises DataError if a stage has not run."""
    assert summary.variant is not None  # or there would be no release
    static = QuantizeStaticMetrics.read(model) if summary.variant == "int8_static" else None
    validation = ValidateMetrics.read(model, summary.variant)
    return ReleaseMetrics(summary, PrepareMetrics.read(model), validation, BenchmarkMetrics.read(model), static)


def main_versions(hardware: dict[str, Any], packages: dict[str, str]) -> dict[str, str]:
    """Return the versions of Python and of the packages in VERSIONS."""
    named = {name.partition("[")[0].removesuffix("-gpu"): version for name, version in packages.items()}
    return {"python": hardware["python"], **{name: named[name] for name in VERSIONS if name in named}}


def git_state(files: ModelFiles) -> dict[str, Any] | None:
    """Return the commit that is checked out, and whether CODE, the model's folder or its stages differ from it.

    None without git or a commit.
    """
    revision = git_output("rev-parse", "--verify", "HEAD")
    code = [*map(str, (*CODE, files.folder, files.pipeline)), f":(exclude){MACHINE_LOCK}"]  # which a run writes
    changes = git_output("status", "--porcelain", "--untracked-files=all", "--", *code)
    if revision is None or changes is None:
        return None
    return {"revision": revision, "modified": bool(changes)}


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the sha256 and the size in bytes of every file below `folder`, by its path there."""
    return {
        path.relative_to(folder).as_posix(): {"sha256": sha256(path), "bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
