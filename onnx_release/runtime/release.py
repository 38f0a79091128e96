"""Open a release, the folder that the package stage makes, if every file in it is the one that was released."""

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from onnx_release.core.errors import ReleaseError, ReleaseFolderError
from onnx_release.core.files import read_names, sha256
from onnx_release.core.params import Runtime
from onnx_release.core.paths import MODEL_FILE, ModelFiles
from onnx_release.core.plain_text import count_of
from onnx_release.core.spec import Spec, Task, class_count
from onnx_release.core.yaml_files import Strict, describe_problems, read_yaml

# The files of a release, relative to its folder; the path of the folder is in onnx_release/core/paths.py.
MANIFEST = "MANIFEST.json"
NOT_RELEASED = "NOT_RELEASED.txt"
RUNTIME = "runtime.json"
LABELS = "labels.txt"
FORMAT = 1


class File(Strict):
    """The sha256 and the size in bytes of a file."""

    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class Git(Strict):
    """The commit at packaging time; `modified` if any file of the release differed from it."""

    revision: str
    modified: bool


class Manifest(Strict):
    """MANIFEST.json: the content of the release, and what it was made from.

    `files` are all other files in the folder, by their paths in it with slashes. `metrics` are the variant's metrics,
    `hardware` is the machine of the timings, `versions` are those of Python and the packages, `opsets` those of the
    model's operator sets. Without git, `git` is None.
    """

    format: Literal[1]
    model: str
    variant: str
    task: Task
    files: dict[str, File]
    git: Git | None
    metrics: dict[str, Any]
    hardware: dict[str, Any]
    versions: dict[str, str]
    opsets: dict[str, int]

    @field_validator("files")
    @classmethod
    def stay_in_the_folder(cls, files: dict[str, File]) -> dict[str, File]:
        for name in files:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or path.as_posix() != name or "\\" in name or ":" in name:
                raise ValueError(f"the path {name!r} is outside of the folder or not in its plain form")
        return files


@dataclass(frozen=True)
class Release:
    """A verified release; `model` is the path of its model.onnx, `labels` are the names of its classes, if any."""

    folder: Path
    manifest: Manifest
    spec: Spec
    labels: list[str] | None
    runtime: Runtime
    model: Path


def open_release(folder: Path) -> Release:
    """Open the release in `folder`, and check the sha256 of every file in its manifest.

    Raises ReleaseFolderError with the first file that is missing or differs, and if nothing was released.
    """
    manifest = read_manifest(folder)
    check_manifest_model(folder, manifest)
    for name, file in sorted(manifest.files.items()):
        check_released_file(folder, name, file)
    spec = read_yaml(folder / ModelFiles(manifest.model).spec, Spec, ReleaseFolderError)
    labels = read_labels(folder / LABELS, spec, ReleaseFolderError) if LABELS in manifest.files else None
    return Release(folder, manifest, spec, labels, read_runtime(folder), folder / MODEL_FILE)


def read_manifest(folder: Path) -> Manifest:
    """Read MANIFEST.json. Raises ReleaseFolderError if it is missing or damaged, or nothing was released."""
    if not folder.is_dir():
        raise ReleaseFolderError(f"there is no folder {folder}: `make repro` makes a release in artifacts/NAME/release")
    if (folder / NOT_RELEASED).is_file():
        reason = (folder / NOT_RELEASED).read_text(encoding="utf-8", errors="replace").strip()
        raise ReleaseFolderError(f"{folder_name(folder)} has no release. {reason}")
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as cause:
        raise ReleaseFolderError(
            f"{path} is not there: this is not a release. Run this in the folder of one, such as artifacts/NAME/release"
        ) from cause
    except OSError as cause:
        raise ReleaseFolderError(f"{path} cannot be read ({cause.strerror}): make it readable") from cause
    except ValueError as cause:  # not UTF-8, too
        raise ReleaseFolderError(f"{path} is not JSON ({cause}): fetch the release again") from cause
    if isinstance(content, dict) and content.get("format", FORMAT) != FORMAT:
        raise ReleaseFolderError(
            f"{path} has the format {content['format']!r}, and this code reads {FORMAT}: run the release with the code "
            "in its own folder"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as cause:
        problems = "; ".join(describe_problems(cause, Manifest))
        raise ReleaseFolderError(f"{path} is not a release's manifest ({problems}): fetch the release again") from cause


def check_manifest_model(folder: Path, manifest: Manifest) -> None:
    """Raise ReleaseFolderError if the manifest is of another model, or lacks files that a release needs."""
    here = sorted(path.parent.name for path in folder.glob("models/*/spec.yaml"))
    places = [name.split("/") for name in sorted(manifest.files)]
    listed = [parts[1] for parts in places if len(parts) == 3 and parts[0] == "models" and parts[2] == "spec.yaml"]
    for names, holder in ((listed, "lists the files of"), (here, "is beside the files of")):
        if names and names != [manifest.model]:
            raise ReleaseFolderError(
                f"{folder / MANIFEST} is of the model {manifest.model}, but {holder} {', '.join(names)}: "
                "fetch the release again, into a folder of its own"
            )
    needed = (MODEL_FILE, RUNTIME, ModelFiles(manifest.model).spec.as_posix())
    missing = [name for name in needed if name not in manifest.files]
    if missing:
        raise ReleaseFolderError(f"{folder / MANIFEST} does not list {', '.join(missing)}: fetch the release again")


def check_released_file(folder: Path, name: str, file: File) -> None:
    """Raise ReleaseFolderError unless the file is there and is the one that was released."""
    path = folder / name
    if not path.is_file():
        raise ReleaseFolderError(f"{path} is missing: {MANIFEST} lists it. Fetch the release again")
    found = sha256(path)
    if found != file.sha256:
        size = path.stat().st_size
        sizes = f", {count_of(size, 'byte')} in place of {file.bytes}" if size != file.bytes else ""
        raise ReleaseFolderError(
            f"{path} is not the file that was released: its sha256 is {found}, in {MANIFEST} {file.sha256}{sizes}. "
            "Fetch the release again"
        )


def read_labels(path: Path, spec: Spec, error: type[ReleaseError]) -> list[str]:
    """Read the names of the classes, one on each line. Raises `error` if one is empty or their number is wrong."""
    names, count = read_names(path, error), class_count(spec)
    if count is not None and len(names) != count:
        raise error(f"{path} has {count_of(len(names), 'name')}, {spec.outputs[0].name} has {count_of(count, 'class')}")
    return names


def read_runtime(folder: Path) -> Runtime:
    """Read the runtime settings of a release. Raises ReleaseFolderError if they are missing or damaged."""
    try:
        return Runtime.model_validate_json((folder / RUNTIME).read_text(encoding="utf-8"))
    except ValueError as cause:  # pydantic's ValidationError, too
        raise ReleaseFolderError(f"{folder / RUNTIME} has no runtime settings: {cause}") from cause


def folder_name(folder: Path) -> str:
    """Return the folder for a message."""
    return "this folder" if folder == Path() else str(folder)
