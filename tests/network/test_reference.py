"""PyTorch's answers in float32 and float64: what is kept, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from onnx_release.core.array_files import ArrayFile
from onnx_release.core.errors import NetworkError
from onnx_release.core.params import Prepare
from onnx_release.core.paths import ModelFiles
from onnx_release.core.types import Sample
from onnx_release.data.samples import write_splits
from onnx_release.network.reference import write_reference

NET = ModelFiles("net")
PIXELS = np.array([[0.1, 0.2], [0.3, 0.7], [0.9, -0.4]], np.float32)


class Weighted(nn.Module):
    """x @ [1/3, 2/3] as one column; the weights are those of float32."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1 / 3], [2 / 3]]))

    def forward(self, x):
        return x @ self.weight


@pytest.fixture
def spec(make_spec):
    return make_spec({"x": ["batch", 2]}, {"y": ["batch", 1]}, batch=(1, 4, 2))


@pytest.fixture
def files(tmp_path, monkeypatch, spec):
    """The files of a model with three prepared samples below `tmp_path`, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    data = SimpleNamespace(samples=lambda raw, split: (Sample({"x": row}) for row in PIXELS))
    write_splits(data, NET, spec, Prepare(calibration=3, evaluation=3))
    return NET


def test_the_answers_in_float64_are_those_of_float64(files, spec):
    write_reference(Weighted().eval(), spec, files, seed=0)
    answers = ArrayFile(files.reference_samples)
    weight = np.array([1 / 3, 2 / 3], np.float32).astype(np.float64)
    for index, row in enumerate(PIXELS):
        exact = row.astype(np.float64) @ weight
        float64 = answers.array(f"{index:06d}/float64/y")
        float32 = answers.array(f"{index:06d}/float32/y")
        assert float64.shape == (1, 1)
        assert (str(float64.dtype), str(float32.dtype)) == ("float64", "float32")
        assert float64.item() == pytest.approx(exact, rel=1e-14, abs=0)
        assert float32.item() == pytest.approx(exact, abs=1e-7)
        # Nothing was rounded to float32 on the way; numpy would compare a Python float with a float32 in float32.
        assert float64.item() != float(np.float32(exact))


def test_every_shape_case_is_there_with_its_inputs(files, spec):
    write_reference(Weighted().eval(), spec, files, seed=0)
    cases = ArrayFile(files.reference_cases)
    # The corners, the example, and the odd size beside the geometric mean 2.
    assert {name.partition("/")[0] for name in cases.names} == {"batch=1", "batch=4", "batch=2", "batch=3"}
    for batch in (1, 2, 3, 4):
        inputs = cases.array(f"batch={batch}/inputs/x")
        assert inputs.shape == (batch, 2)
        assert all(row.tolist() in PIXELS.tolist() for row in inputs)
        expected = inputs.astype(np.float64) @ Weighted().weight.detach().double().numpy()
        np.testing.assert_allclose(cases.array(f"batch={batch}/float64/y"), expected, rtol=1e-14)


def test_the_same_network_and_seed_give_the_same_bytes(files, spec):
    contents = []
    for seed in (0, 0, 1):
        write_reference(Weighted().eval(), spec, files, seed)
        contents.append((files.reference_samples.read_bytes(), files.reference_cases.read_bytes()))
    assert contents[0] == contents[1]
    assert contents[0][0] == contents[2][0]
    assert contents[0][1] != contents[2][1]


def test_the_network_is_back_in_float32_and_the_threads_as_before(files, spec):
    network, threads = Weighted().eval(), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        write_reference(network, spec, files, seed=0)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert network.weight.dtype == torch.float32


def earlier() -> None:
    NET.reference.mkdir(parents=True)
    NET.reference_samples.write_text("the earlier one")


def assert_untouched() -> None:
    assert [path.name for path in NET.reference.parent.iterdir()] == [NET.reference.name]
    assert [path.name for path in NET.reference.iterdir()] == [NET.reference_samples.name]
    assert NET.reference_samples.read_text() == "the earlier one"


def test_a_network_that_gives_nan_is_refused_and_the_earlier_reference_kept(files, spec):
    earlier()
    network = Weighted().eval()
    network.weight.data[0] = float("nan")
    with pytest.raises(NetworkError, match="1 of the 1 values of the output y are NaN in float32"):
        write_reference(network, spec, files, seed=0)
    assert_untouched()


def test_a_network_that_fails_in_float64_is_refused_and_the_earlier_reference_kept(files, spec):
    class OnlyFloat32(Weighted):
        def forward(self, x):
            return super().forward(x) / (x.dtype == torch.float32)

    earlier()
    network = OnlyFloat32().eval()
    where = "infinite in only one of float32 and float64, in the case batch=1"
    with pytest.raises(NetworkError, match=f"1 of the 1 values of the output y are {where}"):
        write_reference(network, spec, files, seed=0)
    assert_untouched()
    assert network.weight.dtype == torch.float32


class Masked(Weighted):
    """Infinite where `bound` is not reached, or where float32 overflows."""

    def __init__(self, bound, factor=1.0):
        super().__init__()
        self.bound, self.factor = bound, factor

    def forward(self, x):
        found = super().forward(x)
        return torch.where(found > self.bound, found, -torch.inf) * self.factor * self.factor


def test_infinity_in_both_precisions_is_an_answer(files, spec):
    write_reference(Masked(0.2).eval(), spec, files, seed=0)
    answers = ArrayFile(files.reference_samples)
    for dtype in ("float32", "float64"):
        found = [answers.array(f"{index:06d}/{dtype}/y").item() for index in range(3)]
        assert found == [-np.inf, pytest.approx(0.3 / 3 + 1.4 / 3), -np.inf]


def test_infinity_that_only_float32_has_is_refused(files, spec):
    """Three times 1e40 is beyond float32."""
    earlier()
    with pytest.raises(NetworkError, match=r"are infinite in only one of float32 and float64.*: float32 overflows"):
        write_reference(Masked(-9.0, 1e20).eval(), spec, files, seed=0)
    assert_untouched()


def test_a_network_that_contradicts_the_spec_is_refused(files, make_spec):
    earlier()
    spec = make_spec({"x": ["batch", 2]}, {"y": ["batch", 3]}, batch=(1, 4, 2))
    with pytest.raises(NetworkError, match=r"contradicts spec\.yaml: y has the shape \[1, 1\].*3"):
        write_reference(Weighted().eval(), spec, files, seed=0)
    assert_untouched()


def test_a_network_that_changes_its_input_sees_the_sample_each_time(files, spec):
    class InPlace(Weighted):
        def forward(self, x):
            return super().forward(x.sub_(1))

    write_reference(InPlace().eval(), spec, files, seed=0)
    cases, answers = ArrayFile(files.reference_cases), ArrayFile(files.reference_samples)
    weight = Weighted().weight.detach().double().numpy()
    inputs = cases.array("batch=4/inputs/x")
    assert all(row.tolist() in PIXELS.tolist() for row in inputs)
    np.testing.assert_allclose(cases.array("batch=4/float64/y"), (inputs.astype(np.float64) - 1) @ weight, rtol=1e-14)
    wanted = (PIXELS[:1].astype(np.float64) - 1) @ weight
    np.testing.assert_allclose(answers.array("000000/float64/y"), wanted, rtol=1e-14)
