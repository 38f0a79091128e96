"""Of those that passed, may ship and could be timed, the most exact of the fastest."""

from onnx_release.choice.choice import Validated, choose, summarise
from onnx_release.core.variants import SHIPPABLE
from onnx_release.timing.metrics import BenchmarkMetrics
from tests.candidates import candidate
from tests.release_project import BENCHMARK

SQNR = {"export": 121.0, "fp32": 121.0, "fp16": 44.0, "int8_dynamic": 46.0, "int8_static": 22.0}


def chosen(latencies, failed=(), alike=None):
    """Variants that are not in `latencies` take a second; `export` is the fastest of all."""
    timed = {"export": 0.1, **dict.fromkeys(SHIPPABLE, 1000.0), **latencies}
    best = choose(
        [
            candidate(
                variant,
                latency,
                passed=variant not in failed,
                sqnr_db=SQNR[variant],
                no_difference_from=(alike or {}).get(variant, ""),
            )
            for variant, latency in timed.items()
        ]
    )
    return best.name if best else None


def test_the_fastest_is_chosen_and_never_the_raw_export():
    assert chosen({"int8_static": 1.0, "fp32": 2.0}) == "int8_static"


def test_of_those_that_no_difference_sets_apart_it_is_the_most_exact():
    latencies = {"int8_static": 1.0, "fp16": 1.1, "int8_dynamic": 1.2, "fp32": 2.0}
    alike = {"int8_static": "torch_compile, export, fp16, int8_dynamic", "fp16": "int8_static, fp32"}
    assert chosen(latencies, alike=alike) == "int8_dynamic"
    assert chosen(latencies, alike=alike, failed=["int8_dynamic"]) == "fp16"
    assert chosen(latencies, alike=alike, failed=["int8_dynamic", "fp16"]) == "int8_static"


def test_what_failed_is_not_chosen():
    assert chosen({"int8_static": 1.0, "fp32": 2.0}, failed=["int8_static"]) == "fp32"


def test_what_could_not_be_timed_is_not_chosen():
    assert chosen({"int8_static": None, "fp32": 2.0}) == "fp32"


def test_if_all_failed_there_is_none():
    assert chosen({}, failed=SHIPPABLE) is None


def test_where_nothing_sets_variants_apart_the_most_exact_is_chosen_whatever_their_times():
    """As where other work took cores in most rounds."""
    alike = {"int8_static": "export, fp32, fp16, int8_dynamic"}
    assert chosen({"int8_static": 1.0, "fp32": 9.0}, alike=alike) == "fp32"


def test_why_another_one_may_not_be_released_is_in_the_summary():
    benchmark = BenchmarkMetrics.model_validate(BENCHMARK)
    candidates = [candidate("export", 1.0), candidate("fp32", 2.0), candidate("fp16", None)]
    candidates.append(candidate("int8_static", 1.0, passed=False, failure="the SQNR is 3 dB"))
    found = summarise(
        Validated(candidates, {"int8_dynamic": "no kernel"}),
        {"export": 2.0, "fp32": 1.0, "fp16": 0.5, "int8_static": 0.25},
        benchmark,
    )
    assert (found.variant, found.size_mb, found.compression) == ("fp32", 1.0, 2.0)
    assert found.refused == {
        "fp16": "it passed, but could not be timed: it hangs",
        "int8_static": "the SQNR is 3 dB",
        "int8_dynamic": "no kernel",
    }
    none = summarise(Validated([candidates[0], *candidates[2:]], {"int8_dynamic": "no kernel"}), {}, benchmark)
    assert (none.variant, none.size_mb, none.refused) == (None, None, found.refused)


def test_why_it_is_that_one_is_in_the_summary():
    def reason(*candidates):
        sizes = {one.name: 1.0 for one in candidates}
        return summarise(Validated(list(candidates), {}), sizes, BenchmarkMetrics.model_validate(BENCHMARK)).reason

    export, fp32, slower = candidate("export", 1.0), candidate("fp32", 2.0), candidate("fp16", 3.0)
    alike = candidate("fp16", 1.9, "fp32")
    assert reason(export, fp32, slower) == "the fastest variant that passed"
    assert (
        reason(export, fp32, alike)
        == "the most exact of fp32 and fp16, between which no difference in speed was measured"
    )
    assert reason(export, fp32) == "the only variant that may be released"
