"""Read a model's data from a folder of photographs, DIR/CLASS/*.jpg, that `images` in its spec.yaml declares.

If there are DIR/train/CLASS and DIR/val/CLASS, the photographs of train/ calibrate and those of val/ evaluate.
ImageFolder has the functions that a data.py defines.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from onnx_release.core.errors import DataError
from onnx_release.core.files import read_names
from onnx_release.core.plain_text import count_of, first_few
from onnx_release.core.spec import Images, Spec, class_count, composed_form, find_repeated_name
from onnx_release.core.types import Prediction, Sample, softmax_prediction
from onnx_release.core.workers import map_in_order
from onnx_release.data.images import decode_image, normalised, resized_crop

SUFFIXES = (".jpg", ".jpeg", ".png")
# Photographs that are decoded at once.
CHUNK = 16
# Photographs that the benchmark decodes and preprocesses.
ENCODED = 20
TOP = 5
# The folders of an official split. The first of HELD_OUT that exists is for evaluation.
TRAIN = "train"
HELD_OUT = ("val", "valid", "validation", "test")


@dataclass(frozen=True)
class Photograph:
    """A photograph: `name` is its path below the source's folder, as CLASS/FILE, and `label` the index of its class."""

    path: Path
    name: str
    label: int


def split_folders(folder: Path) -> dict[str, Path] | None:
    """Return train/ and val/ below `folder`, by split; None if `folder` has the classes themselves.

    A class may be called train, so only a folder with folders in it is part of a split. Raises DataError if one of the
    two is missing, or there are other folders beside them.
    """
    names = [path.name for path in visible_entries(folder) if path.is_dir()] if folder.is_dir() else []
    parts = [name for name in (TRAIN, *HELD_OUT) if name in names and holds_folders(folder / name)]
    if not parts:
        return None
    if TRAIN not in parts or parts == [TRAIN]:
        missing = TRAIN if TRAIN not in parts else HELD_OUT[0]
        raise DataError(
            f"{folder} has {parts[0]}/CLASS and no {missing}/CLASS, which is half of an official split: add the other "
            f"half, or make the folder {parts[0]} itself the source, and its photographs will be divided"
        )
    held_out = parts[1]
    others = [name for name in names if name not in (TRAIN, held_out, HELD_OUT[-1])]
    if others:
        raise DataError(
            f"{folder} is divided into {TRAIN} and {held_out}, but has other folders too "
            f"({first_few(others)}): remove them, or move them elsewhere"
        )
    return {"calibration": folder / TRAIN, "evaluation": folder / held_out}


def holds_folders(folder: Path) -> bool:
    return any(path.is_dir() for path in visible_entries(folder))


def visible_entries(folder: Path) -> list[Path]:
    """Return the entries of the folder, sorted, without hidden ones (leading dot)."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def class_folders(folder: Path) -> list[str]:
    """Return the names of the class folders, sorted.

    Raises DataError if there is none, if two differ only by case or Unicode form, or if a photograph has no class.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}: put photographs into folders with the names of their classes")
    entries = visible_entries(folder)
    loose = [path.name for path in entries if path.suffix.lower() in SUFFIXES and path.is_file()]
    if loose:
        raise DataError(
            f"{folder} has {count_of(len(loose), 'photograph')} without a class ({first_few(loose)}): "
            "move each into a folder with the name of its class"
        )
    classes = [path.name for path in entries if path.is_dir()]
    if not classes:
        raise DataError(
            f"{folder} {'has no class folders' if entries else 'is empty'}: "
            "put the photographs into folders with the names of their classes, as in roses/one.jpg"
        )
    unnamed = [ascii(name) for name in classes if name.encode(errors="replace").decode().splitlines() != [name]]
    problem = find_repeated_name(classes)
    if unnamed:
        raise DataError(
            f"{folder} has folders whose names are not one line in UTF-8 ({first_few(unnamed)}): rename them"
        )
    if problem:
        raise DataError(f"{folder}: {problem}")
    return classes


def sorted_classes(folder: Path) -> list[str]:
    """Return the class folders of a source, or of its train/ if it is divided, sorted. Raises DataError as above."""
    official = split_folders(folder)
    return class_folders(folder if official is None else official["calibration"])


