"""The two models are what they say they are."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML

from models.digits_cnn import data as digits
from models.digits_cnn.network import build
from models.mobilenet_v2 import data as photographs
from models.mobilenet_v2.network import MobileNetV2
from onnx_release.core.errors import DataError
from onnx_release.core.params import Prepare
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Spec, load_spec
from onnx_release.data.samples import SampleFile, check_sample, write_splits
from tests.imports import ROOT


@pytest.fixture
def root(monkeypatch):
    """The repository as the working directory."""
    monkeypatch.chdir(ROOT)


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


def test_the_evaluation_split_is_the_one_that_the_weights_have_not_seen(digits_raw):
    # Another draw would judge the network by what it was trained on, and look no worse for it.
    labels = digits.load_split(digits_raw, "evaluation")[1]
    assert labels[:12].tolist() == [2, 0, 7, 0, 2, 2, 2, 9, 5, 9, 0, 5]
    assert np.bincount(labels).tolist() == [43, 58, 55, 47, 51, 43, 43, 55, 47, 58]


def test_the_splits_of_the_digits_hold_about_as_much_of_each(digits_raw):
    for split in ("calibration", "evaluation"):
        labels = digits.load_split(digits_raw, split)[1]
        shares = np.bincount(labels, minlength=10) / len(labels)
        assert (shares > 0.07).all()
        assert (shares < 0.13).all()


def test_every_digit_is_what_the_spec_declares(digits_raw, root):
    spec = load_spec("digits_cnn")
    for split in ("calibration", "evaluation"):
        for sample in digits.samples(digits_raw, split):
            check_sample(sample, split, spec)
            assert 0 <= sample.inputs["image"].min() < 0.5 < sample.inputs["image"].max() <= 1
            assert sample.label in range(10)
            assert sample.group is None


def test_a_digit_is_the_row_of_the_file_that_its_label_is_from(digits_raw):
    table = np.loadtxt(digits_raw / digits.DIGITS, delimiter=",")
    labels = {tuple(row[:-1]): int(row[-1]) for row in table}
    for sample in itertools.islice(digits.samples(digits_raw, "evaluation"), 50):
        assert labels[tuple((sample.inputs["image"] * 16).ravel())] == sample.label


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
        output = network(torch.zeros(2, 3, 224, 224))
        features = network.features(torch.zeros(1, 3, 224, 224))
    assert output.shape == (2, 1000)
    assert output.dtype == torch.float32
    assert features.shape == (1, 1280, 7, 7)  # table 2 of the paper
    modules = list(network.modules())
    assert sum(isinstance(module, torch.nn.ReLU6) for module in modules) == 52 - 17  # none after a projection
    assert sum(getattr(module, "residual", False) for module in modules) == 1 + 2 + 3 + 2 + 2


def test_mobilenet_v2_has_torchvision_s_names():
    state = MobileNetV2().state_dict()
    # By hand: 52 convolutions, as many normalisations of five tensors, and a layer with a bias.
    assert len(state) == 52 + 52 * 5 + 2
    shapes = {
        "features.0.0.weight": (32, 3, 3, 3),
        "features.1.conv.1.weight": (16, 32, 1, 1),
        "features.2.conv.0.0.weight": (96, 16, 1, 1),
        "features.17.conv.1.0.weight": (960, 1, 3, 3),
        "features.17.conv.3.running_var": (320,),
        "features.18.0.weight": (1280, 320, 1, 1),
        "classifier.1.weight": (1000, 1280),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


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
    files = ModelFiles("mobilenet_v2")
    files.raw.mkdir(parents=True)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (256, 256, 3), np.uint8))
    for name in [*photographs.CALIBRATION_SAMPLES, "imagenet_00_1.jpg", "imagenet_01_2.jpg"]:
        image.save(files.raw / name)
    (files.raw / "imagenet_01_2.jpg").write_bytes((files.raw / "imagenet_01_2.jpg").read_bytes()[:500])
    spec = Spec.model_validate(YAML(typ="safe").load((ROOT / files.spec).read_text()))
    with pytest.raises(DataError, match=r"imagenet_01_2\.jpg cannot be read as an image"):
        write_splits(photographs, files, spec, Prepare(calibration=7, evaluation=2))
    assert not list(tmp_path.glob("data/prepared/*/*"))
    image.save(files.raw / "imagenet_01_2.jpg")
    write_splits(photographs, files, spec, Prepare(calibration=7, evaluation=2))
    assert SampleFile(files.evaluation_samples).labels.tolist() == [1, 2]


def test_crops_are_drawn_by_their_seed():
    image = np.random.default_rng(0).integers(0, 255, (120, 90, 3), np.uint8)
    crops = [photographs.random_crop(image, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert crops[0].shape == (3, 224, 224)
    assert (crops[0] == crops[1]).all()
    assert (crops[0] != crops[2]).any()


def test_a_crop_is_the_whole_or_a_part_and_perhaps_mirrored():
    row = np.linspace(0, 255, 200).astype(np.uint8)
    image = np.broadcast_to(row[None, :, None], (100, 200, 3))
    rising = []
    for seed in range(40):
        crop = photographs.random_crop(image, np.random.default_rng(seed))
        steps = np.diff(crop[0, 0])
        assert (steps >= -1e-6).all() or (steps <= 1e-6).all()
        rising.append(crop[0, 0, -1] > crop[0, 0, 0])
    assert 10 < sum(rising) < 30  # half of them are mirrored


@pytest.fixture
def photograph_folder(tmp_path):
    """A folder as data/raw/mobilenet_v2, with three photographs of ImageNet and the others."""
    names = ["imagenet_00_243.jpg", "imagenet_01_559.jpg", "imagenet_15_99.jpg", *photographs.CALIBRATION_SAMPLES]
    for number, name in enumerate(names):
        noise = np.random.default_rng(number).integers(0, 255, (20 + number, 30, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / name)
    return tmp_path


def test_evaluation_is_the_labelled_photographs_and_then_crops_of_each_in_turn(photograph_folder, root):
    samples = list(itertools.islice(photographs.samples(photograph_folder, "evaluation"), 9))
    assert [sample.label for sample in samples] == [243, 559, 99] + [None] * 6
    assert [sample.group for sample in samples] == ["imagenet_00_243", "imagenet_01_559", "imagenet_15_99"] * 3
    spec = load_spec("mobilenet_v2")
    for sample in samples:
        check_sample(sample, "evaluation", spec)


def test_no_photograph_is_in_both_splits_and_calibration_has_no_labels(photograph_folder):
    groups = {}
    for split in ("calibration", "evaluation"):
        samples = list(itertools.islice(photographs.samples(photograph_folder, split), 14))
        groups[split] = {sample.group for sample in samples}
        if split == "calibration":
            assert all(sample.label is None for sample in samples)
    assert len(groups["calibration"]) == 7
    assert len(groups["evaluation"]) == 3
    assert not groups["calibration"] & groups["evaluation"]


def test_the_samples_are_the_same_each_time(photograph_folder):
    first, second = (
        [sample.inputs["input"] for sample in itertools.islice(photographs.samples(photograph_folder, "evaluation"), 7)]
        for _ in range(2)
    )
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_the_spec_declares_every_photograph_that_data_py_reads(root):
    names = {source.name for source in load_spec("mobilenet_v2").sources}
    assert names >= set(photographs.CALIBRATION_SAMPLES)
    assert len([name for name in names if name.endswith(".jpg") and name.startswith("imagenet_")]) == 20


def test_the_five_likeliest_classes_are_given():
    logits = np.zeros(1000, np.float32)
    logits[[7, 3]] = 2.0, 1.0
    prediction = photographs.postprocess({"logits": logits})
    assert prediction.labels.tolist() == [7, 3, 0, 1, 2]
    # By hand: e^2 and e over e^2 + e + 998.
    assert prediction.scores[:2] == pytest.approx([7.389056 / 1008.107338, 2.718282 / 1008.107338], rel=1e-5)
