"""Prepared samples: checked, the same bytes each time, and read one at a time."""

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from onnx_release.core.errors import DataError
from onnx_release.core.files import sha256
from onnx_release.core.params import Prepare
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Images, Spec
from onnx_release.core.types import Sample
from onnx_release.data.samples import (
    SampleFile,
    calibration_note,
    real_batches,
    sample_metrics,
    with_batch_axis,
    without_batch_axis,
    write_samples,
    write_splits,
)

NET = ModelFiles("net")
SPLITS = (NET.calibration_samples, NET.evaluation_samples)
SPEC = Spec.model_validate(
    {
        "task": "classification",
        "sources": [],
        "variants": [],
        "dimensions": {"batch": {"min": 1, "max": 4, "example": 2}, "width": {"min": 2, "max": 4, "example": 3}},
        "inputs": [
            {"name": "x", "dtype": "float32", "shape": ["batch", "width"]},
            {"name": "mask", "dtype": "int64", "shape": ["batch", "width"]},
        ],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", 3]}],
    }
)


def sample(width=3, group=None, label=None, **inputs):
    arrays = {"x": np.arange(width, dtype=np.float32), "mask": np.ones(width, np.int64), **inputs}
    return Sample(arrays, label=label, group=group)


class Data:
    """A model's data.py."""

    def __init__(self, calibration, evaluation):
        self.splits = {"calibration": calibration, "evaluation": evaluation}

    def samples(self, raw, split):
        assert raw == NET.raw
        yield from self.splits[split]

    def preprocess(self, item):
        raise AssertionError("the pipeline takes samples as they are")

    def postprocess(self, outputs):
        raise AssertionError("nothing has been predicted yet")


def test_samples_of_different_sizes_come_back_as_they_were(tmp_path):
    write_samples(tmp_path / "a.npz", [sample(2, "cat", 1), sample(4)], 10, SPEC)
    file = SampleFile(tmp_path / "a.npz")
    assert len(file) == 2
    assert file.labels.tolist() == [1, -1]
    assert file.groups.tolist() == ["cat", "a sample 1"]
    assert file.inputs(0)["x"].tolist() == [0, 1]
    assert file.inputs(1)["mask"].dtype == np.int64
    assert file.inputs(1)["x"].shape == (4,)


def test_no_more_samples_are_taken_than_asked_for(tmp_path):
    def just_enough():
        yield from [sample()] * 3
        raise AssertionError("a fourth was drawn")

    write_samples(tmp_path / "a.npz", just_enough(), 3, SPEC)
    assert len(SampleFile(tmp_path / "a.npz")) == 3


def test_the_same_samples_are_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_samples(tmp_path / f"{name}.npz", [sample(group="cat")] * 3, 10, SPEC)
    assert sha256(tmp_path / "a.npz") == sha256(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (sample(x=np.array([0, np.nan, 1], np.float32)), "sample 1, group None: x has NaN"),
        (sample(x=np.zeros(3)), "x is float64 where float32 is declared"),
        (sample(x=np.zeros((3, 1), np.float32)), r"x has the shape \[1, 3, 1\]"),
        (sample(mask=np.ones(2, np.int64)), r"mask has the shape \[1, 2\] .*width is 3"),
        (sample(5, "cat"), "group cat: width is 5, where 2 to 4 is declared"),
        (sample(extra=np.zeros(3)), r"gives the inputs \['extra', 'mask', 'x'\]"),
        (sample(1), "width is 1, where 2 to 4 is declared"),
        (Sample({"x": np.zeros(3, np.float32)}), r"gives the inputs \['x'\], spec.yaml declares \['x', 'mask'\]"),
        (sample(label=-1), "the label is -1"),
    ],
)
def test_a_bad_sample_is_named_and_nothing_is_written(tmp_path, bad, message):
    with pytest.raises(DataError, match=message):
        write_samples(tmp_path / "a.npz", [sample(), bad], 10, SPEC)
    assert not list(tmp_path.iterdir())


