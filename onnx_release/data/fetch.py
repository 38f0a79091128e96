"""Fetch the files and folders that a model's spec declares, and check the sha256 of each."""

import http.client
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from onnx_release.core.command import NO_SPACE
from onnx_release.core.errors import SourceError, StorageError
from onnx_release.core.files import replacing_folder
from onnx_release.core.paths import MODELS
from onnx_release.core.spec import Source
from onnx_release.data.checksums import Digest, path_sha256, remembered, tree_files

URL_TIMEOUT_SECONDS = 60


def ensure_sources(model: str, sources: list[Source], folder: Path) -> None:
    """Fetch the sources to `folder` unless it has all of them as the spec declares them.

    Raises SourceError as `fetch_sources` does, and for a changed path even if nothing needs to be fetched.
    """
    refuse_changed(model, sources)
    if not holds_all(folder, sources):
        fetch_sources(model, sources, folder)


def fetch_sources(model: str, sources: list[Source], folder: Path) -> None:
    """Fill `folder` with every source under its name; `folder` is replaced only when all are there and right.

    Raises SourceError for a source that cannot be fetched or is not the declared one.
    """
    refuse_changed(model, sources)
    with replacing_folder(folder) as partial, tempfile.TemporaryDirectory() as downloads:
        # Sources on this machine first, so that a missing one is reported before anything is downloaded.
        for source in sorted(sources, key=lambda source: source.origin.path is None):
            target = partial / source.name
            fetch_source(model, source, target, Path(downloads))
            found = path_sha256(target)
            if found != source.sha256:
                raise SourceError(
                    f"{source.name} has the sha256 {found}, models/{model}/spec.yaml declares {source.sha256}: "
                    "the file is damaged or another version. Declare the new sum only if you trust it"
                )


def refuse_changed(model: str, sources: list[Source]) -> None:
    """Raise one SourceError for all files and folders under `path` that differ from the spec's declaration.

    `fetch_source` deals with a missing one: if it was fetched before, that copy has the declared sum.
    """
    changed = []
    with remembered() as digest:
        for source in sources:
            found = origin_sha256(model, source, digest)
            if found not in (None, source.sha256):
                changed.append(
                    f"{origin_path(model, source)} has the sha256 {found}, models/{model}/spec.yaml declares "
                    f"{source.sha256} for the source {source.name}: it has changed, or is another one. If it is what "
                    f"you want, put this in place of the declared sum:\n    sha256: {found}"
                )
    if changed:
        raise SourceError("\n".join(changed))


def sums_on_disk(model: str, sources: list[Source]) -> dict[str, str]:
    """Return the present sha256 of every source under `path`, by the source's name.

    A source that cannot be read has the reason instead of a sum. A missing one has the declared sum: if it was fetched
    before, on this machine or on one that shares DVC's cache, nothing has to be fetched.
    """
    sums = {}
    with remembered() as digest:
        for source in sources:
            if source.origin.path is None:
                continue
            try:
                sums[source.name] = origin_sha256(model, source, digest) or source.sha256
            except SourceError as error:
                sums[source.name] = str(error)
    return sums


def origin_sha256(model: str, source: Source, digest: Digest) -> str | None:
    """Return the sha256 of the source's `path`; None if there is nothing, or the source is not from a path.

    Raises SourceError for a path that cannot be read or expanded, or a folder that `tree_files` refuses.
    """
    path = origin_path(model, source)
    try:
        if path is None or not (path.is_file() or path.is_dir()):
            return None
        return path_sha256(path, digest)
    except OSError as cause:
        unread = cause.filename or path
        raise SourceError(f"{unread} cannot be read ({cause.strerror}): check its permissions") from cause


def origin_path(model: str, source: Source) -> Path | None:
    """Return the path of a source that has one; a relative path starts at the model's folder.

    Raises SourceError for a ~ without a home directory.
    """
    if source.origin.path is None:
        return None
    try:
        return MODELS / model / Path(source.origin.path).expanduser()
    except RuntimeError as cause:
        raise SourceError(
            f"{source.origin.path}: ~ has no home directory on this machine: write the full path in "
            f"models/{model}/spec.yaml"
        ) from cause


def holds_all(folder: Path, sources: list[Source]) -> bool:
    """Return whether every source is in `folder` with its declared sha256."""
    with remembered() as digest:
        try:
            return all(path_sha256(folder / source.name, digest) == source.sha256 for source in sources)
        except (SourceError, FileNotFoundError):
            return False


def fetch_source(model: str, source: Source, target: Path, downloads: Path) -> None:
    """Write one source to `target`, unchecked; a wheel is downloaded to `downloads` once for all of its files."""
    origin, path = source.origin, origin_path(model, source)
    if origin.wheel is not None and origin.member is not None:
        copy_member(download_wheel(origin.wheel, downloads), origin.member, target)
    elif origin.url is not None:
        download(origin.url, target)
    elif path is not None:
        if path.is_dir():
            copy_tree(path, target)
        elif path.is_file():
            shutil.copyfile(path, target)
        else:
            raise SourceError(f"{source.name}: there is no file or folder {path}, as models/{model}/spec.yaml declares")


def copy_tree(folder: Path, target: Path) -> None:
    """Copy the files that `tree_files` lists to the same places below `target`."""
    for path in tree_files(folder):
        copy = target / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def download_wheel(requirement: str, downloads: Path) -> Path:
    """Download the wheel for `requirement` with pip and pip's own settings for index, proxy and retries."""
    folder = downloads / requirement
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), requirement]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            if any(f"[Errno {number}]" in result.stderr for number in NO_SPACE):
                raise StorageError(
                    f"no space left for {requirement}, which pip downloads to {downloads}: free some, or name a folder "
                    "with more space in the environment variable TMPDIR, and run it again"
                )
            lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or [result.stderr.strip()]
            raise SourceError(
                f"pip cannot download {requirement}: {lines[-1]}\n"
                "Check the network, and pip's index and proxy settings (`pip config list`)"
            )
    return next(folder.glob("*.whl"))


def copy_member(wheel: Path, member: str, target: Path) -> None:
    """Copy a file out of a wheel. Raises SourceError if it is not in it."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
    except KeyError as cause:
        raise SourceError(f"{wheel.name} has no member {member}") from cause
    except zipfile.BadZipFile as cause:
        raise SourceError(f"{wheel.name} is damaged ({cause}): fetch it again") from cause


def download(url: str, target: Path) -> None:
    """Download a URL to `target`. Raises SourceError if that fails."""
    try:
        with urllib.request.urlopen(url, timeout=URL_TIMEOUT_SECONDS) as response, target.open("wb") as file:
            shutil.copyfileobj(response, file)
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ValueError) as cause:
        raise SourceError(f"cannot download {url} ({cause}): check the address and the network") from cause
