"""A model's data out of a folder of photographs, DIR/CLASS/*.jpg, with nothing to write but `images` in its spec.yaml.

Where DIR/train/CLASS and DIR/val/CLASS are there, they are the photographs to calibrate with and those to evaluate on.
The functions of ImageFolder are those that a data.py defines.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from onnx_release.core.errors import DataError
from onnx_release.core.files import read_names
from onnx_release.core.spec import Images, Spec, class_count, one_form, repeated
from onnx_release.core.types import Prediction, Sample, softmax_prediction
from onnx_release.core.workers import in_order
from onnx_release.data.images import decode_image, normalised, resized_crop

SUFFIXES = (".jpg", ".jpeg", ".png")
# Photographs that are decoded and waiting at once.
CHUNK = 16
# Items that the benchmark decodes and preprocesses.
ENCODED = 20
TOP = 5
# The folders of an official split. Of the second ones the first that is there is evaluated on.
TRAIN = "train"
HELD_OUT = ("val", "valid", "validation", "test")


@dataclass(frozen=True)
class Photograph:
    """`name` is its path below the source's folder, as CLASS/FILE; `label` the index of its class."""

    path: Path
    name: str
    label: int


def split_folders(folder: Path) -> dict[str, Path] | None:
    """train/ and val/ below `folder` by the split that each is; None where `folder` holds the classes themselves.

    A class may itself be called train: what holds folders is part of a split. Raises DataError where one of the two is
    missing, or other folders lie beside them.
    """
    names = [path.name for path in visible_entries(folder) if path.is_dir()] if folder.is_dir() else []
    parts = [name for name in (TRAIN, *HELD_OUT) if name in names and holds_folders(folder / name)]
    if not parts:
        return None
    if TRAIN not in parts or parts == [TRAIN]:
        missing = TRAIN if TRAIN not in parts else HELD_OUT[0]
        raise DataError(
            f"{folder} has {parts[0]}/CLASS and no {missing}/CLASS, which is half of an official split: add the other "
            f"half, or make the folder {parts[0]} itself the source, and its photographs are divided"
        )
    held_out = parts[1]
    others = [name for name in names if name not in (TRAIN, held_out, HELD_OUT[-1])]
    if others:
        raise DataError(
            f"{folder} is divided into {TRAIN} and {held_out}, and has other folders beside them "
            f"({listed(others)}): remove these, or move them elsewhere"
        )
    return {"calibration": folder / TRAIN, "evaluation": folder / held_out}


def holds_folders(folder: Path) -> bool:
    return any(path.is_dir() for path in visible_entries(folder))


def visible_entries(folder: Path) -> list[Path]:
    """What is in the folder, sorted, without what is hidden by a leading dot."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def class_folders(folder: Path) -> list[str]:
    """The names of the class folders, sorted.

    Raises DataError if there is none, two differ only by case or Unicode form, or a photograph has no class.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: photographs belong into folders named by their classes")
    entries = visible_entries(folder)
    loose = [path.name for path in entries if path.suffix.lower() in SUFFIXES and path.is_file()]
    if loose:
        raise DataError(
            f"{folder} holds {len(loose)} photographs outside of a class ({listed(loose)}): "
            "move each into a folder named by its class"
        )
    classes = [path.name for path in entries if path.is_dir()]
    if not classes:
        raise DataError(
            f"{folder} {'has no class folders' if entries else 'is empty'}: "
            "photographs belong into folders named by their classes, as in roses/one.jpg"
        )
    unnamed = [ascii(name) for name in classes if name.encode(errors="replace").decode().splitlines() != [name]]
    problem = repeated(classes)
    if unnamed:
        raise DataError(f"{folder} has folders whose names are not one line in UTF-8 ({listed(unnamed)}): rename them")
    if problem:
        raise DataError(f"{folder}: {problem}")
    return classes


def sorted_classes(folder: Path) -> list[str]:
    """The class folders of a source, sorted: those of train/ where it is divided. Raises DataError as they do."""
    official = split_folders(folder)
    return class_folders(folder if official is None else official["calibration"])


def class_names(images: Images, raw: Path) -> list[str]:
    """The classes in the order of their numbers: those that are declared, or else the sorted folders.

    Raises DataError as `class_folders` and `split_folders` do, and where the file of `images.classes` is wrong.
    """
    if isinstance(images.classes, list):
        return images.classes
    if images.classes is None:
        return sorted_classes(raw / images.folder)
    names = read_names(raw / images.classes, DataError)
    problem = repeated(names, "lines", 1)
    if problem:
        raise DataError(f"{raw / images.classes}: {problem}")
    return names


