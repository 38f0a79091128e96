"""Lists name the first items and count the rest, and tables have straight columns."""

from onnx_release.core.plain_text import align_columns, first_few, first_few_lines


def test_a_short_list_is_whole_and_a_long_one_counts_the_rest():
    assert first_few(["a", "b"], 2) == "a, b"
    assert first_few(["a", "b", "c", "d"], 2) == "a, b and 2 more"
    assert first_few_lines(["a", "b", "c"], 2) == "\n  a\n  b\n  and 1 more"
    assert first_few_lines([], 2) == ""


def test_columns_are_aligned_without_spaces_at_the_ends_of_lines():
    assert align_columns([("name", "dB"), ("x", "20")]) == "name  dB\nx     20"
