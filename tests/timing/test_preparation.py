"""What comes before the network is timed where the model's folder gives raw items, and is what the pipeline does."""

from pathlib import Path

import numpy as np
from PIL import Image

from models.digits_cnn import data as digits
from models.mobilenet_v2 import data as photographs
from onnx_release.timing.preparation import REPEATS, time_preparation


def test_without_raw_items_there_is_nothing_to_time(tmp_path):
    assert time_preparation(digits, tmp_path).model_dump() == {
        "decode_ms": None,
        "preprocess_ms": None,
        "raw_items": 0,
    }


def test_a_folder_without_items_has_nothing_to_time(tmp_path):
    assert time_preparation(photographs, tmp_path).decode_ms is None


def test_every_item_is_decoded_and_preprocessed():
    seen = []

    class Data:
        def encoded(self, raw):
            yield from (b"a", b"b")

        def decode(self, content):
            seen.append(content)
            return content.decode()

        def preprocess(self, item):
            seen.append(item)
            return {}

    found = time_preparation(Data(), Path())  # type: ignore[arg-type]
    assert found.raw_items == 2 and found.decode_ms and found.preprocess_ms
    assert seen == [b"a", b"b"] + [b"a", b"b"] * REPEATS + ["a", "b"] * REPEATS


def test_a_photograph_that_a_client_sends_becomes_the_sample_of_the_pipeline(tmp_path):
    random = np.random.default_rng(0)
    for name in ("imagenet_00_243.jpg", "imagenet_01_559.jpg"):
        Image.fromarray(random.integers(0, 255, (300, 400, 3), np.uint8)).save(tmp_path / name)
    sent = [photographs.preprocess(photographs.decode(content)) for content in photographs.encoded(tmp_path)]
    prepared = [sample.inputs for sample, _ in zip(photographs.samples(tmp_path, "evaluation"), sent, strict=False)]
    assert len(sent) == 2
    for one, other in zip(sent, prepared, strict=True):
        np.testing.assert_array_equal(one["input"], other["input"])
