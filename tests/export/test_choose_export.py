"""The choice between exporters and opsets: what is tried, what is kept, and what is said of the rest."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from onnx_release.core.child_process import call_guarded
from onnx_release.core.errors import ExportError
from onnx_release.core.params import Export
from onnx_release.core.paths import MODEL_FILE, SOURCES_FILE, ModelFiles
from onnx_release.core.types import Sample
from onnx_release.data.samples import write_samples
from onnx_release.export.agreement import Agreement
from onnx_release.export.candidates import Attempt, Candidate, make_candidate
from onnx_release.export.choose_export import Refused, attempts, describe_others, describe_refusals, export_model
from onnx_release.graph.graph import describe_model
from onnx_release.network.reference import write_reference

NET = ModelFiles("net")
TRACE = Attempt("torchscript", "trace", (18,), refuse_reads=True)


class Gelu(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return nn.functional.gelu(self.linear(x))


class Branch(nn.Module):
    """A branch that no sample takes: a trace gives the right answers to all of them."""

    def forward(self, x):
        return x * 2 if x.sum() < 1000 else -x


class LongBranch(nn.Module):
    """A branch on a size, which a trace fixes."""

    def forward(self, x):
        return x * 2 if x.shape[0] < 4 else -x


@pytest.fixture
def spec(tmp_path, monkeypatch, make_spec):
    monkeypatch.chdir(tmp_path)
    return make_spec({"x": ["batch", 8]}, {"y": ["batch", 8]}, batch=(1, 6, 2))


@pytest.fixture
def in_this_process(monkeypatch):
    """Each attempt is made here: a process that imports torch takes longer than the attempt."""
    monkeypatch.setattr("onnx_release.export.choose_export.run_in_child", call_guarded)


@pytest.fixture
def candidate(spec, tmp_path):
    """Make the candidate of an attempt for a network, with its references."""

    def made(network, attempt):
        write_references(network, spec)
        return make_candidate(network.eval, spec, attempt, NET, tmp_path / "made")

    return made


def write_references(network, spec):
    for path in (NET.evaluation_samples, NET.reference):
        path.parent.mkdir(parents=True, exist_ok=True)
    samples = [Sample({"x": np.linspace(-1, 1, 8, dtype=np.float32) * scale}) for scale in (1, 2)]
    write_samples(NET.evaluation_samples, samples, 8, spec)
    write_reference(network.eval(), spec, NET, 0)


def gelu():
    return Gelu().eval()


def test_auto_tries_both_exporters_and_keeps_the_fewest_nodes(spec, tmp_path, in_this_process):
    write_references(gelu(), spec)
    metrics = export_model(gelu, spec, Export(exporter="auto", opset="auto"), NET, tmp_path / "export")
    # A Gelu of opset 20 and one that the tracer writes in parts are both fused with the layer before it.
    assert (metrics.exporter, metrics.capture, metrics.opset, metrics.optimized_nodes) == (
        "dynamo",
        "non-strict",
        20,
        2,
    )
    assert metrics.others.startswith("dynamo (non-strict capture): ")
    assert "nodes at opset 18; torchscript: 2 nodes at opset 18, no fewer" in metrics.others
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == [MODEL_FILE, SOURCES_FILE]
    assert describe_model(tmp_path / "export" / MODEL_FILE)["opsets"]["ai.onnx"] == 20


def crash() -> nn.Module:
    os.abort()


def test_a_crash_of_every_attempt_is_one_message(spec, tmp_path):
    write_references(gelu(), spec)
    with pytest.raises(ExportError, match=r"crashed its process \(SIGABRT\)"):
        export_model(crash, spec, Export(exporter="torchscript", opset=18), NET, tmp_path / "export")
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize(
    ("exporter", "opset", "expected"),
    [
        ("auto", "auto", [("non-strict", (18, 20)), ("strict", (18, 20)), ("trace", (18, 20))]),
        ("auto", 23, [("non-strict", (23,)), ("strict", (23,))]),
        ("dynamo", 18, [("non-strict", (18,)), ("strict", (18,))]),
        ("torchscript", "auto", [("trace", (18, 20))]),
    ],
)
def test_the_parameters_bound_what_is_tried(exporter, opset, expected):
    found = attempts(Export(exporter=exporter, opset=opset))
    assert [(attempt.capture, attempt.opsets) for attempt in found] == expected


def test_a_branch_on_a_value_is_refused_in_a_trace_although_every_sample_agrees(candidate):
    with pytest.raises(ExportError, match=r"test_choose_export\.py:\d+ reads from the inputs.*torch\.cond") as caught:
        candidate(Branch(), TRACE)
    assert "`exporter: torchscript` in spec.yaml" in str(caught.value)


def test_a_trace_may_fix_such_a_branch_if_the_exporter_is_named(candidate):
    found = candidate(Branch(), Attempt("torchscript", "trace", (18,)))
    assert found.level == 0


def test_a_branch_on_a_size_is_wrong_at_a_corner(candidate):
    found = candidate(LongBranch(), TRACE)
    assert found.level == 2 and "y is off by" in found.agreement.wrong and "batch=6" in found.agreement.wrong
    assert found.blamed.startswith("the first module that differs is the network itself (LongBranch)")


class Causal(nn.Module):
    """A Transformer layer of torch's own with a causal mask, whose values torch looks at."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[0])
        return self.encoder(x[None], mask)[0]


