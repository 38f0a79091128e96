"""spec.yaml: what contradicts itself is refused, with the key."""

import numpy as np
import pytest

from onnx_release.core.errors import SpecError
from onnx_release.core.spec import (
    Dimension,
    Images,
    Spec,
    Tensor,
    batch_axis,
    batch_dimension,
    check_array,
    check_inputs,
    class_count,
    concrete_shape,
    counted_outputs,
    largest_batch,
    load_spec,
    rows_are_the_batch,
)
from onnx_release.core.yaml_files import read_yaml
from tests.bounds import open_ended
from tests.digits_spec import DIGITS_SPEC as GOOD
from tests.imports import ROOT

LABELS = 'labels: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]'


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load the spec of digits_cnn with one text in it replaced by another."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/digits").mkdir(parents=True)

    def loaded(old="", new=""):
        assert old in GOOD
        (tmp_path / "models/digits/spec.yaml").write_text(GOOD.replace(old, new, 1))
        return load_spec("digits")

    return loaded


def test_the_text_that_is_changed_here_is_the_spec_of_digits_cnn(load):
    assert load() == read_yaml(ROOT / "models/digits_cnn/spec.yaml", Spec, SpecError)


@pytest.mark.parametrize("path", sorted(ROOT.glob("models/*/spec.yaml")), ids=lambda path: path.parent.name)
def test_every_model_s_spec_loads(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert load_spec(path.parent.name).inputs


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[batch, 10]", "[batch, classes]", "logits uses the dimension classes, which is not under dimensions"),
        ("inputs:", "  width: {min: 1, max: 8, example: 2}\ninputs:", "no input or output uses the dimension width"),
        ("name: logits", "name: image", "two inputs or outputs are called image"),
        ("inputs:", "derived: [rows]\ninputs:", "no input or output uses the dimension rows"),
        ("inputs:", "derived: [batch]\ninputs:", "the derived size batch is a size of the inputs"),
        ("[fp16, int8_dynamic, int8_static]", "[int4]", r"variants\.0: .*not 'int4'"),
        ("budget:", "tolerance: {atol: -1.0}\nbudget:", r"tolerance\.atol: .*not -1"),
        ("agreement: 0.86", "agreement: 86", r"budget\.agreement: .*not 86"),
        ("agreement: 0.86", "minutes: 2", r"budget\.minutes: no such key"),
        ("example: 2", "example: 1", r"dimensions\.batch\.example: .*greater than or equal to 2, not 1"),
        ("example: 2", "example: 65", "example 65 is not between min 1 and max 64"),
        ("min: 1", "min: 2", "must allow 1"),
        ("[batch, 1, 8, 8]", "[2, 1, 8, 8]", "must allow 1"),
        ("[batch, 10]", "[batch, 10, 1]", r"must have the shape \[batch, classes\]"),
        ("dtype: float32", "dtype: float64", r"inputs\.0\.dtype: .*declare float32; .*\.float\(\), not 'float64'"),
        ("{path: weights.pth}", "{path: weights.pth, url: file:///w}", "give one of wheel, url and path"),
        ("{path: weights.pth}", "{}", "give one of wheel, url and path"),
        ("{path: weights.pth}", "{wheel: a==1}", "wheel and member go together"),
        ("sha256: 9", "sha256: x9", r"sources\.0\.sha256"),
        ("name: weights.pth", "name: ../weights.pth", "the name of a source is a plain file name"),
        ("{path: weights.pth}", "{wheel: a==1, member: b, path: c}", "give one of wheel, url and path"),
        ("{path: weights.pth}", "{path: c, member: b}", "wheel and member go together"),
        ("    from: {path: weights.pth}\n", "", r"sources\.0\.from: missing"),
        ("sha256: 920a", "sha256: 920A", r"sources\.0\.sha256"),
        ("sha256: 920a", "sha256: 20a", r"sources\.0\.sha256"),
        ("name: weights.pth", "name: ..", "the name of a source is a plain file name"),
        ("min: 1", "min: 0", "must allow 1"),
        ("min: 1", "min: -1", r"dimensions\.batch\.min: .*greater than or equal to 0, not -1"),
        ("example: 2", "example: 2, multiple_of: 2", "must allow 1"),
        ("example: 2", "example: 3, multiple_of: 2", "example 3 is not a multiple of 2"),
        ("budget:", "batch: width\nbudget:", "batch: no input has the dimension width: write null if there is none"),
        ("shape: [batch, 1, 8, 8]", "shape: [batch, 1, 8, 8], counts: true", "inputs.0.counts: no such key"),
        ("min: 1, max: 64", "min: 3, max: 64", "example 2 is not between min 3 and max 64"),
        ("[batch, 10]", "[batch, 0]", r"outputs\.0\.shape\.1.*greater than or equal to 1, not 0"),
        ("[batch, 10]", "[]", r"must have the shape \[batch, classes\]"),
        ("name: image", "name: ''", r"inputs\.0\.name: .*at least 1 character"),
        ("  - {name: image, dtype: float32, shape: [batch, 1, 8, 8]}\n", "  []\n", "inputs: .*at least 1 item"),
        ("task: classification", "task: magic", r"task: .*not 'magic'"),
        ("task: classification", "tasks: classification", "tasks: no such key; did you mean task"),
        ('labels: ["0", ', "labels: [", "labels has 9 names, logits 10 classes"),
        ('["0", "1"', '[0, "1"', "labels: name 0 is not text: write it in quotes"),
        ('"1", ', '"", ', "labels: name 1 is empty or has more than one line"),
        ('"1", ', '"1\\n", ', "labels: name 1 is empty or has more than one line"),
        (LABELS, "labels: digits.txt", "labels: digits.txt is not the name of one of the sources"),
        (LABELS, "labels: {0: zero}", "labels: give a list of names, or the name of the source"),
        ("task: classification", "task: embedding", "labels: the task embedding has no classes to name"),
        (
            "    from: {path: weights.pth}",
            "    from: {path: weights.pth}\n    release: 1",
            r"sources\.0\.release: .*not 1",
        ),
        ("    from: {path: weights.pth}", "    from: {path: weights.pth}\n    released: true", "did you mean release"),
    ],
)
def test_a_contradiction_is_named(load, old, new, message):
    with pytest.raises(SpecError, match=message):
        load(old, new)


