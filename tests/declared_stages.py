"""The stages of a model, as pipelines/NAME/dvc.yaml and the dvc.yaml of the root declare them."""

from typing import Any

from ruamel.yaml import YAML

from onnx_release.core.paths import PIPELINE
from tests.imports import ROOT
from tools.new_model import pipeline_text


def declared_stages(model: str) -> dict[str, dict[str, Any]]:
    """Each stage by its name, without its model; those of the root come last."""
    root = (ROOT / PIPELINE).read_text(encoding="utf-8").replace("${item.model}", model)
    return {**stages_in(pipeline_text(model)), **stages_in(root)}


def stages_in(text: str) -> dict[str, dict[str, Any]]:
    """The stages of the text of a dvc.yaml."""
    return dict(YAML(typ="safe").load(text)["stages"])
