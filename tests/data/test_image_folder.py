"""A folder of photographs is a model's data with no code: read, split and normalised, or what is wrong is named."""

import re
import sys
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from onnx_release.core.errors import DataError, SpecError
from onnx_release.core.params import Prepare
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Spec
from onnx_release.core.yaml_files import read_yaml
from onnx_release.data.image_folder import ImageFolder, resized
from onnx_release.data.model_data import load_data
from onnx_release.data.samples import SampleFile, write_splits

PHOTOGRAPHS = """
task: {task}
sources:
  - {{name: {source}, sha256: {sum}, from: {{path: flowers}}}}{more_sources}
images:
  folder: flowers
  resize: {resize}
  crop: 4
  mean: {mean}
  std: {std}
  {more}
dimensions: {{batch: {{min: 1, max: 4, example: 2}}}}
inputs: [{{name: x, dtype: float32, shape: {shape}}}]
outputs: [{{name: y, dtype: float32, shape: [batch, {classes}]}}]
variants: []
"""


@pytest.fixture
def make(make_spec):
    """The data of a spec whose images are three by default: roses, tulips and asters."""

    def make(more="", **changes):
        return ImageFolder(make_spec(more, **changes))

    return make


@pytest.fixture
def make_spec(tmp_path):
    def make_spec(more="", **changes):
        values = {"source": "flowers", "sum": "a" * 64, "classes": 3, "shape": "[batch, 3, 4, 4]"}
        values |= {"more_sources": "", "resize": 6}
        values |= {"task": "classification", "mean": "[0.5, 0.5, 0.5]", "std": "[0.5, 0.25, 0.125]", "more": more}
        text = PHOTOGRAPHS.format(**values | changes)
        (tmp_path / "spec.yaml").write_text(text)
        return read_yaml(tmp_path / "spec.yaml", Spec, SpecError)

    return make_spec


@pytest.fixture
def raw(tmp_path):
    """flowers/ with five, nine and two photographs, each of one colour that no other has."""
    shade = 0
    for name, count in (("tulips", 9), ("asters", 5), ("roses", 2)):
        (tmp_path / "raw/flowers" / name).mkdir(parents=True)
        for index in range(count):
            suffix = ("png", "JPG", "jpeg")[index % 3]
            Image.new("RGB", (8, 6), (shade, 0, 0)).save(tmp_path / "raw/flowers" / name / f"{index}.{suffix}")
            shade += 10
    return tmp_path / "raw"


def test_labels_are_the_places_of_the_sorted_folders_and_groups_the_paths(make, raw):
    samples = [sample for split in ("calibration", "evaluation") for sample in make().samples(raw, split)]
    assert {sample.group.split("/")[0]: sample.label for sample in samples} == {"asters": 0, "roses": 1, "tulips": 2}
    assert len({sample.group for sample in samples}) == len(samples) == 16
    assert "tulips/1.JPG" in {sample.group for sample in samples}


def test_declared_classes_number_the_folders(make, raw):
    samples = list(make("classes: [tulips, roses, asters, lilies]", classes=5).samples(raw, "evaluation"))
    assert {sample.group.split("/")[0]: sample.label for sample in samples} == {"tulips": 0, "roses": 1, "asters": 2}


def test_each_split_holds_its_share_of_every_class_and_one_at_least(make, raw):
    data = make("evaluation: 0.25")
    evaluation, calibration = (
        Counter(sample.label for sample in data.samples(raw, split)) for split in ("evaluation", "calibration")
    )
    assert evaluation == {0: 1, 1: 1, 2: 2}  # of 5, 2 and 9
    assert calibration == {0: 4, 1: 1, 2: 7}


def test_the_first_samples_hold_all_classes_about_equally(make, raw):
    for split in ("calibration", "evaluation"):
        labels = [sample.label for sample in make().samples(raw, split)]
        assert sorted(labels[:3]) == [0, 1, 2] and sorted(labels[3:5]) == [0, 2]


def test_fewer_samples_than_classes_are_of_classes_from_all_over(make, tmp_path):
    """params.yaml takes the first samples: they are not those of the first classes by name."""
    fill(tmp_path / "flowers", {f"{index:02d}": 2 for index in range(40)})
    for split in ("calibration", "evaluation"):
        labels = [sample.label for sample in make(classes=40).samples(tmp_path, split)]
        assert len(set(labels)) == 40
        assert sum(label < 20 for label in labels[:20]) in range(5, 16)


