"""What is beyond the budget, and which budgets a task can have."""

from dataclasses import replace

import pytest

from onnx_release.core.spec import Budget, check_budget
from onnx_release.measure.budget import describe_budget, over_budget
from onnx_release.measure.closeness import Closeness

FOUND = Closeness(sqnr_db=20.0, max_abs_error=0.1, cosine=0.99, agreement=0.9, accuracy_drop=0.02)


@pytest.mark.parametrize("bounds", [{"agreement": 0.9}, {"accuracy_drop": 0.02}, {"sqnr_db": 20}, {"cosine": 0.99}])
def test_a_figure_at_its_bound_is_within(bounds):
    assert over_budget(FOUND, Budget(**bounds)) == []


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"agreement": 0.91}, "0.9 of the samples keep PyTorch's answer, budget.agreement is 0.91"),
        ({"accuracy_drop": 0.01}, "the accuracy drops by 0.02, budget.accuracy_drop is 0.01"),
        ({"sqnr_db": 21}, "the SQNR is 20 dB, budget.sqnr_db is 21"),
        ({"cosine": 0.991}, "the mean cosine with PyTorch is 0.99, budget.cosine is 0.991"),
    ],
)
def test_a_figure_beyond_its_bound_is_said(bounds, message):
    assert over_budget(FOUND, Budget(**bounds)) == [message]


def test_a_margin_is_asked_for_on_top_and_named():
    assert over_budget(FOUND, Budget(sqnr_db=19), margin_db=1) == []
    assert over_budget(FOUND, Budget(sqnr_db=19.5), margin_db=1) == [
        "the SQNR is 20 dB, budget.sqnr_db is 19.5 and the margin 1"
    ]


def test_every_bound_that_is_missed_is_said():
    assert len(over_budget(FOUND, Budget(agreement=1, accuracy_drop=0, sqnr_db=30))) == 3


def test_nan_is_beyond_any_budget_and_perfection_within():
    nothing_finite = replace(FOUND, sqnr_db=None, max_abs_error=None)
    assert over_budget(nothing_finite, Budget(agreement=0.1)) == ["an output has NaN or infinity"]
    perfect = replace(FOUND, sqnr_db=None, max_abs_error=0.0)
    assert over_budget(perfect, Budget(sqnr_db=100)) == []


def test_an_answer_where_zeros_should_be_is_beyond_any_bound():
    zeros = replace(FOUND, sqnr_db=None, max_abs_error=0.1)
    assert over_budget(zeros, Budget(sqnr_db=1)) == ["the SQNR is -inf dB, budget.sqnr_db is 1"]


def test_no_number_is_beyond_a_cosine():
    assert over_budget(replace(FOUND, cosine=None), Budget(cosine=0.5)) == [
        "the mean cosine with PyTorch is no number, budget.cosine is 0.5"
    ]


def test_a_task_has_the_bounds_that_it_can_have():
    check_budget(Budget(agreement=0.9, accuracy_drop=0.1), "detection")
    check_budget(Budget(agreement=0.9, cosine=0.99), "embedding")
    check_budget(Budget(sqnr_db=20), "tensor")
    with pytest.raises(ValueError, match=r"budget\.agreement: the task tensor has no answers"):
        check_budget(Budget(agreement=0.9), "tensor")
    with pytest.raises(ValueError, match=r"budget\.accuracy_drop: the task embedding has no right answers"):
        check_budget(Budget(accuracy_drop=0.1), "embedding")


def test_a_budget_that_bounds_nothing_is_refused():
    with pytest.raises(ValueError, match="it has no bound"):
        Budget()


def test_the_budget_in_words():
    budget = Budget(agreement=0.9, sqnr_db=19.5)
    assert describe_budget(budget) == (
        "at least 90% of the samples keep PyTorch's answer, the SQNR is at least 19.5 dB"
    )


@pytest.mark.parametrize(
    ("figures", "failures"),
    [
        ({"accuracy_drop": 0.0, "changed_answers": 0.5}, []),  # what changes may still be right
        ({"accuracy_drop": -0.01}, []),
        ({"accuracy_drop": None, "changed_answers": 0.01}, []),
        (
            {"accuracy_drop": None, "changed_answers": 0.02},
            ["0.02 of the answers change on samples without a label, budget.accuracy_drop is 0.01"],
        ),
        (
            {"accuracy_drop": None},
            ["no sample has a label, so the lost accuracy is unknown, budget.accuracy_drop is 0.01"],
        ),
        ({}, ["no sample has a label, so the lost accuracy is unknown, budget.accuracy_drop is 0.01"]),
    ],
)
def test_a_bound_on_accuracy_is_held_by_labels_and_in_the_search_by_changed_answers_without_any(figures, failures):
    found = over_budget(Closeness(20.0, 0.1, 0.99, **figures), Budget(accuracy_drop=0.01))
    assert found == failures
