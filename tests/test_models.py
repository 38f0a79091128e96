"""The two models are what they say they are."""

import numpy as np
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML

from models.digits_cnn import data as digits
from models.digits_cnn.network import build
from models.mobilenet_v2 import data as photographs
from models.mobilenet_v2.network import MobileNetV2
from onnx_release.errors import DataError
from onnx_release.fetch import fetch_sources
from onnx_release.params import Prepare
from onnx_release.paths import EVALUATION
from onnx_release.samples import SampleFile, write_splits
from onnx_release.spec import Spec, load_spec
from tests.imports import ROOT


@pytest.fixture(scope="session")
def digits_raw(tmp_path_factory):
    """The sources of digits_cnn, fetched as the pipeline does."""
    folder = tmp_path_factory.mktemp("raw") / "digits_cnn"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        fetch_sources("digits_cnn", load_spec("digits_cnn").sources, folder)
    return folder


def test_digits_cnn_reads_at_least_98_percent_of_the_digits_it_never_saw(digits_raw):
    network = build(digits_raw)
    assert not network.training
    samples = list(digits.samples(digits_raw, "evaluation"))
    assert len(samples) == 500
    with torch.inference_mode():
        logits = network(torch.from_numpy(np.stack([sample.inputs["image"] for sample in samples]))).numpy()
    answers = [int(digits.postprocess({"logits": row}).labels[0]) for row in logits]
    right = np.mean([answer == sample.label for answer, sample in zip(answers, samples, strict=True)])
    assert 0.98 <= right < 1.0


def test_the_splits_of_the_digits_share_none(digits_raw):
    calibration, evaluation = (digits.load_split(digits_raw, split)[0] for split in ("calibration", "evaluation"))
    assert len(calibration) + len(evaluation) == 1797
    seen = {image.tobytes() for image in calibration}
    assert not any(image.tobytes() in seen for image in evaluation)


def test_digits_are_scaled_to_one():
    inputs = digits.preprocess(np.full((8, 8), 16.0))
    assert inputs["image"].dtype == np.float32
    assert inputs["image"].shape == (1, 8, 8)
    assert (inputs["image"] == 1).all()


def test_mobilenet_v2_has_the_published_number_of_parameters():
    network = MobileNetV2().eval()
    # torchvision's documentation of MobileNet_V2_Weights.IMAGENET1K_V1: num_params 3504872.
    assert sum(parameter.numel() for parameter in network.parameters()) == 3_504_872
    with torch.inference_mode():
        assert network(torch.zeros(2, 3, 224, 224)).shape == (2, 1000)


def test_photographs_are_normalised_by_channel():
    image = np.full((300, 400, 3), 255, np.uint8)
    inputs = photographs.preprocess(image)["input"]
    assert inputs.dtype == np.float32
    assert inputs.shape == (3, 224, 224)
    # By hand: (1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225.
    assert inputs[:, 0, 0] == pytest.approx([2.248908, 2.428571, 2.64], abs=1e-5)


def test_the_middle_of_the_photograph_is_taken():
    image = np.zeros((256, 512, 3), np.uint8)
    image[:, 256:] = 255
    row = photographs.preprocess(image)["input"][0, 100]
    assert row[0] < 0 < row[-1]
    assert np.flatnonzero(np.diff(row))[0] == 111  # the edge is in the middle of the 224


def test_a_corrupt_photograph_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = tmp_path / "raw"
    raw.mkdir()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8))
    for name in [*photographs.CALIBRATION, "imagenet_00_1.jpg", "imagenet_01_2.jpg"]:
        image.save(raw / name)
    (raw / "imagenet_01_2.jpg").write_bytes((raw / "imagenet_01_2.jpg").read_bytes()[:500])
    spec = Spec.model_validate(YAML(typ="safe").load((ROOT / "models/mobilenet_v2/spec.yaml").read_text()))
    with pytest.raises(DataError, match=r"imagenet_01_2\.jpg cannot be read as an image"):
        write_splits(photographs, raw, spec, Prepare(calibration=7, evaluation=2))
    assert not list(tmp_path.glob("data/prepared/*"))
    image.save(raw / "imagenet_01_2.jpg")
    write_splits(photographs, raw, spec, Prepare(calibration=7, evaluation=2))
    assert SampleFile(EVALUATION).labels.tolist() == [1, 2]


def test_crops_are_drawn_by_their_seed():
    image = np.random.default_rng(0).integers(0, 255, (120, 90, 3), np.uint8)
    crops = [photographs.random_crop(image, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert crops[0].shape == (3, 224, 224)
    assert (crops[0] == crops[1]).all()
    assert (crops[0] != crops[2]).any()