def class_photographs(folder: Path, name: str) -> list[Path]:
    """The photographs of a class, sorted. Raises DataError if there is none, and for all that is no photograph."""
    entries = visible_entries(folder / name)
    others = [f"{name}/{path.name}" for path in entries if path.suffix.lower() not in SUFFIXES or not path.is_file()]
    if others:
        raise DataError(
            f"{folder} holds what is no photograph by its name ({listed(others)}): "
            f"remove or convert it, for a class's folder may hold {', '.join(SUFFIXES)} and nothing else. Classes in "
            f"folders of their own are read below {TRAIN}/ and {HELD_OUT[0]}/ alone"
        )
    if not entries:
        raise DataError(f"the class folder {folder / name} holds no photograph: put some there or remove it")
    return entries


def listed(names: list[str]) -> str:
    """The first ten, and how many more there are."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def check_readable(photographs: list[Photograph]) -> None:
    """Decode all of them, on all cores. Raises DataError that counts those that cannot be read, and names ten."""

    def problem(photograph: Photograph) -> str | None:
        try:
            decode_image(photograph.path.read_bytes())
        except (OSError, DataError):
            return photograph.name
        return None

    broken = [name for name in in_order(problem, photographs, CHUNK) if name is not None]
    if broken:
        raise DataError(
            f"{len(broken)} of {len(photographs)} photographs cannot be read: {listed(broken)}. Replace or remove "
            "them where the folder came from, and declare its new sha256, which the next run will name"
        )


def divided(photographs: Sequence[Photograph], share: float, seed: int) -> dict[str, list[Photograph]]:
    """Both splits, drawn by `seed`: `share` of every class to evaluate on, and one photograph of it at least in each.

    Classes of a single photograph are divided together, as if they were one class; one alone is evaluated on.
    """
    sizes = Counter(photograph.label for photograph in photographs)
    singles = max(sizes) + 1  # no class has this label
    strata: dict[int, list[Photograph]] = {}
    for photograph in photographs:
        strata.setdefault(photograph.label if sizes[photograph.label] > 1 else singles, []).append(photograph)
    splits: dict[str, list[Photograph]] = {"calibration": [], "evaluation": []}
    for stratum, members in sorted(strata.items()):
        order = shuffled(members, [seed, stratum])
        count = max(1, min(len(order) - 1, round(share * len(order))))
        splits["evaluation"] += order[:count]
        splits["calibration"] += order[count:]
    return splits


def shuffled(photographs: Sequence[Photograph], seed: list[int]) -> list[Photograph]:
    return [photographs[index] for index in np.random.default_rng(seed).permutation(len(photographs))]


def in_turns(photographs: Sequence[Photograph], seed: int) -> list[Photograph]:
    """One of every class, then a second of every class, and so on, so that the first are of as many classes as can be.

    Which photograph stands for its class, and which class comes first, is drawn by `seed`.
    """
    counts: Counter[int] = Counter()
    turns: list[tuple[int, Photograph]] = []
    for photograph in shuffled(photographs, [seed]):
        turns.append((counts[photograph.label], photograph))
        counts[photograph.label] += 1
    return [photograph for _, photograph in sorted(turns, key=lambda entry: entry[0])]


class ImageFolder:
    """What a data.py defines, for the photographs that `spec.images` describes, which must be there."""

    def __init__(self, spec: Spec) -> None:
        assert spec.images is not None
        self.images = spec.images
        self.input = spec.inputs[0].name
        self.output = spec.outputs[0]
        self.classes = class_count(spec)
        self.splits: dict[Path, dict[str, list[Photograph]]] = {}

    def samples(self, raw: Path, split: str) -> Iterator[Sample]:
        """One sample a photograph, its label the index of its class, its group its path; classes take turns.

        Raises DataError before the first one where a class folder is missing, empty or one too many, or a photograph
        of either split cannot be read.
        """
        photographs = self.photographs(raw, split)

        def sample(photograph: Photograph) -> Sample:
            inputs = self.preprocess(decode_image(photograph.path.read_bytes()))
            return Sample(inputs, photograph.label, photograph.name)

        yield from in_order(sample, photographs, CHUNK)

    def photographs(self, raw: Path, split: str) -> list[Photograph]:
        """Those of a split, in turns by their classes, checked once for both."""
        if raw not in self.splits:
            splits = self.read_splits(raw)
            every = [photograph for photographs in splits.values() for photograph in photographs]
            check_readable(sorted(every, key=lambda photograph: photograph.name))
            self.splits[raw] = {name: in_turns(found, self.images.seed) for name, found in splits.items()}
        return self.splits[raw][split]

    def read_splits(self, raw: Path) -> dict[str, list[Photograph]]:
        """The photographs of both splits. Raises DataError as `samples` does, without reading them."""
        folder = raw / self.images.folder
        names = class_names(self.images, raw)
        official = split_folders(folder)
        if official is None:
            photographs = self.read_classes(folder, "", names)
            if len(photographs) < 2:
                raise DataError(f"{folder} has one photograph: two are the least, one for each split")
            return divided(photographs, self.images.evaluation, self.images.seed)
        if "evaluation" in self.images.model_fields_set:
            parts = " and ".join(f"{path.name}/" for path in official.values())
            raise DataError(
                f"{folder} has {parts}, which are its two parts: remove `images.evaluation` from spec.yaml, which "
                "divides photographs that are not divided yet"
            )
        return {split: self.read_classes(path, f"{path.name}/", names) for split, path in official.items()}

    def read_classes(self, folder: Path, prefix: str, names: list[str]) -> list[Photograph]:
        """The photographs in every class folder of `folder`, which `prefix` begins the names of."""
        found, labels = class_folders(folder), {one_form(name): label for label, name in enumerate(names)}
        unknown = [name for name in found if one_form(name) not in labels]
        if unknown and self.images.classes is None:
            raise DataError(
                f"{folder} has the folders {listed(unknown)}, which {folder.with_name(TRAIN)} has not: its folders "
                "are the classes. Rename or remove them, or name all classes under `images.classes` in spec.yaml"
            )
        if unknown:
            raise DataError(
                f"{folder} has the folders {listed(unknown)}, which are not among `images.classes` in spec.yaml: "
                "add them there at the place of their output, or remove them"
            )
        self.check_count(folder, len(names))
        return [
            Photograph(path, f"{prefix}{name}/{path.name}", labels[one_form(name)])
            for name in found
            for path in class_photographs(folder, name)
        ]

    def check_count(self, folder: Path, count: int) -> None:
        """Raise DataError where `count` classes cannot be the network's, all of them or, if declared, the first."""
        if self.classes is None:
            return
        if self.images.classes is None and count != self.classes:
            raise DataError(
                f"{folder} has {count} class folders, {self.output.name} has {self.classes} classes: name the classes "
                "in the order of the outputs under `images.classes` in spec.yaml, so that each photograph gets its "
                "number"
            )
        if count > self.classes:
            raise DataError(f"`images.classes` names {count} classes, {self.output.name} has {self.classes}")

    def encoded(self, raw: Path) -> Iterator[bytes]:
        """Some evaluation photographs as a client sends them."""
        for photograph in self.photographs(raw, "evaluation")[:ENCODED]:
            yield photograph.path.read_bytes()

    def decode(self, content: bytes) -> np.ndarray:
        """What a client has sent as `preprocess` takes it: a uint8 RGB image [height, width, 3]."""
        return decode_image(content)

    def preprocess(self, item: np.ndarray) -> dict[str, np.ndarray]:
        """A uint8 RGB image [height, width, 3] as float32 [channels, crop, crop], normalised.

        Sizes and places are rounded as in torchvision's Resize and CenterCrop, which most networks were trained with.
        """
        image = Image.fromarray(item).convert("RGB" if len(self.images.mean) == 3 else "L")
        size, crop = resized(image.size, self.images.resize), self.images.crop
        left, top = (round((side - crop) / 2) for side in size)
        resampling = Image.Resampling[self.images.interpolation.upper()]
        middle = resized_crop(image, size, (left, top, left + crop, top + crop), resampling)
        mean, std = np.array(self.images.mean, np.float32), np.array(self.images.std, np.float32)
        return {self.input: normalised(middle, mean, std)}

    def postprocess(self, outputs: dict[str, np.ndarray]) -> Prediction:
        """The five likeliest classes, by softmax."""
        return softmax_prediction(outputs[self.output.name], TOP)


def resized(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Width and height where the shorter side is `shorter` and the longer one is rounded down."""
    width, height = size
    if width <= height:
        return shorter, shorter * height // width
    return shorter * width // height, shorter