def fill(folder, counts):
    """Photographs of one pixel in a folder for each class, as many as `counts` has of it."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (1, 1), (index, 0, 0)).save(folder / name / f"{index}.png")


def drawn(data, raw):
    """The groups of each split, sorted."""
    return {
        split: sorted(sample.group for sample in data.samples(raw, split)) for split in ("calibration", "evaluation")
    }


@pytest.mark.parametrize(("more", "calibration"), [("", 11), ("evaluation: 0.25", 16), ("evaluation: 0.01", 21)])
def test_classes_of_one_photograph_are_divided_together(make, tmp_path, more, calibration):
    """20 classes of one and one of two: each split has its share of the twenty, and one of the two."""
    fill(tmp_path / "flowers", {f"{index:02d}": 1 for index in range(20)} | {"pair": 2})
    splits = drawn(make(more, classes=21), tmp_path)
    found = [len(groups) for groups in splits.values()]
    assert found == [min(calibration, 20), 22 - min(calibration, 20)]  # one at least is evaluated on
    assert sum(group.startswith("pair/") for group in splits["calibration"]) == 1
    assert not set(splits["calibration"]) & set(splits["evaluation"])
    assert splits == drawn(make(more, classes=21), tmp_path)
    assert splits != drawn(make(f"{more}\n  seed: 1", classes=21), tmp_path)


def test_a_single_class_of_one_photograph_is_evaluated_on(make, tmp_path):
    fill(tmp_path / "flowers", {"asters": 2, "roses": 4, "tulips": 1})
    assert "tulips/0.png" in drawn(make(), tmp_path)["evaluation"]


def test_two_classes_of_one_photograph_have_one_in_each_split(make, tmp_path):
    fill(tmp_path / "flowers", {"asters": 1, "tulips": 1})
    assert [len(groups) for groups in drawn(make(classes=2), tmp_path).values()] == [1, 1]


HELD_OUT = ["val", "valid", "validation", "test"]


@pytest.mark.parametrize("held_out", HELD_OUT)
def test_an_official_split_is_kept(make, tmp_path, held_out):
    """The classes are the folders of train/; those of the other may be fewer, and photographs may have one name."""
    fill(tmp_path / "flowers/train", {"asters": 2, "roses": 1, "tulips": 3})
    fill(tmp_path / f"flowers/{held_out}", {"roses": 1, "tulips": 1})
    data = make()
    assert drawn(data, tmp_path) == {
        "calibration": [
            *("train/asters/0.png", "train/asters/1.png", "train/roses/0.png"),
            *(f"train/tulips/{index}.png" for index in range(3)),
        ],
        "evaluation": [f"{held_out}/roses/0.png", f"{held_out}/tulips/0.png"],
    }
    labels = [sample.label for sample in data.samples(tmp_path, "calibration")]
    assert sorted(labels[:3]) == [0, 1, 2] and labels[3:] in ([0, 2, 2], [2, 0, 2])
    assert sorted(sample.label for sample in data.samples(tmp_path, "evaluation")) == [1, 2]


def test_of_a_split_in_three_the_second_is_evaluated_on(make, tmp_path):
    fill(tmp_path / "flowers/train", {"asters": 1, "roses": 1, "tulips": 1})
    fill(tmp_path / "flowers/valid", {"asters": 1})
    fill(tmp_path / "flowers/test", {"roses": 1})
    assert drawn(make(), tmp_path)["evaluation"] == ["valid/asters/0.png"]


def test_train_and_test_may_be_classes(make, tmp_path):
    fill(tmp_path / "flowers", {"bus": 2, "test": 2, "train": 2})
    assert {group.split("/")[0] for group in drawn(make(), tmp_path)["evaluation"]} == {"bus", "test", "train"}


def test_a_share_of_an_official_split_is_refused(make, tmp_path):
    for name in ("train", "val"):
        fill(tmp_path / "flowers" / name, {"asters": 1, "roses": 1, "tulips": 1})
    expect(make("evaluation: 0.5"), tmp_path, r"has train/ and val/, .*remove `images\.evaluation` from spec\.yaml")
    assert drawn(make("seed: 3"), tmp_path) == drawn(make(), tmp_path)


def test_a_class_that_is_held_out_alone_is_named(make, tmp_path):
    fill(tmp_path / "flowers/train", {"asters": 1, "roses": 1, "tulips": 1})
    fill(tmp_path / "flowers/val", {"asters": 1, "lilies": 1})
    expect(make(), tmp_path, r"val has the folders lilies, which .*train does not have")
    declared = make("classes: [asters, roses, tulips, lilies]", classes=4)
    assert sorted(sample.label for sample in declared.samples(tmp_path, "evaluation")) == [0, 3]


@pytest.mark.parametrize("half", ["train", "val", "test"])
def test_half_of_a_split_is_named(make, tmp_path, half):
    fill(tmp_path / "flowers" / half, {"asters": 2, "roses": 2, "tulips": 2})
    other = "val" if half == "train" else "train"
    expect(make(), tmp_path, rf"flowers has {half}/CLASS and no {other}/CLASS, .* or make the folder {half} itself")
    (tmp_path / "flowers" / half).rename(tmp_path / "itself")
    (tmp_path / "flowers").rmdir()
    (tmp_path / "itself").rename(tmp_path / "flowers")
    assert [len(groups) for groups in drawn(make(), tmp_path).values()] == [3, 3]


def test_photographs_without_a_class_are_no_half_of_a_split(make, tmp_path):
    """As test/ of many competitions has them."""
    fill(tmp_path / "flowers/train", {"asters": 1, "roses": 1, "tulips": 1})
    fill(tmp_path / "flowers", {"test": 2})
    expect(make(), tmp_path, "has train/CLASS and no val/CLASS")
    fill(tmp_path / "flowers/val", {"asters": 1, "roses": 1, "tulips": 1})
    assert {group.split("/")[0] for group in drawn(make(), tmp_path)["evaluation"]} == {"val"}


@pytest.mark.parametrize("other", ["extra", "validation"])
def test_what_lies_beside_a_split_is_named(make, tmp_path, other):
    for name in ("train", "val", "test", other):
        fill(tmp_path / "flowers" / name, {"asters": 1, "roses": 1, "tulips": 1})
    expect(make(), tmp_path, rf"divided into train and val, but has other folders too \({other}\)")


def test_the_seed_draws_the_split(make, raw):
    def drawn(more):
        return [sample.group for sample in make(more).samples(raw, "evaluation")]

    assert drawn("") == drawn("seed: 0")
    assert drawn("") != drawn("seed: 1")


def test_a_photograph_is_resized_cut_in_the_middle_and_normalised(make):
    image = np.zeros((6, 12, 3), np.uint8)  # the shorter side is at its size
    image[:, 6:] = (255, 51, 0)
    x = make().preprocess(image)["x"]
    assert (x.dtype, x.shape) == (np.float32, (3, 4, 4))
    # By hand: (v / 255 - 0.5) / std, the edge in the middle of the four columns.
    assert x[:, 0, 1] == pytest.approx([-1, -2, -4])
    assert x[:, 3, 2] == pytest.approx([1, (0.2 - 0.5) / 0.25, -4])


def test_one_mean_makes_grey(make):
    data = make(mean="[0.5]", std="[0.5]", shape="[batch, 1, 4, 4]")
    x = data.preprocess(np.full((6, 6, 3), (255, 0, 0), np.uint8))["x"]
    assert x.shape == (1, 4, 4)
    assert x[0, 0, 0] == pytest.approx((76 / 255 - 0.5) / 0.5)  # 0.299 of red, ITU-R BT.601


# By hand from the rule of torchvision's Resize: int(256 * longer / shorter).
@pytest.mark.parametrize(
    ("size", "expected"), [((500, 375), (341, 256)), ((375, 500), (256, 341)), ((64, 64), (256, 256))]
)
def test_sizes_are_torchvision_s(size, expected):
    assert resized(size, 256) == expected


def test_the_server_s_way_gives_the_same_inputs(make, raw):
    data = make()
    samples = list(data.samples(raw, "evaluation"))
    contents = list(data.encoded(raw))
    assert len(contents) == len(samples)
    for content, sample in zip(contents, samples, strict=True):
        assert np.array_equal(data.preprocess(data.decode(content))["x"], sample.inputs["x"])


def test_the_answer_is_the_likeliest_classes(make):
    prediction = make().postprocess({"y": np.log(np.array([0.2, 0.7, 0.1], np.float32))})
    assert prediction.labels.tolist() == [1, 0, 2]
    assert prediction.scores == pytest.approx([0.7, 0.2, 0.1])


def test_decoding_is_lazy(make, raw, monkeypatch):
    data = make()
    data.photographs(raw, "evaluation")
    seen = []

    def watch(self, item):
        seen.append(item)
        return {}

    monkeypatch.setattr("onnx_release.data.image_folder.CHUNK", 2)
    monkeypatch.setattr(ImageFolder, "preprocess", watch)
    next(iter(data.samples(raw, "evaluation")))
    assert len(seen) <= 2 < len(data.photographs(raw, "evaluation"))


def expect(data, raw, message):
    with pytest.raises(DataError, match=message):
        next(iter(data.samples(raw, "calibration")))


def test_all_corrupt_photographs_are_counted_and_named_before_anything_is_written(
    make_spec, raw, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    files = ModelFiles("net")
    files.raw.parent.mkdir(parents=True)
    raw = raw.rename(files.raw)
    (raw / "flowers/roses/1.JPG").write_bytes((raw / "flowers/roses/1.JPG").read_bytes()[:300])
    (raw / "flowers/tulips/0.png").write_bytes(b"")
    spec, params = make_spec(), Prepare(calibration=2, evaluation=2)
    with pytest.raises(DataError, match=r"^2 of 16 photographs cannot be read: roses/1\.JPG, tulips/0\.png\. Replace"):
        write_splits(ImageFolder(spec), files, spec, params)
    assert not list(tmp_path.glob("data/prepared/net/*"))
    for name in ("roses/1.JPG", "tulips/0.png"):
        Image.new("RGB", (8, 6)).save(raw / "flowers" / name)
    write_splits(ImageFolder(spec), files, spec, params)
    assert len(set(SampleFile(files.evaluation_samples).labels)) == 2


def test_ten_corrupt_photographs_are_named_and_the_others_counted(make, raw):
    for path in raw.rglob("*.*"):
        path.write_bytes(b"no photograph")
    expect(make(), raw, r"^16 of 16 .*: asters/0\.png, .* and 6 more\. Replace")


def test_an_empty_folder_is_named(make, tmp_path):
    (tmp_path / "flowers").mkdir()
    expect(make(), tmp_path, "flowers is empty: put the photographs into folders with the names of their classes")


def test_a_missing_folder_is_named(make, tmp_path):
    expect(make(), tmp_path, "there is no folder .*flowers")


def test_a_folder_without_classes_is_named(make, tmp_path):
    (tmp_path / "flowers").mkdir()
    (tmp_path / "flowers/LICENSE.txt").write_text("free")
    expect(make(), tmp_path, "flowers has no class folders")


def test_photographs_outside_of_a_class_are_named(make, raw):
    Image.new("RGB", (8, 6)).save(raw / "flowers/lost.jpg")
    expect(make(), raw, r"has 1 photograph without a class \(lost\.jpg\)")


def test_a_class_without_a_photograph_is_named(make, raw):
    for path in (raw / "flowers/roses").iterdir():
        path.unlink()
    expect(make(), raw, "the class folder .*flowers/roses has no photographs")


@pytest.mark.parametrize("name", ["roses/a.webp", "roses/more/a.jpg"])
def test_what_would_be_passed_over_is_named(make, raw, name):
    (raw / "flowers" / name).parent.mkdir(exist_ok=True)
    (raw / "flowers" / name).write_bytes(b"")
    expect(make(), raw, rf"no photographs by their names \({'/'.join(name.split('/')[:2])}\)")


def test_hidden_files_are_no_photographs(make, raw):
    (raw / "flowers/roses/.DS_Store").write_bytes(b"")
    assert len(list(make().samples(raw, "calibration"))) == 9


def test_a_folder_that_is_no_declared_class_is_named(make, raw):
    expect(make("classes: [roses, tulips]"), raw, r"has the folders asters, which are not among `images\.classes`")


@pytest.mark.parametrize("classes", [2, 4])
def test_another_number_of_folders_than_classes_is_refused_unless_they_are_named(make, raw, classes):
    expect(make(classes=classes), raw, f"has 3 class folders, y has {classes} classes: list the classes in the order")


def test_more_named_classes_than_the_network_has_are_refused(make):
    with pytest.raises(SpecError, match=r"images\.classes has 3 names, y 2 classes"):
        make("classes: [roses, tulips, asters]", classes=2)


COMPOSED, DECOMPOSED = "ros\u00e9s", "rose\u0301s"
TWO_FORMS = re.escape(r"'ros\xe9s' and 'rose\u0301s'")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["roses", "tulips", "roses"], "roses is named twice {}"),
        (["roses", "tulips", "Roses"], "roses and Roses {} differ only by case"),
        ([COMPOSED, "tulips", DECOMPOSED], TWO_FORMS + " {} are the same letters in two Unicode forms"),
    ],
)
def test_a_class_named_twice_is_named_with_both_places(make, raw, names, says):
    with pytest.raises(SpecError, match=r"images\.classes: " + says.format(r"\(names 0 and 2\)")):
        make(f"classes: [{', '.join(names)}]")
    (raw / "flowers.txt").write_text("\n".join(names), encoding="utf-8")
    data = make("classes: flowers.txt", more_sources=NAMES)
    expect(data, raw, r"flowers\.txt: " + says.format(r"\(lines 1 and 3\)"))


@pytest.mark.parametrize(
    ("names", "says"),
    [(["roses", "Roses"], "Roses and roses differ only by case"), ([DECOMPOSED, COMPOSED], "in two Unicode forms")],
)
def test_folders_that_are_one_on_other_systems_are_named(make, tmp_path, names, says):
    for name in names:
        fill(tmp_path / "flowers", {name: 1})
    if len(list((tmp_path / "flowers").iterdir())) == 1:
        pytest.skip("this file system has one folder of both")
    expect(make(classes=2), tmp_path, says)


def test_a_folder_is_its_class_in_either_unicode_form(make, tmp_path):
    fill(tmp_path / "flowers", {"asters": 2, DECOMPOSED: 2})
    data = make(f"classes: [{COMPOSED}, asters]", classes=2)
    assert {s.group.split("/")[0]: s.label for s in data.samples(tmp_path, "evaluation")} == {
        "asters": 1,
        DECOMPOSED: 0,
    }


def test_a_folder_whose_name_would_be_two_labels_is_named(make, raw):
    (raw / "flowers/roses").rename(raw / "flowers/red\nroses")
    expect(make(), raw, r"not one line in UTF-8 \('red\\nroses'\)")


NAMES = f"\n  - {{name: flowers.txt, sha256: {'b' * 64}, from: {{path: flowers.txt}}}}"


def test_classes_may_lie_in_a_source(make, raw):
    """As on Windows, with a mark at the start of the file, and one class that has no folder."""
    (raw / "flowers.txt").write_bytes("\ufefftulips\r\nlilies\r\nroses \r\nasters\r\n".encode())
    samples = list(make("classes: flowers.txt", classes=5, more_sources=NAMES).samples(raw, "evaluation"))
    assert {sample.group.split("/")[0]: sample.label for sample in samples} == {"tulips": 0, "roses": 2, "asters": 3}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"roses\n\nasters\n", r"line 2 of .*flowers\.txt is empty"),
        (b"roses\n\xff\n", r"flowers\.txt is not UTF-8"),
        (b"roses\ntulips\n", r"has the folders asters, which are not among `images\.classes`"),
        (b"roses\ntulips\nasters\nlilies\n", r"`images\.classes` lists 4 classes, y has 3"),
    ],
)
def test_what_is_wrong_with_a_file_of_classes_is_named(make, raw, content, says):
    (raw / "flowers.txt").write_bytes(content)
    expect(make("classes: flowers.txt", more_sources=NAMES), raw, says)


def test_a_folder_of_names_is_refused(make, raw):
    expect(make("classes: flowers"), raw, r"flowers cannot be read \(Is a directory\): it must be a text file")


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        ("names.txt", "names.txt is not the name of one of the sources"),
        ("[0, 1]", "name 0 is not text: write it in quotes"),
        ("[]", "the list is empty"),
        ("3", "give a list of names, or the name of the source"),
    ],
)
def test_classes_that_are_no_names_are_refused(make, classes, says):
    with pytest.raises(SpecError, match=rf"images\.classes: {says}"):
        make(f"classes: {classes}")


def test_one_photograph_cannot_be_divided(make, tmp_path):
    fill(tmp_path / "flowers", {"roses": 1})
    expect(make(classes=1), tmp_path, "has one photograph: at least two are needed, one for each split")


# By hand: columns at 0.5 and 1.5 become four at 0.25, 0.75, 1.25 and 1.75. Pillow's weights are the triangle's, 1 - d,
# or those of Keys' cubic with a = -1/2, 0.8672 at d = 1/4 and 0.2266 at 3/4, by their sum over the two columns.
@pytest.mark.parametrize(
    ("more", "row"),
    [
        ("", [0, 64, 191, 255]),
        ("interpolation: bilinear", [0, 64, 191, 255]),
        ("interpolation: bicubic", [0, 53, 202, 255]),
    ],
)
def test_the_interpolation_is_declared(make, more, row):
    data = make(more, mean="[0.0]", std="[1.0]", shape="[batch, 1, 4, 4]", resize=4)
    x = data.preprocess(np.array([[[0] * 3, [255] * 3]] * 2, np.uint8))["x"]
    assert (x[0, 1] * 255).tolist() == pytest.approx(row, abs=1e-3)


def test_another_interpolation_is_refused(make):
    with pytest.raises(SpecError, match=r"images\.interpolation: .*'bilinear' or 'bicubic'"):
        make("interpolation: lanczos")


@pytest.mark.parametrize("shape", ["[batch, 1, 4, 4]", "[batch, 3, 6, 6]", "[batch, 48]"])
def test_an_input_that_photographs_do_not_fit_is_refused(make, shape):
    with pytest.raises(SpecError, match=r"one input, float32 \[batch, 3, 4, 4\], but the spec declares x"):
        make(shape=shape)


def test_a_folder_that_is_no_source_is_refused(make_spec):
    with pytest.raises(SpecError, match=r"images\.folder: flowers is not the name of one of the sources"):
        make_spec(source="leaves")


def test_only_a_classification_has_classes(make_spec):
    with pytest.raises(SpecError, match="the task is embedding: write a data"):
        make_spec(task="embedding")


@pytest.fixture
def write_model(make_spec, tmp_path, monkeypatch):
    """models/NAME with the spec of photographs or without them, and a data.py of these functions or none."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, functions=None, images=True, task="classification"):
        make_spec()
        text = (tmp_path / "spec.yaml").read_text().replace("task: classification", f"task: {task}")
        if not images:
            text = text[: text.index("images:")] + text[text.index("dimensions:") :]
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "spec.yaml").write_text(text)
        if functions is not None:
            (folder / "data.py").write_text("".join(f"def {function}():\n    pass\n" for function in functions))

    return write


