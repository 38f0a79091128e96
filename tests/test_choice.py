"""The fastest that passed, may ship and could be timed."""

from onnx_release.choice import choose
from onnx_release.variants import SHIPPABLE


def chosen(latencies, failed=(), alike=""):
    """Variants that are not in `latencies` take a second; `export` is the fastest of all."""
    timed = {"export": 0.1, **dict.fromkeys(SHIPPABLE, 1000.0), **latencies}
    return choose(
        {variant: {"passed": variant not in failed} for variant in timed},
        {
            variant: {"latency_ms": {"median": latency}, "no_difference_from": alike}
            for variant, latency in timed.items()
        },
    )


def test_the_fastest_is_chosen_and_never_the_raw_export():
    assert chosen({"int8_static": 1.0, "fp32": 2.0}) == "int8_static"


def test_of_those_that_no_difference_sets_apart_it_is_the_closest_to_pytorch():
    latencies = {"int8_static": 1.0, "fp16": 1.1, "fp32": 2.0}
    assert chosen(latencies, alike="torch_compile, export, fp16") == "fp16"
    assert chosen(latencies, alike="fp16", failed=["fp16"]) == "int8_static"


def test_what_failed_is_not_chosen():
    assert chosen({"int8_static": 1.0, "fp32": 2.0}, failed=["int8_static"]) == "fp32"


def test_what_could_not_be_timed_is_not_chosen():
    assert chosen({"int8_static": None, "fp32": 2.0}) == "fp32"


def test_if_all_failed_there_is_none():
    assert chosen({}, failed=SHIPPABLE) is None
