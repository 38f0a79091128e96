"""Write pipelines/NAME/dvc.yaml, the stages of a model, for every model on the list or with such a file.

The stages are the same for every model. To change them, change tools/templates/pipeline.jinja, then run this; so does
whoever adds a model to models.yaml by hand.
"""

import argparse

from onnx_release.core.command import run_tool
from onnx_release.core.files import write_text
from onnx_release.core.model_list import read_list
from onnx_release.core.paths import PIPELINE, PIPELINES, ModelFiles
from tools.new_model import pipeline_text


def main(_: argparse.Namespace) -> None:
    there = [path.parent.name for path in PIPELINES.glob(f"*/{PIPELINE}")]
    for name in dict.fromkeys([*read_list(), *there]):
        write_text(ModelFiles(name).pipeline, pipeline_text(name))


if __name__ == "__main__":
    run_tool(main, argparse.ArgumentParser(description=__doc__))
