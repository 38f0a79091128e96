"""Write files whole or not at all, with the same bytes for the same content, and read them back."""

import csv
import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from onnx_release.core.addresses import lock_files
from onnx_release.core.errors import DataError, ReleaseError
from onnx_release.core.paths import MACHINE_PIPELINE, METRICS, MODEL_LIST, MODELS, PARAMS, PIPELINE, PIPELINES

Parsed = TypeVar("Parsed")

SIGNIFICANT_DIGITS = 6
# The first and the last line of a part that git could not merge.
CONFLICT = re.compile(r"^(<{7}|>{7}) ", re.MULTILINE)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write a file or a folder to; if the block succeeds, the result replaces `path`.

    If the block raises, `path` stays as it was and the unfinished result is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    remove(partial)
    try:
        yield partial
        if partial.is_dir() and path.exists():
            # A folder that is not empty cannot be replaced in one step.
            old = path.with_name(path.name + ".old.partial")
            remove(old)
            path.rename(old)
            try:
                partial.rename(path)
            except BaseException:
                old.rename(path)
                raise
            remove(old)
        else:
            partial.replace(path)
    except BaseException as error:
        remove(partial)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # on a full disk write() raises, without a name
        raise


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Do the same as `replacing` for a folder, which is empty at the start of the block."""
    with replacing(path) as partial:
        partial.mkdir()
        yield partial


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's content, and make the folders above `target`. Raises DataError if `source` is missing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, target)
    except FileNotFoundError as cause:
        raise DataError(f"{source} is not there: run `dvc repro`") from cause


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8 with \\n line ends, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON with sorted keys and floats of six significant digits, whole or not at all.

    Raises ValueError for NaN and infinity, which JSON does not have: the caller writes None instead.
    """
    text = json.dumps(rounded(value), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `rows`, at least one and all with the same keys, as CSV, whole or not at all.

    Floats have six significant digits, and None is empty.
    """
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows({key: six_digits(value) for key, value in row.items()} for row in rows)


def six_digits(value: Any) -> Any:
    """Return a float as text with six significant digits, and any other value as it is."""
    return f"{value:.{SIGNIFICANT_DIGITS}g}" if isinstance(value, float) else value


def read_json(path: Path) -> Any:
    """Read a JSON file that a stage has made. Raises DataError like `read_made`."""
    return read_made(path, "JSON", json.loads)


def read_made(path: Path, kind: str, parse: Callable[[str], Parsed]) -> Parsed:
    """Read a text file that a stage has made and parse it.

    Raises DataError, with the `kind` of the content, if the file is missing, damaged or in conflict.
    """
    try:
        text = path.read_text(encoding="utf-8")
        refuse_conflict(path, text, DataError)
        return parse(text)
    except FileNotFoundError as cause:
        raise DataError(f"{path} is not there: run `dvc repro`") from cause
    except ValueError as cause:
        raise DataError(f"{path} is not {kind} ({cause}): run `dvc repro`") from cause


def read_names(path: Path, error: type[ReleaseError]) -> list[str]:
    """Read the names of classes from a file in UTF-8, one on each line, without the spaces around them.

    Raises `error` if the file cannot be read or a line is empty.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as cause:
        raise error(
            f"{path} cannot be read ({cause.strerror}): it must be a text file with one class name on each line"
        ) from cause
    except ValueError as cause:
        raise error(f"{path} is not UTF-8 ({cause}): it must have one class name on each line") from cause
    names = [line.strip() for line in text.removesuffix("\n").split("\n")]
    if "" in names:
        raise error(f"line {names.index('') + 1} of {path} is empty: each line must have a class name")
    return names


def refuse_conflict(path: Path, text: str, error: type[ReleaseError]) -> None:
    """Raise `error` if git has left conflict markers in `text`, the content of `path`.

    The message names every file in conflict, written by a person or by the pipeline, and what to do with each.
    """
    if not CONFLICT.search(text):
        return
    locks = [item.as_posix() for item in lock_files() if in_conflict(item)]
    made = [*locks, *(item.as_posix() for item in sorted(METRICS.rglob("*.*")) if in_conflict(item))]
    pipelines = [PIPELINE, MACHINE_PIPELINE, *sorted(PIPELINES.glob(f"*/{PIPELINE}"))]
    written_by_hand = [PARAMS, MODEL_LIST, *pipelines, *sorted(MODELS.glob("*/*.yaml"))]
    candidates = dict.fromkeys([*written_by_hand, path])
    written = [item.as_posix() for item in candidates if in_conflict(item) and item.as_posix() not in made]
    steps = []
    if written:
        steps.append(f"edit {', '.join(written)}: keep one side of each part, and delete <<<<<<<, =======, >>>>>>>")
    if made:
        kept = " ".join([*locks, METRICS.as_posix()])
        steps.append(f"git checkout HEAD -- {kept}    # a run makes these; HEAD~ if the merge is committed")
    steps.append("make repro    # results of either branch come from DVC's cache")
    lines = "".join(f"\n  {step}" for step in steps)
    raise error(f"git could not merge {', '.join(made + written)}:{lines}\nsee Merging in docs/review.md")


def in_conflict(path: Path) -> bool:
    """Return whether `path` is a file with git's conflict markers."""
    return path.is_file() and bool(CONFLICT.search(path.read_text(encoding="utf-8", errors="replace")))


def rounded(value: Any) -> Any:
    """Return `value` with every float in it rounded to six significant digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
    return value


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size_mb(path: Path) -> float:
    """Return the size in MB (10^6 bytes) of a file, or of all files below a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6
