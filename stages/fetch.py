"""Fetch the model's weights and data, and check the sha256 of each file."""

from onnx_release.core.command import run_stage
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.data.fetch import fetch_sources


def main(model: str) -> None:
    fetch_sources(model, load_spec(model).sources, ModelFiles(model).raw)


if __name__ == "__main__":
    run_stage(main)
