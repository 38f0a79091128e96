"""What is said of each model of two revisions in its line."""

import functools

import pytest

from onnx_release.core.errors import RevisionError
from onnx_release.review.revisions import Revision
from onnx_release.review.side_by_side import compare_model, compare_models
from tests.revisions import MODEL, as_json, changed, release

pytestmark = pytest.mark.usefixtures("fewer_resamples")
METRICS = f"metrics/{MODEL}"
FILES = release()


def revision(name="a revision", **models):
    """A revision with the metrics of several models, each given as the files of digits_cnn."""
    metrics = {
        path.replace(f"/{MODEL}/", f"/{model}/"): content
        for model, files in models.items()
        for path, content in files.items()
        if path.startswith("metrics/")
    }
    return Revision(name, metrics)


def line(head, base=FILES):
    """The release and the verdict of a model; None for the files of a side that lacks it."""
    before, after = (revision() if files is None else revision(digits=files) for files in (base, head))
    found = compare_model(before, after, "digits")
    return found.release, found.verdict


def test_a_model_that_has_not_moved_passed_or_failed():
    assert line(FILES) == ("int8_static", "passed, nothing moved")
    failed = changed(FILES, f"{METRICS}/validate/fp32.json", passed=False)
    assert line(failed, failed) == ("int8_static", "FAILED (fp32), nothing moved")
    none = changed(FILES, f"{METRICS}/summary.json", variant=None)
    assert line(none, none) == ("nothing", "FAILED (nothing to release), nothing moved")


def test_a_variant_that_is_left_out_has_not_failed():
    without = {**FILES, f"{METRICS}/validate/fp32.json": as_json({"left_out": True})}
    assert line(without, without) == ("int8_static", "passed, nothing moved")


def test_what_has_moved_is_counted_the_worst_first():
    export = f"{METRICS}/export.json"
    head = changed(FILES, export, nodes=41, size_mb=0.2, opset=20, parts=1)
    assert line(head) == ("int8_static", "1 worse, 1 better, 1 changed, 1 new")
    assert line(FILES, head) == ("int8_static", "1 worse, 1 better, 1 changed, 1 gone")


def test_a_model_that_has_moved_and_fails_says_both():
    head = changed(FILES, f"{METRICS}/validate/fp32.json", passed=False)
    assert line(head) == ("int8_static", "FAILED (fp32), 1 worse")


def test_both_variants_are_named_if_another_is_released():
    head = changed(release(1, int8_static=30.0), f"{METRICS}/summary.json", variant="fp32", size_mb=0.25)
    variant, verdict = line(head)
    assert variant == "int8_static, now fp32" and " worse, " in verdict


def test_a_release_that_noise_has_changed_is_no_move_beyond_it():
    head = changed(release(1), f"{METRICS}/summary.json", variant="fp32")
    assert line(head) == ("int8_static, now fp32", "passed, nothing moved beyond the noise")


def test_what_does_not_compare_is_counted_with_its_reason():
    one, other = (changed(FILES, f"{METRICS}/validate/{name}.json", sqnr_db=None) for name in ("fp32", "int8_static"))
    assert line(one)[1] == "passed, nothing moved, 1 not comparable (it is null in the head)"
    assert line(one, other)[1] == "passed, nothing moved, 2 not comparable (for 2 reasons, which --all lists)"


def test_another_machine_is_a_change_that_the_model_s_own_part_explains():
    assert line(changed(FILES, f"{METRICS}/benchmark.json", machine="another"))[1] == "1 changed"


def test_a_model_that_only_one_side_has_is_new_or_gone():
    assert line(FILES, None) == ("int8_static", "new, passed")
    failed = changed(FILES, f"{METRICS}/validate/fp32.json", passed=False)
    assert line(failed, None) == ("int8_static", "new, FAILED (fp32)")
    assert line(None, FILES) == ("int8_static", "gone")


@functools.cache
def compared():
    base = revision("main (1234567)", a=FILES, a_large=FILES, old=FILES)
    head = revision("the workspace", a_large=changed(FILES, f"{METRICS}/export.json", nodes=41), a=FILES, young=FILES)
    return base, head


def test_all_models_of_either_side_are_compared_and_none_is_taken_for_another():
    found = {one.name: one.verdict for one in compare_models(*compared())}
    assert list(found.items()) == [
        ("a", "passed, nothing moved"),
        ("a_large", "1 worse"),
        ("old", "gone"),
        ("young", "new, passed"),
    ]
    assert [one.name for one in compare_models(*compared()) if one.moved] == ["a_large"]


@pytest.mark.parametrize("name", ["a", "old", "young"])
def test_one_model_may_be_named(name):
    base, head = compared()
    assert [one.name for one in compare_models(base, head, name)] == [name]


def test_a_model_that_neither_side_has_is_refused_with_those_that_there_are():
    base, head = compared()
    with pytest.raises(RevisionError, match="has metrics of a_l, but of a, a_large, old, young: choose one of them"):
        compare_models(base, head, "a_l")
