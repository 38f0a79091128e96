"""What the search measures on calibration samples, by hand: a graph that passes on what it gets."""

import numpy as np
import pytest
from onnx import helper

from onnx_release.core.spec import Budget
from onnx_release.core.types import Prediction
from onnx_release.measure.budget import over_budget
from onnx_release.measure.closeness import Closeness
from onnx_release.static_quantization.scoring import Scorer
from tests.samples import save_samples

# Two scores each; the float model answers 0, 0, 1, 1.
SCORES = [(2.0, 1.0), (3.0, 1.0), (1.0, 2.0), (1.0, 3.0)]


class Data:
    """The class with the higher score."""

    def postprocess(self, outputs: dict[str, np.ndarray]) -> Prediction:
        order = np.argsort(-outputs["y"])
        return Prediction(order, outputs["y"][order])


@pytest.fixture
def figures(save_graph, make_spec, tmp_path):
    """The figures of a variant that answers the other class for some samples."""

    def make(turned: set[int], labels: list[int]) -> Closeness:
        node = helper.make_node("Relu", ["x"], ["y"], name="relu")
        source = save_graph([node], [("x", ["n", 2])], [("y", ["n", 2])])
        samples = save_samples(tmp_path / "samples.npz", [np.array(scores, np.float32) for scores in SCORES])
        samples.labels = np.array(labels)
        spec = make_spec({"x": ["n", 2]}, {"y": ["n", 2]}, task="classification", n=(1, 4, 2))
        scorer = Scorer(source, spec, Data(), samples)  # type: ignore[arg-type]
        found = [
            {"y": np.array([scores[::-1] if index in turned else scores], np.float32)}
            for index, scores in enumerate(SCORES)
        ]
        return scorer.score_outputs(found, range(len(SCORES)))

    return make


def test_with_labels_the_drop_is_the_accuracy_lost_however_many_answers_change(figures):
    """The float model is wrong on the first and right on the second sample; both answers change."""
    found = figures({0, 1}, [1, 0, 1, 1])
    assert (found.agreement, found.accuracy_drop) == (0.5, 0.0)
    assert found.changed_answers is None
    assert over_budget(found, Budget(accuracy_drop=0.0)) == []
    assert figures({1}, [1, 0, 1, 1]).accuracy_drop == 0.25


def test_labels_of_some_samples_are_enough(figures):
    assert figures({0, 2}, [-1, -1, 1, 1]).accuracy_drop == 0.5


def test_without_labels_changed_answers_stand_in_under_their_own_name(figures):
    found = figures({0}, [-1, -1, -1, -1])
    assert (found.accuracy_drop, found.changed_answers) == (None, 0.25)
    assert over_budget(found, Budget(accuracy_drop=0.25)) == []
    assert over_budget(found, Budget(accuracy_drop=0.2)) == [
        "0.25 of the answers change on samples without a label, budget.accuracy_drop is 0.2"
    ]
