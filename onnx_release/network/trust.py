"""Decide which files may run code while they are loaded."""

from pathlib import Path

from onnx_release.core.errors import CheckpointError
from onnx_release.core.paths import RAW
from onnx_release.core.spec import Source, load_spec
from onnx_release.data.checksums import path_sha256


def is_trusted(path: Path) -> bool:
    """Return whether the model's spec.yaml marks the file, or a folder above it, with `trusted_pickle: true`.

    Raises CheckpointError if it does, and the file or folder does not have the sha256 there.
    """
    trusted = trusted_source(path)
    if trusted is None:
        return False
    source, place = trusted
    found = path_sha256(place)
    if found != source.sha256:
        raise CheckpointError(
            f"{path} was not loaded: `trusted_pickle` is for {source.name} with the sha256 {source.sha256}, and it has "
            f"{found}. `dvc checkout` brings back what was fetched"
        )
    return True


def trusted_source(path: Path) -> tuple[Source, Path] | None:
    """Return the source marked `trusted_pickle` that `path` was fetched from, and its path in data/raw, or None."""
    try:
        # Do not follow links: DVC may have linked the file to its cache.
        model, name, *below = path.absolute().relative_to(RAW.absolute()).parts
    except ValueError:
        return None  # a file from elsewhere, which no spec declares
    if any(part.startswith(".") for part in below):
        return None  # the sha256 of a folder leaves out hidden files
    for source in load_spec(model).sources:
        if source.name == name and source.trusted_pickle:
            return source, RAW / model / name
    return None