def test_a_wrong_export_is_said_at_once_with_the_first_module_that_differs(spec, tmp_path, capsys):
    """Only the older exporter is allowed, which fixes the branch on the size."""
    network = nn.Sequential(Gelu(), LongBranch())
    write_references(network, spec)
    export_model(network.eval, spec, Export(exporter="torchscript", opset=18), NET, tmp_path / "made")
    said = capsys.readouterr().err
    assert "warning: the export is wrong: y is off by" in said
    assert "the first module that differs is 1 (LongBranch)" in said


def test_a_causal_mask_is_applied_without_a_look_at_its_values(candidate):
    assert candidate(Causal(), Attempt("dynamo", "non-strict", (18,))).agreement.validates


class Experts(nn.Module):
    """Adds up what it multiplies, in a loop over values, unless its experts are to be chosen by index."""

    way = "loop"

    def set_experts_implementation(self, way):
        self.way = way

    def forward(self, x):
        return x * 3 if self.way == "batched_mm" else sum(x for _ in range(int(x.sum() * 0) + 3))


def test_experts_are_chosen_by_index(candidate):
    """The way of transformers' mixtures of experts, which has the same method."""
    assert candidate(Experts(), Attempt("dynamo", "non-strict", (18,))).agreement.validates


def made(attempt, nodes, agreement=None, others=""):
    return Candidate(attempt, 18, nodes, Path(), agreement or Agreement(validates=True), others)


class Bessel(nn.Module):
    def forward(self, x):
        return torch.special.bessel_j0(x)


def test_the_reasons_advise_no_exporter_that_was_tried(spec, tmp_path, in_this_process):
    network = Bessel().eval()
    write_references(network, spec)
    with pytest.raises(ExportError, match=r"- torchscript: the operator aten::special_bessel_j0") as caught:
        export_model(network.eval, spec, Export(exporter="auto", opset=18), NET, tmp_path / "made")
    assert "export.exporter" not in str(caught.value)


def test_the_reasons_of_all_others_are_in_one_line():
    strict = Attempt("dynamo", "strict", (18, 20))
    best = made(strict, 7, others="9 nodes at opset 20")
    worse = made(TRACE, 5, Agreement("y is off by 2", difference="y is off by 2"))
    refused = [Refused(Attempt("dynamo", "non-strict", (18,)), "the network fixes the size of batch\nLook for int()")]
    assert describe_others(best, [best, worse], refused) == (
        "dynamo (strict capture): 9 nodes at opset 20; torchscript: y is off by 2; "
        "dynamo (non-strict capture): the network fixes the size of batch"
    )


def test_one_message_has_the_reason_of_each_attempt():
    reasons = [Refused(Attempt("dynamo", "strict", (18,)), "one reason"), Refused(TRACE, "another")]
    message = describe_refusals(reasons)
    assert message.startswith("no exporter converts the network")
    assert message.endswith("\n- dynamo (strict capture): one reason\n- torchscript: another")
    assert describe_refusals(reasons[:1]) == "one reason"
