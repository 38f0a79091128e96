"""The zoo: what it lists, what it writes into a model's folder, how it names failures, and that it goes on."""

import argparse
import re

import numpy as np
import pytest

from benchmarks.zoo import chosen, main
from benchmarks.zoo_networks.catalogue import NETWORKS
from benchmarks.zoo_networks.declaration import Network, Size, floats, lengths, mask
from benchmarks.zoo_networks.folder import spec_of
from benchmarks.zoo_networks.forked import TIMED_OUT, Ended
from benchmarks.zoo_networks.page import page, totals
from benchmarks.zoo_networks.plain import convert, difference
from benchmarks.zoo_networks.results import Outcome, Result, add_result, read_results
from benchmarks.zoo_networks.sizes import size_cases
from benchmarks.zoo_networks.through import outcome, reason
from onnx_release.core.errors import BenchmarkError
from onnx_release.core.spec import Spec
from tests.imports import ROOT

MADE = Outcome(True, True, 40.0, "")
GOOD = Result("good", "letters", "", "", variants=dict.fromkeys(("fp32", "fp16", "int8_dynamic", "int8_static"), MADE))
WORSE = Outcome(True, False, 12.0, "the SQNR is 12 dB")
LOST = Result("lost", "letters", "", "TypeError: no", stopped="export: error: a <branch>")
STRANGE = Result("strange", "numbers", "off by 2", "TypeError: no", stopped="export: CRASH SIGSEGV")


def arguments(path, *names, part="1/1"):
    given = {"names": list(names), "part": part, "again": False, "seconds": 60.0, "results": path}
    return argparse.Namespace(**given, page=False, list=False)


def test_it_has_many_networks_of_many_kinds():
    assert len(NETWORKS) >= 150
    assert {"timm", "transformers", "segmentation-models-pytorch", "monai", "open-clip", "ultralytics", "speech"} <= {
        network.family for network in NETWORKS.values()
    }
    for network in NETWORKS.values():
        used = {axis for given in network.inputs.values() for axis in given.shape if isinstance(axis, str)}
        assert used == set(network.sizes), network.name


def test_every_network_draws_inputs_of_the_sizes_that_are_asked_for():
    for network in NETWORKS.values():
        for sizes in size_cases(network)[:1]:
            for name, array in network.draw(sizes, 0).items():
                given = network.inputs[name]
                assert array.shape == tuple(sizes[axis] if isinstance(axis, str) else axis for axis in given.shape), (
                    network.name
                )
                assert array.dtype == given.dtype


def test_a_sample_has_no_batch_axis_and_a_length_of_its_own():
    inputs = {"x": floats("batch", "sequence", 3), "state": floats(2, "batch", 4), "n": lengths("sequence", "batch", 1)}
    network = Network("a", "b", dict, inputs, {"batch": Size(1, 4, 2), "sequence": Size(2, 9, 4)})
    samples = [network.sample(number) for number in range(20)]
    assert {sample["state"].shape for sample in samples} == {(2, 4)}
    assert len({len(sample["x"]) for sample in samples}) > 3
    assert all(1 <= sample["n"][0] <= len(sample["x"]) for sample in samples)
    np.testing.assert_array_equal(network.sample(3)["x"], samples[3]["x"])
    assert network.following({"batch": 3, "sequence": 5})["n"].shape == (3, 1)


def test_a_mask_has_ones_and_then_zeros():
    drawn = mask("batch", 8).draw({"batch": 50}, np.random.default_rng(0))
    assert (np.diff(drawn, axis=1) <= 0).all()
    assert (drawn.sum(1) >= 4).all()
    assert len(set(drawn.sum(1))) > 3


def test_size_cases_keep_to_the_step():
    network = Network("a", "b", dict, {}, {"height": Size(32, 160, 64, 32), "width": Size(2, 9, 4)})
    cases = size_cases(network)
    assert {"height": 32, "width": 9} in cases
    assert {case["height"] % 32 for case in cases} == {0}
    assert {case["width"] for case in cases} == {2, 9, 4, 5}


def test_the_spec_of_a_network_names_the_sizes_of_its_outputs():
    spec = Spec.model_validate(spec_of(NETWORKS["rnn_transducer"]))
    assert spec.outputs[0].shape == ["batch", "frames", "sequence", 29]
    shape = spec_of(NETWORKS["centernet"])["outputs"][0]["shape"]
    assert shape == ["batch", 4, "derived_0", "derived_1"]