def class_names(images: Images, raw: Path) -> list[str]:
    """Return the classes in the order of their numbers: the declared ones, or else the sorted folders.

    Raises DataError as `class_folders` and `split_folders` do, and if the file of `images.classes` is wrong.
    """
    if isinstance(images.classes, list):
        return images.classes
    if images.classes is None:
        return sorted_classes(raw / images.folder)
    names = read_names(raw / images.classes, DataError)
    problem = find_repeated_name(names, "lines", 1)
    if problem:
        raise DataError(f"{raw / images.classes}: {problem}")
    return names


def class_photographs(folder: Path, name: str) -> list[Path]:
    """Return the photographs of a class, sorted. Raises DataError if there is none, and for other files."""
    entries = visible_entries(folder / name)
    others = [f"{name}/{path.name}" for path in entries if path.suffix.lower() not in SUFFIXES or not path.is_file()]
    if others:
        raise DataError(
            f"{folder} has files or folders that are no photographs by their names ({first_few(others)}): remove or "
            f"convert them. The folder of a class may only have {', '.join(SUFFIXES)}. Folders of classes may only be "
            f"in the source itself, or in its {TRAIN}/ and {HELD_OUT[0]}/"
        )
    if not entries:
        raise DataError(f"the class folder {folder / name} has no photographs: put some there or remove it")
    return entries


def check_readable(photographs: list[Photograph]) -> None:
    """Decode all photographs on all cores. Raises DataError that counts and names those that cannot be read."""

    def problem(photograph: Photograph) -> str | None:
        try:
            decode_image(photograph.path.read_bytes())
        except (OSError, DataError):
            return photograph.name
        return None

    broken = [name for name in map_in_order(problem, photographs, CHUNK) if name is not None]
    if broken:
        raise DataError(
            f"{len(broken)} of {count_of(len(photographs), 'photograph')} cannot be read: {first_few(broken)}. Replace "
            "or remove them where the folder came from, and declare its new sha256, which the next run will print"
        )


