"""Read models.yaml, the list of the models that are kept up."""

import os
from collections.abc import Sequence

from onnx_release.core.errors import ParameterError
from onnx_release.core.git import git_output
from onnx_release.core.paths import MODEL_LIST, MODELS, ModelFiles
from onnx_release.core.plain_text import first_few
from onnx_release.core.yaml_files import Strict, read_yaml

# What a model's folder must have before DVC can read its stages, and what to do without it.
NEEDED = {
    "spec.yaml": "write it as docs/bring-your-own-model.md says",
    "params.yaml": "write it, with the line `{}` if the model has no values of its own",
}

# In the stages of an experiment, DVC sets it to the commit that the experiment starts from.
BASELINE = "DVC_EXP_BASELINE_REV"


class ModelList(Strict):
    """All of models.yaml: the names of folders below models/, the first of which `make repro` runs."""

    models: list[str] | None  # None where no line is left below the key


def load_models() -> list[str]:
    """Return the listed models. Raises ParameterError for a wrong list, and for a model whose folder is not whole."""
    names = read_list()
    for name in names:
        folder = ModelFiles(name).folder
        if not folder.is_dir():
            raise ParameterError(
                f"{MODEL_LIST} lists {name}, and there is no folder {folder}: correct the name, or remove it from the "
                "list"
            )
        for file, remedy in NEEDED.items():
            if not (folder / file).is_file():
                raise ParameterError(
                    f"{MODEL_LIST} lists {name}, and {folder} has no {file}: {remedy}, or remove the name from the list"
                )
    return names


def read_list() -> list[str]:
    """Return the names on the list, whether or not they have folders. Raises ParameterError for a wrong list."""
    names = read_yaml(MODEL_LIST, ModelList, ParameterError).models or []
    if not names:
        raise ParameterError(f"{MODEL_LIST} lists no model: add a line `- NAME` for a folder below {MODELS}/")
    for name in names:
        if not (name.isascii() and name.isidentifier()):
            raise ParameterError(
                f"{MODEL_LIST} lists {name!r}, which cannot be the name of a model: use English letters, "
                f"digits and underscores, and rename the folder below {MODELS}/ if it has this name"
            )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ParameterError(f"{MODEL_LIST} lists {first_few(twice, 5)} twice: remove one of the two lines")
    return names


def refuse_shorter_list(names: Sequence[str]) -> None:
    """Raise ParameterError in an experiment of DVC that lacks a model which is listed where the experiment starts.

    `dvc exp apply` of such an experiment would take that model off the list, and its report and release with it.
    """
    baseline = os.environ.get(BASELINE)
    committed = git_output("show", f"{baseline}:./{MODEL_LIST}") if baseline else None
    if committed is None:
        return
    before = read_yaml(MODEL_LIST, ModelList, ParameterError, committed).models or []
    missing = [name for name in before if name not in names]
    if missing:
        name = names[0]
        raise ParameterError(
            f"{MODEL_LIST} of this experiment lacks {first_few(missing, 5)}, whose report and release `dvc exp apply` "
            f"would remove: run one model with `dvc exp run package@{name} report@{name}`, and bring back what DVC has "
            f"removed with `git restore {MODEL_LIST}` and `dvc checkout`. If it is removed for good, commit the list "
            "first"
        )


def unlisted_models() -> list[str]:
    """Return the names of folders with a spec.yaml below models/ that are not on the list, in order."""
    listed = read_list()
    return sorted(path.parent.name for path in MODELS.glob("*/spec.yaml") if path.parent.name not in listed)


def unlisted_note() -> str | None:
    """Return a note on models that are not kept up and what to do, or None if all are listed."""
    names = unlisted_models()
    if not names:
        return None
    return (
        f"note: not on the list in {MODEL_LIST}, and so not kept up: {first_few(names, 5)}. Add a line for each, as in "
        f"`- {names[0]}`, or remove its folder below {MODELS}/"
    )