@pytest.fixture(autouse=True)
def no_models_of_other_tests():
    """The package `models` is looked for anew, and the repository's own is back afterwards."""
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "models"}
    for name in before:
        del sys.modules[name]
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "models"]:
        del sys.modules[name]
    sys.modules.update(before)


def test_photographs_stand_in_for_data_py(write_model):
    write_model("with_images")
    assert isinstance(load_data("with_images"), ImageFolder)


def test_neither_names_both_ways(write_model):
    write_model("with_neither", images=False)
    with pytest.raises(SpecError, match=r"data\.py is not there: write it with samples\(\), .*, or declare .*`images`"):
        load_data("with_neither")


def test_both_say_which_to_remove(write_model):
    write_model("with_both", ["samples"])
    with pytest.raises(SpecError, match=r"has a data\.py and `images` in spec\.yaml: remove data\.py if"):
        load_data("with_both")


def test_a_function_that_data_py_lacks_is_named(write_model):
    write_model("lacking", ["samples", "preprocess"], images=False)
    with pytest.raises(SpecError, match=r"models/lacking/data\.py does not define postprocess\(\)"):
        load_data("lacking")


def test_tensors_need_no_postprocess(write_model):
    write_model("tensors", ["samples", "preprocess"], images=False, task="tensor")
    assert callable(load_data("tensors").samples)


def test_a_data_file_that_cannot_be_imported_is_named_with_its_line(write_model, tmp_path):
    write_model("broken", [], images=False)
    (tmp_path / "models/broken/data.py").write_text("\n\nimport no_such_package\n")
    with pytest.raises(
        SpecError, match=r"data\.py cannot be imported: models/broken/data\.py:3: ModuleNotFoundError: No"
    ):
        load_data("broken")