def test_labels_of_photographs_are_names_for_people(load):
    images = "images: {folder: weights.pth, resize: 8, crop: 8, mean: [0.0], std: [1.0], classes: [zero, one]}\nbudget:"
    spec = load("budget:", images)
    assert spec.images and spec.images.classes == ["zero", "one"] and spec.labels == list("0123456789")


def test_labels_of_one_name_are_legitimate(load):
    """ImageNet has two classes called crane."""
    assert load(LABELS, f"labels: {['crane'] * 10}").labels == ["crane"] * 10


def test_names_may_lie_in_a_source_and_are_counted_where_it_is_there(load):
    """Of a detector they are what its data.py counts to, and of symbolic classes there may be any number."""
    assert load(LABELS, "labels: digits.csv.gz").labels == "digits.csv.gz"
    spec = load()
    assert class_count(spec) == 10
    assert class_count(spec.model_copy(update={"task": "detection"})) is None
    symbolic = spec.outputs[0].model_copy(update={"shape": ["batch", "classes"]})
    assert class_count(spec.model_copy(update={"outputs": [symbolic]})) is None


def test_a_batch_fixed_at_one_will_do(load):
    spec = load("[batch, 1, 8, 8]", "[1, 1, 8, 8]")
    assert concrete_shape(spec.inputs[0], {}) == (1, 1, 8, 8)


def test_several_sizes_are_put_in_their_places():
    tensor = Tensor(name="x", dtype="float32", shape=["batch", 3, "height", "width"])
    assert concrete_shape(tensor, {"width": 5, "batch": 1, "height": 4}) == (1, 3, 4, 5)


