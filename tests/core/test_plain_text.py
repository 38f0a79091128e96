"""Lists name the first items and count the rest, and tables have straight columns."""

from onnx_release.core.plain_text import align_columns, count_of, first_few, first_few_lines


def test_a_short_list_is_whole_and_a_long_one_counts_the_rest():
    assert first_few(["a", "b"], 2) == "a, b"
    assert first_few(["a", "b", "c", "d"], 2) == "a, b and 2 more"
    assert first_few_lines(["a", "b", "c"], 2) == "\n  a\n  b\n  and 1 more"
    assert first_few_lines([], 2) == ""


def test_a_count_has_its_noun_in_the_singular_or_the_plural():
    nouns = ("error", "class", "axis", "entry", "class folder")
    assert [count_of(1, noun) for noun in nouns] == [f"1 {noun}" for noun in nouns]
    plurals = ["2 errors", "2 classes", "2 axes", "2 entries", "2 class folders"]
    assert [count_of(2, noun) for noun in nouns] == plurals
    assert count_of(0, "byte") == "0 bytes"


def test_columns_are_aligned_without_spaces_at_the_ends_of_lines():
    assert align_columns([("name", "dB"), ("x", "20")]) == "name  dB\nx     20"
