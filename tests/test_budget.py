"""What is beyond the budget, and which budgets a task can have."""

import pytest

from onnx_release.budget import check_budget, over_budget
from onnx_release.errors import ParameterError
from onnx_release.params import Budget
from tests.residual import SPEC

FIGURES = {"sqnr_db": 20.0, "max_abs_error": 0.1, "agreement": 0.9, "accuracy_drop": 0.02}


def budget(**bounds):
    return Budget(**{"agreement": None, "accuracy_drop": None, "sqnr_db": None, "minutes": 1, **bounds})


@pytest.mark.parametrize("bounds", [{"agreement": 0.9}, {"accuracy_drop": 0.02}, {"sqnr_db": 20}])
def test_a_figure_at_its_bound_is_within(bounds):
    assert over_budget(FIGURES, budget(**bounds)) == []


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"agreement": 0.91}, "0.9 of the samples keep PyTorch's answer, budget.agreement is 0.91"),
        ({"accuracy_drop": 0.01}, "the accuracy drops by 0.02, budget.accuracy_drop is 0.01"),
        ({"sqnr_db": 21}, "the SQNR is 20 dB, budget.sqnr_db is 21"),
    ],
)
def test_a_figure_beyond_its_bound_is_said(bounds, message):
    assert over_budget(FIGURES, budget(**bounds)) == [message]


def test_a_margin_is_asked_for_on_top_and_named():
    assert over_budget(FIGURES, budget(sqnr_db=19), margin_db=1) == []
    assert over_budget(FIGURES, budget(sqnr_db=19.5), margin_db=1) == [
        "the SQNR is 20 dB, budget.sqnr_db is 19.5 and the margin 1"
    ]


def test_every_bound_that_is_missed_is_said():
    assert len(over_budget(FIGURES, budget(agreement=1, accuracy_drop=0, sqnr_db=30))) == 3


def test_nan_is_beyond_any_budget_and_perfection_within():
    nothing_finite = FIGURES | {"sqnr_db": None, "max_abs_error": None}
    assert over_budget(nothing_finite, budget(agreement=0.1)) == ["an output holds NaN or infinity"]
    perfect = FIGURES | {"sqnr_db": None, "max_abs_error": 0.0}
    assert over_budget(perfect, budget(sqnr_db=100)) == []


def test_an_answer_where_zeros_should_be_is_beyond_any_bound():
    zeros = FIGURES | {"sqnr_db": None, "max_abs_error": 0.1}
    assert over_budget(zeros, budget(sqnr_db=1)) == ["the SQNR is -inf dB, budget.sqnr_db is 1"]


def test_a_task_without_classes_needs_a_bound_that_it_has():
    tensor = SPEC.model_copy(update={"task": "tensor"})
    check_budget(budget(agreement=0.9), SPEC)
    check_budget(budget(sqnr_db=20), tensor)
    with pytest.raises(ParameterError, match=r"task tensor does not have. Set budget\.sqnr_db"):
        check_budget(budget(agreement=0.9), tensor)