def test_a_model_without_spec_yaml_is_told_to_write_it(load, tmp_path):
    load()
    (tmp_path / "models/digits/spec.yaml").unlink()
    with pytest.raises(SpecError, match=r"models/digits/spec\.yaml is not there: .*write the file"):
        load_spec("digits")


@pytest.mark.parametrize(
    ("shapes", "key", "batch", "axes"),
    [
        ({"x": ["batch", 3], "scale": [], "table": [20, 3]}, {}, "batch", [0, None, None]),
        ({"x": ["time", "batch", 3], "state": [2, "batch"]}, {}, "batch", [1, 1]),
        ({"x": ["n", 3], "y": ["n"]}, {}, "n", [0, 0]),
        ({"x": ["n", 3], "edges": [2, "m"]}, {}, None, [None, None]),
        ({"x": ["many", 3]}, {}, None, [None]),
        ({"x": [1, 3]}, {}, 1, [0]),
        ({"x": [4, 3]}, {}, None, [None]),
        ({"scale": []}, {}, None, [None]),
        ({"x": ["n", 3]}, {"batch": None}, None, [None]),
        ({"x": [3, "n"]}, {"batch": "n"}, "n", [1]),
    ],
    ids=str,
)
def test_the_batch_is_found_on_any_axis_or_none(shapes, key, batch, axes):
    bounds = {"many": {"min": 4, "max": 9, "example": 5}}
    names = {axis for shape in shapes.values() for axis in shape if isinstance(axis, str)}
    inputs = [{"name": name, "dtype": "float32", "shape": shape} for name, shape in shapes.items()]
    spec = Spec.model_validate(
        {
            "task": "tensor",
            "sources": [],
            "variants": [],
            "dimensions": {name: bounds.get(name, {"min": 1, "max": 9, "example": 2}) for name in names},
            "inputs": inputs,
            "outputs": [{"name": "out", "dtype": "float32", "shape": [3]}],
            **key,
        }
    )
    assert batch_dimension(spec) == batch
    assert [batch_axis(tensor, spec) for tensor in spec.inputs] == axes
    assert largest_batch(spec) == (9 if isinstance(batch, str) else 1)
    assert not rows_are_the_batch(spec)


def test_sizes_in_steps_are_rounded_inwards():
    bounds = Dimension(min=1, max=100, example=64, multiple_of=32)
    assert (bounds.smallest, bounds.largest) == (32, 96)


def test_outputs_of_whole_numbers_count_only_where_there_are_no_others_or_the_spec_says_so(load):
    def counted(extra):
        spec = load("outputs:\n", f"outputs:\n{extra}")
        return [tensor.name for tensor in counted_outputs(spec)]

    logits = "  - {name: a, dtype: float32, shape: [batch, 10]}\n"
    assert counted(f"{logits}  - {{name: best, dtype: int64, shape: [batch]}}\n") == ["a", "logits"]
    assert counted(logits.replace("]}", "], counts: false}")) == ["logits"]
    assert counted(f"{logits}  - {{name: best, dtype: int64, shape: [batch], counts: true}}\n") == [
        "a",
        "best",
        "logits",
    ]
    only = load("{name: logits, dtype: float32", "{name: logits, dtype: int64")
    assert [tensor.name for tensor in counted_outputs(only)] == ["logits"]


def test_an_unknown_model_where_there_is_none_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match="no model called resnet: models/ has none"):
        load_spec("resnet")


@pytest.mark.parametrize("name", ["../secret", "models/digits", "..", ".", "", "digits-cnn", "digits.partial"])
def test_what_is_no_name_of_a_model_is_never_a_path(load, tmp_path, name):
    load()
    for folder in ("secret", "models/models/digits", "models/digits-cnn", "models/digits.partial"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "spec.yaml").write_text(GOOD)
    with pytest.raises(SpecError, match=f"there is no model called {name}: models/ has "):
        load_spec(name)


def test_an_unknown_model_lists_those_there_are(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SpecError, match=r"no model called resnet: models/ has .*digits_cnn.*mobilenet_v2"):
        load_spec("resnet")