def test_infinity_is_a_value_of_a_sample(tmp_path):
    mask = np.array([0, -np.inf, np.inf], np.float32)
    write_samples(tmp_path / "a.npz", [sample(x=mask)], 10, SPEC)
    assert SampleFile(tmp_path / "a.npz").inputs(0)["x"].tolist() == mask.tolist()


def test_a_failure_in_either_split_leaves_both_as_they_were(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counts = Prepare(calibration=5, evaluation=5)
    write_splits(Data([sample(group="a", label=1)], [sample(group="b", label=2), sample()]), NET, SPEC, counts)
    before = [sha256(path) for path in SPLITS]
    assert sample_metrics(NET).content() == {
        "calibration_samples": 1,
        "calibration_groups": 1,
        "evaluation_samples": 2,
        "evaluation_groups": 2,
        "evaluation_labelled": 1,
    }
    for data, message in (
        (Data([sample(group="a")], [sample(group="b"), sample(group="a")]), "in both splits: a"),
        (Data([sample(group="c")], []), "data.py gives no sample for evaluation"),
        (Data([], [sample()]), "data.py gives no sample for calibration"),
        (Data([sample(group="c")], [sample(5, "d")]), "sample 0, group d: width is 5"),
        (Data([sample(group="c"), sample(label=-2)], [sample()]), "the label is -2"),
    ):
        with pytest.raises(DataError, match=message):
            write_splits(data, NET, SPEC, counts)
        assert [sha256(path) for path in SPLITS] == before
        assert len(list(NET.calibration_samples.parent.iterdir())) == 2


def test_a_data_py_that_breaks_off_leaves_both_as_they_were(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counts = Prepare(calibration=5, evaluation=5)
    write_splits(Data([sample()], [sample()]), NET, SPEC, counts)
    before = [sha256(path) for path in SPLITS]

    def broken():
        yield sample(2)
        raise DataError("cat.jpg cannot be read")

    with pytest.raises(DataError, match=r"cat\.jpg"):
        write_splits(Data([sample(2)], broken()), NET, SPEC, counts)
    assert [sha256(path) for path in SPLITS] == before
    assert len(list(NET.calibration_samples.parent.iterdir())) == 2


def test_a_group_beyond_the_samples_taken_does_not_count(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = Data([sample(group="a"), sample(group="b")], [sample(group="b")])
    write_splits(data, NET, SPEC, Prepare(calibration=1, evaluation=1))
    with pytest.raises(DataError, match="in both splits: b"):
        write_splits(data, NET, SPEC, Prepare(calibration=2, evaluation=1))


@pytest.mark.parametrize(
    ("task", "label", "message"),
    [
        ("classification", 3, r"sample 0, group None: the label is 3: it must be 0 to 2, a class of y"),
        ("detection", 2, "the label is 2: it must be 0 to 1, 1 for something to find"),
        ("embedding", 0, "the label is 0, but the task embedding has no right answers: leave it out"),
        ("tensor", 0, "the label is 0, but the task tensor has no right answers: leave it out"),
    ],
)
def test_a_label_that_the_task_does_not_have_is_named(tmp_path, task, label, message):
    with pytest.raises(DataError, match=message):
        write_samples(tmp_path / "a.npz", [sample(label=label)], 1, SPEC.model_copy(update={"task": task}))


INT8 = SPEC.model_copy(update={"variants": ["int8_static"]})
PHOTOGRAPHS = INT8.model_copy(
    update={"images": Images(folder="pets", resize=8, crop=8, mean=[0.5] * 3, std=[0.5] * 3)},
)


@pytest.mark.parametrize(
    ("samples", "limit", "spec", "says"),
    [
        (
            1,
            160,
            PHOTOGRAPHS,
            r"on 1 sample, .*only from 16 on: put more photographs into the origin of the folder pets",
        ),
        (15, 160, INT8, r'on 15 samples, .*: let samples\(raw, "calibration"\) in models/net/data\.py give more'),
        (
            15,
            15,
            INT8,
            r"on 15 .*: raise prepare\.calibration, which is 15, in params\.yaml or in models/net/params\.yaml$",
        ),
        (16, 160, PHOTOGRAPHS, None),
        (1, 160, SPEC, None),  # which has no INT8
    ],
)
def test_few_samples_to_calibrate_with_are_noted_with_what_to_do(samples, limit, spec, says):
    note = calibration_note(samples, spec, "net", Prepare(calibration=limit, evaluation=1))
    assert (note is None) == (says is None)
    assert note is None or re.match(f"note: INT8 is calibrated {says}", note)


def test_a_label_of_zero_is_a_label(tmp_path):
    write_samples(tmp_path / "a.npz", [sample(label=0)], 1, SPEC)
    assert SampleFile(tmp_path / "a.npz").labels.tolist() == [0]


def test_a_sample_without_a_group_may_stand_in_both_splits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_splits(Data([sample()], [sample()]), NET, SPEC, Prepare(calibration=1, evaluation=1))


def test_a_batch_of_one_has_one_axis_more():
    item = {"x": np.arange(3)}
    assert with_batch_axis(item)["x"].shape == (1, 3)
    assert without_batch_axis({"y": item["x"][None]}, SPEC)["y"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("widths", "batch", "found"),
    [
        ([2, 2, 2], 1, [[0], [1], [2]]),
        ([2, 2, 2, 2, 2], 2, [[0, 1], [2, 3]]),  # what does not fill a batch is left out
        ([3, 4, 2, 3], 1, [[0], [1], [2], [3]]),  # each in the size of the example
        ([2, 2], 4, [[0, 1, 0, 1]]),  # too few are repeated
        ([2] * 70, 1, [[index] for index in range(32)]),  # 32 samples are enough
        ([2] * 70, 40, [list(range(40))]),  # or one batch
    ],
)
def test_batches_are_real_samples(tmp_path, widths, batch, found):
    items = [sample(width, x=np.full(width, index, np.float32)) for index, width in enumerate(widths)]
    write_samples(tmp_path / "a.npz", items, 100, SPEC)
    batches = real_batches(SampleFile(tmp_path / "a.npz"), batch, SPEC, None)
    assert [entry["x"][:, 0].tolist() for entry in batches] == found
    assert all(entry["x"].shape[1] == 3 for entry in batches)


def test_a_sample_is_repeated_or_cut_to_the_sizes_of_the_example(tmp_path):
    write_samples(tmp_path / "a.npz", [sample(2), sample(4)], 2, SPEC)
    batches = real_batches(SampleFile(tmp_path / "a.npz"), 1, SPEC, None)
    assert [entry["x"][0].tolist() for entry in batches] == [[0, 1, 0], [0, 1, 2]]
    assert all(list(entry) == ["x", "mask"] for entry in batches)  # in the order of the spec


@pytest.fixture
def recurrent(make_spec):
    """A state with the batch in the middle, and a scalar and a table without any."""
    inputs = {"x": ["batch", "width"], "state": [2, "batch", 3], "scale": [], "table": ["rows", 3]}
    outputs = {"y": ["batch", 3], "last": [2, "batch", 3], "norm": []}
    return make_spec(inputs, outputs, batch=(1, 4, 2), width=(0, 4, 3), rows=(2, 9, 5))


def recurrent_item(number, width=2):
    return Sample(
        {
            "x": np.full(width, number, np.float32),
            "state": np.full((2, 3), number, np.float32),
            "scale": np.array(number, np.float32),
            "table": np.full((4, 3), number, np.float32),
        }
    )


def test_the_batch_is_added_and_removed_where_each_tensor_has_it(tmp_path, recurrent):
    write_samples(tmp_path / "a.npz", [recurrent_item(7)], 1, recurrent)
    samples = SampleFile(tmp_path / "a.npz")
    shapes = {"x": (1, 2), "state": (2, 1, 3), "scale": (), "table": (4, 3)}
    assert {name: array.shape for name, array in samples.batch(0).items()} == shapes
    assert samples.inputs(0)["state"].shape == (2, 3)
    outputs = {"y": np.ones((4, 3)), "last": np.arange(24).reshape(2, 4, 3), "norm": np.array(5.0)}
    item = without_batch_axis(outputs, recurrent, 1)
    assert item["y"].shape == (3,) and item["norm"] == 5
    assert item["last"].tolist() == [[3, 4, 5], [15, 16, 17]]


def test_batches_are_stacked_along_the_batch_of_each_input(tmp_path, recurrent):
    write_samples(tmp_path / "a.npz", [recurrent_item(1), recurrent_item(2, width=0)], 2, recurrent)
    (batch,) = real_batches(SampleFile(tmp_path / "a.npz"), 2, recurrent, None)
    assert batch["x"].tolist() == [[1, 1, 1], [0, 0, 0]]  # an empty axis has nothing to repeat
    assert batch["state"][:, :, 0].tolist() == [[1, 2], [1, 2]]
    assert batch["scale"] == 1 and batch["table"].shape == (5, 3) and (batch["table"] == 1).all()


def test_inputs_whose_values_follow_the_sizes_come_from_examples_in_every_batch(tmp_path, make_spec):
    sizes = {"batch": (1, 4, 2), "n": (2, 9, 3), "m": (2, 9, 4)}
    spec = make_spec({"x": ["batch", "n", 2], "ends": ["batch", "m"]}, {"y": ["batch"]}, **sizes)
    spec.inputs[1] = spec.inputs[1].model_copy(update={"dtype": "int64"})
    items = [Sample({"x": np.full((8, 2), n, np.float32), "ends": np.full(5, 7)}) for n in range(6)]
    write_samples(tmp_path / "a.npz", items, 9, spec)
    asked = []

    def examples(sizes):
        asked.append(sizes)
        return {"ends": np.full((sizes["batch"], sizes["m"]), sizes["n"] - 1)}

    data: Any = SimpleNamespace(examples=examples)
    batches = real_batches(SampleFile(tmp_path / "a.npz"), 3, spec, data)
    assert asked == [{"batch": 3, "n": 3, "m": 4}]
    assert [batch["ends"].tolist() for batch in batches] == [[[2] * 4] * 3] * 2  # not 7, which no sample of 3 has
    assert [batch["x"][:, 0, 0].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5]]


def test_a_sample_with_a_first_axis_that_is_no_batch_says_what_to_write(tmp_path, make_spec):
    spec = make_spec({"nodes": ["n", 3]}, {"y": ["n"]}, n=(1, 9, 4))
    item = Sample({"nodes": np.zeros((4, 3), np.float32)})
    with pytest.raises(DataError, match=r"if n is no batch of items, write `batch: null` in spec\.yaml"):
        write_samples(tmp_path / "a.npz", [item], 1, spec)
    write_samples(tmp_path / "a.npz", [item], 1, spec.model_copy(update={"batch": None}))
    assert SampleFile(tmp_path / "a.npz").batch(0)["nodes"].shape == (4, 3)


def test_a_size_between_the_steps_is_refused(tmp_path, make_spec):
    spec = make_spec({"x": ["batch", "width"]}, {"y": ["batch"]}, batch=(1, 4, 2), width=(2, 8, 4))
    width = spec.dimensions["width"].model_copy(update={"multiple_of": 4})
    spec = spec.model_copy(update={"dimensions": {**spec.dimensions, "width": width}})
    with pytest.raises(DataError, match="width is 6, where a multiple of 4 is declared"):
        write_samples(tmp_path / "a.npz", [Sample({"x": np.zeros(6, np.float32)})], 1, spec)