def divide_photographs(photographs: Sequence[Photograph], share: float, seed: int) -> dict[str, list[Photograph]]:
    """Draw both splits by `seed`: `share` of every class for evaluation, and at least one photograph in each split.

    Classes of a single photograph are divided together, as if they were one class; a single one is for evaluation.
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
    """Return one photograph of every class, then a second of every class, and so on.

    `seed` draws the order of the classes and of the photographs in each.
    """
    counts: Counter[int] = Counter()
    turns: list[tuple[int, Photograph]] = []
    for photograph in shuffled(photographs, [seed]):
        turns.append((counts[photograph.label], photograph))
        counts[photograph.label] += 1
    return [photograph for _, photograph in sorted(turns, key=lambda entry: entry[0])]


class ImageFolder:
    """The functions of a data.py for the photographs that `spec.images` declares."""

    def __init__(self, spec: Spec) -> None:
        assert spec.images is not None
        self.images = spec.images
        self.input = spec.inputs[0].name
        self.output = spec.outputs[0]
        self.classes = class_count(spec)
        self.splits: dict[Path, dict[str, list[Photograph]]] = {}

    def samples(self, raw: Path, split: str) -> Iterator[Sample]:
        """Yield a sample for each photograph, with its class as label and its path as group; classes take turns.

        Raises DataError before the first sample if a class folder is missing, empty or unknown, or a photograph of
        either split cannot be read.
        """
        photographs = self.photographs(raw, split)

        def sample(photograph: Photograph) -> Sample:
            inputs = self.preprocess(decode_image(photograph.path.read_bytes()))
            return Sample(inputs, photograph.label, photograph.name)

        yield from map_in_order(sample, photographs, CHUNK)

    def photographs(self, raw: Path, split: str) -> list[Photograph]:
        """Return the photographs of a split, classes in turn; those of both splits are checked once."""
        if raw not in self.splits:
            splits = self.read_splits(raw)
            every = [photograph for photographs in splits.values() for photograph in photographs]
            check_readable(sorted(every, key=lambda photograph: photograph.name))
            self.splits[raw] = {name: in_turns(found, self.images.seed) for name, found in splits.items()}
        return self.splits[raw][split]

    def read_splits(self, raw: Path) -> dict[str, list[Photograph]]:
        """Return the photographs of both splits. Raises DataError as `samples` does, without reading them."""
        folder = raw / self.images.folder
        names = class_names(self.images, raw)
        official = split_folders(folder)
        if official is None:
            photographs = self.read_classes(folder, "", names)
            if len(photographs) < 2:
                raise DataError(f"{folder} has one photograph: at least two are needed, one for each split")
            return divide_photographs(photographs, self.images.evaluation, self.images.seed)
        if "evaluation" in self.images.model_fields_set:
            parts = " and ".join(f"{path.name}/" for path in official.values())
            raise DataError(
                f"{folder} has {parts}, which are its two parts: remove `images.evaluation` from spec.yaml, which "
                "is only for photographs that are not divided yet"
            )
        return {split: self.read_classes(path, f"{path.name}/", names) for split, path in official.items()}

    def read_classes(self, folder: Path, prefix: str, names: list[str]) -> list[Photograph]:
        """Return the photographs in every class folder of `folder`; their names begin with `prefix`."""
        found, labels = class_folders(folder), {composed_form(name): label for label, name in enumerate(names)}
        unknown = [name for name in found if composed_form(name) not in labels]
        if unknown and self.images.classes is None:
            raise DataError(
                f"{folder} has the folders {first_few(unknown)}, which {folder.with_name(TRAIN)} does not have: its "
                "folders are the classes. Rename or remove them, or list every class in `images.classes` in spec.yaml"
            )
        if unknown:
            raise DataError(
                f"{folder} has the folders {first_few(unknown)}, which are not among `images.classes` in spec.yaml: "
                "add them there in the order of the outputs, or remove them"
            )
        self.check_count(folder, len(names))
        return [
            Photograph(path, f"{prefix}{name}/{path.name}", labels[composed_form(name)])
            for name in found
            for path in class_photographs(folder, name)
        ]

    def check_count(self, folder: Path, count: int) -> None:
        """Raise DataError if `count` classes are too many for the network, or too few if none are declared."""
        if self.classes is None:
            return
        if self.images.classes is None and count != self.classes:
            raise DataError(
                f"{folder} has {count_of(count, 'class folder')}, {self.output.name} has "
                f"{count_of(self.classes, 'class')}: list the classes in the order of the outputs "
                "under `images.classes` in spec.yaml"
            )
        if count > self.classes:
            raise DataError(f"`images.classes` lists {count_of(count, 'class')}, {self.output.name} has {self.classes}")

    def encoded(self, raw: Path) -> Iterator[bytes]:
        """Yield some evaluation photographs as a client would send them."""
        for photograph in self.photographs(raw, "evaluation")[:ENCODED]:
            yield photograph.path.read_bytes()

    def decode(self, content: bytes) -> np.ndarray:
        """Decode the bytes from a client to a uint8 RGB image [height, width, 3], the input of `preprocess`."""
        return decode_image(content)

    def preprocess(self, item: np.ndarray) -> dict[str, np.ndarray]:
        """Resize, crop and normalise a uint8 RGB image [height, width, 3] to float32 [channels, crop, crop].

        Sizes and positions are rounded as in torchvision's Resize and CenterCrop, which trained most networks.
        """
        image = Image.fromarray(item).convert("RGB" if len(self.images.mean) == 3 else "L")
        size, crop = resized(image.size, self.images.resize), self.images.crop
        left, top = (round((side - crop) / 2) for side in size)
        resampling = Image.Resampling[self.images.interpolation.upper()]
        middle = resized_crop(image, size, (left, top, left + crop, top + crop), resampling)
        mean, std = np.array(self.images.mean, np.float32), np.array(self.images.std, np.float32)
        return {self.input: normalised(middle, mean, std)}

    def postprocess(self, outputs: dict[str, np.ndarray]) -> Prediction:
        """Return the five likeliest classes, by softmax."""
        return softmax_prediction(outputs[self.output.name], TOP)


def resized(size: tuple[int, int], shorter: int) -> tuple[int, int]:
    """Return width and height with the shorter side `shorter` and the longer one rounded down."""
    width, height = size
    if width <= height:
        return shorter, shorter * height // width
    return shorter * width // height, shorter