def test_an_array_binds_dimensions_and_is_held_against_them(load):
    spec = load()
    (image,), (logits,) = spec.inputs, spec.outputs
    sizes: dict[str, int] = {}
    assert check_array(image, "float32", (3, 1, 8, 8), sizes) is None
    assert sizes == {"batch": 3}
    assert check_array(logits, "float32", (3, 10), sizes) is None
    assert "batch is 3" in str(check_array(logits, "float32", (4, 10), sizes))
    assert "10 is 10" in str(check_array(logits, "float32", (3, 11), sizes))
    assert "float64 where float32" in str(check_array(logits, "float64", (3, 10), sizes))
    assert "has the shape [3]" in str(check_array(logits, "float32", (3,), sizes))
    assert concrete_shape(image, {"batch": 5}) == (5, 1, 8, 8)


def test_a_dimension_that_stands_twice_has_one_size():
    square = Tensor(name="x", dtype="float32", shape=["batch", "side", "side"])
    assert check_array(square, "float32", (1, 3, 3), {}) is None
    assert check_array(square, "float32", (1, 3, 4), {}) == (
        "x has the shape [1, 3, 4] where ['batch', 'side', 'side'] is declared (side is 3)"
    )
    assert "side is 5" in str(check_array(square, "float32", (1, 3, 3), {"side": 5}))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: weights.pth", "name: ''", "the name of a source is a plain file name"),
        ("name: weights.pth", "name: digits.csv.gz", "two sources are called digits.csv.gz"),
        ("name: image", "name: a/image", r"inputs\.0\.name: .*not 'a/image'"),
    ],
)
def test_a_name_that_cannot_be_kept_is_refused(load, old, new, message):
    with pytest.raises(SpecError, match=message):
        load(old, new)


def test_variants_without_a_budget_are_refused(load):
    budget = GOOD[GOOD.index("budget:") :]
    with pytest.raises(SpecError, match="say in budget how much they may lose, or write `variants: "):
        load(budget, "")


def test_derived_sizes_of_outputs_are_free_but_the_same_everywhere(make_spec):
    spec = Spec.model_validate(
        {
            **make_spec({"x": ["batch", "width"]}, {"y": ["batch"]}, batch=(1, 4, 2), width=(2, 9, 4)).model_dump(),
            "derived": ["columns"],
            "outputs": [{"name": n, "dtype": "float32", "shape": ["batch", "columns"]} for n in ("y", "z")],
        }
    )
    sizes = {"batch": 2, "width": 9}
    assert check_array(spec.outputs[0], "float32", (2, 4), sizes) is None
    assert check_array(spec.outputs[1], "float32", (2, 5), sizes) == (
        "z has the shape [2, 5] where ['batch', 'columns'] is declared (columns is 4)"
    )


def cached(mask, output=None):
    """A spec of a cache, new tokens and a mask, the first input, whose second axis is given."""
    inputs = {"mask": ["batch", mask], "new": ["batch", "sequence"], "cache": ["batch", "past"]}
    axes = [{"name": name, "dtype": "float32", "shape": shape} for name, shape in inputs.items()]
    return Spec.model_validate(
        {
            "task": "tensor",
            "sources": [],
            "variants": [],
            "dimensions": {
                "batch": {"min": 1, "max": 4, "example": 2},
                "sequence": {"min": 1, "max": 6, "example": 3},
                "past": {"min": 0, "max": 8, "example": 4},
            },
            "inputs": axes,
            "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", output or mask]}],
        }
    )