def test_torch_alone_is_right_or_told_what_is_wrong(tmp_path):
    assert convert("nbeats", "torchscript", tmp_path) == ""
    assert difference(np.zeros((2, 3)), np.zeros((2, 4))) == "shape [2, 3] where PyTorch gives [2, 4]"
    assert difference(np.array([1, 2]), np.array([1, 3])) == "other integers than PyTorch's"
    large = np.array([100.0, 2.0])
    assert difference(large + 0.09, large) == ""
    assert difference(large + 0.2, large) == "off by 0.2, of values up to 1e+02"
    assert "off by nan" in difference(np.array([np.nan]), np.array([1.0]))


def test_a_failed_process_is_told_by_how_it_ended():
    assert reason(Ended(TIMED_OUT, "")) == "no end in time"
    assert reason(Ended(-11, "Fatal")) == "CRASH SIGSEGV"
    assert reason(Ended(1, "10%|#\nwarning\nerror: no such axis\n  fix: declare it\n")) == (
        "error: no such axis   fix: declare it"
    )
    assert reason(Ended(1, "Traceback (most recent call last):\n  File\nKeyError: 'x'\n")) == "TRACEBACK KeyError: 'x'"


def test_metrics_say_whether_a_variant_was_made_and_passed():
    assert outcome({"passed": True, "made": True, "sqnr_db": 30.0, "failure": ""}) == Outcome(True, True, 30.0, "")
    assert outcome({"passed": False, "made": False, "failure": "no"}) == Outcome(False, False, None, "no")
    assert outcome({"left_out": "why"}) == Outcome(False, False, None, "")


@pytest.mark.parametrize(
    "ours,rival,failure,expected",
    [
        (MADE, None, "", True),
        (WORSE, 10.5, "", True),
        (WORSE, 11.5, "", False),
        (WORSE, None, "", False),
        (WORSE, None, "CRASH SIGSEGV", True),
        (Outcome(False, False, None, "no"), 3.0, "", False),
        (Outcome(False, False, None, "no"), None, "IndexError", True),
    ],
)
def test_static_int8_counts_where_the_quantizer_of_onnxruntime_is_no_better(ours, rival, failure, expected):
    result = Result("a", "b", "", "", variants={"int8_static": ours}, rival_db=rival, rival_failure=failure)
    assert result.excused() == expected


def test_the_page_counts_by_family_and_gives_each_reason():
    text = page({result.name: result for result in (GOOD, LOST, STRANGE)}, 7)
    assert "\n3 of the 7 networks have been through" in text
    assert "\nAll 3 networks have been through" in page({"good": GOOD, "lost": LOST, "strange": STRANGE}, 3)
    assert "| letters | 2 | 2 | 1 | 1 | 1 | 1 | 1 |" in text
    assert "| numbers | 1 | 0 | 0 | 0 | 0 | 0 | 0 |" in text
    assert "| **of either** | 2 | 100.0% | 50.0% |" in text
    assert "| lost | run | export: error: a &lt;branch> |" in text
    assert "| strange | dynamo alone | off by 2 |" in text
    assert "2 of 3 networks are converted rightly" in totals([GOOD, LOST, STRANGE])


def test_no_result_names_a_folder_of_the_machine():
    assert not re.findall("/(?:tmp|home|root)/", (ROOT / "benchmarks/zoo.jsonl").read_text(encoding="utf-8"))


def test_it_goes_on_where_it_was_interrupted(tmp_path, capsys):
    path = tmp_path / "zoo.jsonl"
    for result in (LOST, Result("tabm", "tabular", "", "", stopped="old"), Result("tabm", "tabular", "", "")):
        add_result(path, result)
    main(arguments(path, "tabm"))  # takes nothing: it has a line
    assert "2 of 2 networks" in capsys.readouterr().out
    assert list(read_results(path)) == ["lost", "tabm"]
    assert not read_results(path)["tabm"].stopped  # its last line
    assert len(path.read_text().splitlines()) == 2


def test_names_families_and_parts_choose_networks():
    assert chosen(["tabm"], "1/1") == ["tabm"]
    assert len(chosen(["monai", "tabm"], "1/1")) > 10
    parts = [chosen([], f"{number}/8") for number in range(1, 9)]
    assert sorted(name for names in parts for name in names) == sorted(NETWORKS)
    with pytest.raises(BenchmarkError, match="no family called tabn"):
        chosen(["tabn"], "1/1")
    for part in ("0/8", "9/8", "3", "a/b"):
        with pytest.raises(BenchmarkError, match="as in 3/8"):
            chosen([], part)
