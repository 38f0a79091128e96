"""What takes every model to a release finds all of them, and tells a release that answers from one that does not."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_release.errors import ReleaseFolderError
from onnx_release.paths import EVALUATION, RELEASE, variant_model
from onnx_release.samples import write_samples
from onnx_release.spec import load_spec
from onnx_release.types import Sample
from tests.clone import run
from tests.imports import ROOT
from tests.picture_release import digits_release
from tests.release_project import MODEL
from tests.served import serving
from tools.new_model import TASKS
from tools.releases import NEW_MODELS, ask, check, models_below


def test_every_folder_below_models_is_taken_and_every_task_of_new_model(tmp_path):
    for name in ("net", "another", "__pycache__"):
        (tmp_path / "models" / name).mkdir(parents=True)
    (tmp_path / "models/notes.txt").write_text("")
    assert models_below(tmp_path) == ["another", "net"]
    assert {options[options.index("--task") + 1] for options in NEW_MODELS.values()} == set(TASKS)
    assert {word for options in NEW_MODELS.values() for word in options} >= {"--images", "--weights"}
    assert "\nmake releases" in (ROOT / ".ci/run").read_text()


def test_a_model_that_there_is_not_is_named(tmp_path):
    result = run(ROOT, "tools.releases", "digits_rnn")
    assert result.returncode == 1
    assert result.stderr.startswith("error: there is no model digits_rnn to release: there are digits_cnn, ")


def test_what_a_command_has_printed_is_in_the_error():
    with pytest.raises(ReleaseFolderError, match=r"No module named stages\.nothing"):
        check(run(ROOT, "stages.nothing"))


def test_a_release_answers_as_the_pipeline_does_or_it_is_an_error(tmp_path, monkeypatch):
    digits_release(tmp_path)
    monkeypatch.chdir(tmp_path)
    spec = load_spec(MODEL)
    write_samples(EVALUATION, [Sample({"image": np.full((1, 8, 8), 0.25, np.float32)})], 1, spec)
    with serving(tmp_path / RELEASE) as server:
        ask(server, MODEL, spec, "int8_static")
        model = onnx.load(variant_model("fp16"))
        weights = next(one for one in model.graph.initializer if one.name == "weights")
        weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) + np.float32(2), "weights"))
        onnx.save(model, variant_model("fp16"))
        # The picture's mean is 0.25, so that each logit is 0.5 more than the release has it.
        with pytest.raises(ReleaseFolderError, match=r"the output logits is not the pipeline's, off by 0\.5"):
            ask(server, MODEL, spec, "fp16")
        with pytest.raises(ReleaseFolderError, match=r"/v2/models/net/infer gives 404"):
            ask(server, "net", spec, "int8_static")