def test_a_formula_is_the_size_of_an_axis_whatever_input_shows_its_sizes_first():
    spec = cached("past + sequence", "(past + 2 * sequence) // 2 - 1")
    assert concrete_shape(spec.inputs[0], {"batch": 2, "past": 0, "sequence": 3}) == (2, 3)
    assert concrete_shape(spec.outputs[0], {"batch": 2, "past": 5, "sequence": 3}) == (2, 4)
    good = {"mask": np.ones((2, 7), "float32"), "new": np.ones((2, 3), "float32"), "cache": np.ones((2, 4), "float32")}
    sizes: dict[str, int] = {}
    assert check_inputs(spec, good, sizes) is None and sizes == {"batch": 2, "sequence": 3, "past": 4}
    assert check_inputs(spec, good | {"mask": np.ones((2, 6), "float32")}, {}) == (
        "mask has the shape [2, 6] where ['batch', 'past + sequence'] is declared (past + sequence is 7)"
    )


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        ("past + tokens", "mask uses the dimension tokens, which is not under dimensions"),
        ("past - sequence", "mask: `past - sequence` is no size at past 0, sequence 1"),
        ("sequence // past", "'sequence // past' is neither .* // by a positive number"),
        ("8 // (past - 3)", "is neither"),
        ("past // 0", "is neither"),
        ("past + batch", "mask: the batch is an axis of its own, not a part of `past [+] batch`"),
        ("past ** 2", "'past [*][*] 2' is neither the name of a size .* nor a formula of such names"),
        ("past / 2", "'past / 2' is neither"),
        ("len(past)", "is neither"),
        ("past +", "is neither"),
        ("past + 1.5", "is neither"),
        ("2", "the size '2' is a number: write it without quotes"),
    ],
)
def test_what_is_no_size_at_some_sizes_is_refused(formula, message):
    with pytest.raises(ValueError, match=message):
        cached(formula)


def test_the_batch_is_in_no_formula_whatever_its_name(make_spec):
    sizes = {"n": (1, 4, 2)}
    with pytest.raises(ValueError, match="the batch is an axis of its own"):
        make_spec({"x": ["n", 3], "pairs": ["n", "n + 1"]}, {"y": ["n"]}, **sizes)
    assert not rows_are_the_batch(make_spec({"x": ["n", 3]}, {"y": ["n", "n + 1"]}, **sizes))
    spec = make_spec({"starts": ["n + 1"], "x": ["n", 3]}, {"y": ["n"]}, **sizes)
    assert batch_dimension(spec) is None
    with pytest.raises(ValueError, match="the dimension 'num-boxes': its name has letters, digits and _"):
        make_spec({"x": ["num-boxes"]}, {"y": [1]}, **{"num-boxes": (1, 4, 2)})


def test_a_formula_of_inputs_has_only_sizes_that_an_axis_shows(make_spec):
    with pytest.raises(ValueError, match=r"x: no input has an axis of the size pairs that `2 \* pairs` follows"):
        make_spec({"x": ["batch", "2 * pairs"]}, {"y": ["batch", "pairs"]}, batch=(1, 4, 2), pairs=(1, 4, 2))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ({"crop": 300}, "a crop of 300 pixels does not fit into 256"),
        ({"mean": [0.5]}, "three values each for RGB, or one each for grey"),
        ({"mean": [0.5, 0.5], "std": [1.0, 1.0]}, "three values each for RGB, or one each for grey"),
        ({"evaluation": 1.0}, "less than 1"),
        ({"std": [0.2, 0.0, 0.2]}, "greater than 0"),
    ],
)
def test_images_that_cannot_be_are_refused(images, message):
    good = {"folder": "photographs", "resize": 256, "crop": 224, "mean": [0.5] * 3, "std": [0.2] * 3}
    assert Images.model_validate(good).evaluation == 0.5
    with pytest.raises(ValueError, match=message):
        Images.model_validate(good | images)


def test_every_number_has_both_ends():
    assert open_ended(Spec) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("max: 64", "max: 1e20", r"dimensions\.batch\.max: .*integer, not 1e\+20"),
        ("max: 64", "max: 100000000000000000000", r"dimensions\.batch\.max: .*less than or equal to 2147483647"),
        ("max: 64", "max: 2000000000", r"image takes 477 GiB with its dimensions at their max, .*4 GiB is the most"),
    ],
)
def test_a_dimension_that_no_memory_holds_is_refused(load, old, new, message):
    with pytest.raises(SpecError, match=message):
        load(old, new)
