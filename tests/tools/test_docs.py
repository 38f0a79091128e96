"""README.md and docs/ name all that there is and nothing else, and their generated parts are up to date."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import networkx as nx
import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from ruamel.yaml import YAML

from onnx_release.core.errors import DataError
from onnx_release.core.params import Params
from onnx_release.core.paths import PARAMS
from onnx_release.core.spec import Spec
from onnx_release.report.metrics import ALL_METRICS
from tests.core.test_rooms import ROOMS
from tests.imports import ROOT
from tools.docs import PAGES, replace_part, updated
from tools.page_parts.pipeline import BOXES, group
from tools.page_parts.reference import commented_keys

TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
REFERENCE = TEXTS["docs/reference.md"]
STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
# A path of this repository in a text. Those that hold a NAME, a VARIANT or a * stand for several.
FOLDERS = "benchmarks|deploy|docs|models|onnx_release|serving|stages|sweeps|tests|tools|[.]ci|[.]github|[.]dvc/plots"
REPOSITORY_PATH = re.compile(rf"(?<![\w./-])((?:{FOLDERS})/[\w./*-]*[\w*/])")
# Models that the pages add to the repository, as a reader would.
ADDED = ("models/digits/", "models/face_pnet.", "models/mobilenet_v2/1")


def section(page: str, title: str) -> str:
    return TEXTS[page].partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(page: str, title: str) -> list[list[str]]:
    """The cells of the first table of a section, without its header."""
    lines = re.findall(r"^\|.*\|$", section(page, title), re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def model_of(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model in an annotation: itself, or what a list, a mapping or an optional one holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := model_of(part))), None)


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted name of each key with its default."""
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        yield f"{prefix}{field.alias or name}", default
        if inner := model_of(field.annotation):
            yield from keys(inner, f"{prefix}{field.alias or name}.")


def test_the_reference_has_every_stage_in_the_order_of_the_pipeline():
    assert [stage for stage, _ in rows("docs/reference.md", "Stages")] == list(STAGES)


def test_every_parameter_has_a_comment_that_says_what_it_means():
    commented = {key: meaning for key, _, meaning in commented_keys((ROOT / PARAMS).read_text(encoding="utf-8"))}
    every = [key for key, _ in keys(Params) if not key.startswith("gates.")]
    leaves = {key for key in every if not any(other.startswith(f"{key}.") for other in every)}
    assert {key for key, meaning in commented.items() if meaning} >= leaves
    assert {key for key, *_ in rows("docs/reference.md", "Parameters")} == {f"`{key}`" for key in leaves}


def test_the_reference_has_every_key_of_a_spec_with_its_default():
    wanted = []
    for key, default in keys(Spec):
        written = "required" if default is PydanticUndefined else default
        if isinstance(written, BaseModel):
            written = "see below"
        elif written != "required":
            written = f"`{written if isinstance(written, str) else json.dumps(written)}`"
        wanted.append((f"`{key}`", written))
    assert [(key, default) for key, default, _ in rows("docs/reference.md", "spec.yaml")] == [
        row for row in wanted if row[0] != "`sources.from`"
    ]


def test_the_reference_has_every_command():
    paths = [path for path in (ROOT / "tools").glob("*.py") if "__main__" in path.read_text(encoding="utf-8")]
    modules = {f"`python -m tools.{path.stem}`" for path in paths}
    assert {command for command, _ in rows("docs/reference.md", "Commands")} == modules


def test_the_reference_has_every_metric():
    for metric in ALL_METRICS:
        assert metric.file == "*" or f"\n| `{metric.key}` | {metric.meaning} |" in REFERENCE


def test_the_architecture_has_every_room_in_its_order():
    assert [room for room, _ in rows("docs/architecture.md", "Rooms")] == list(ROOMS)


def test_every_stage_is_in_one_box_of_the_picture():
    assert sorted(stage for members in BOXES.values() for stage in members) == sorted(STAGES)


def test_a_stage_that_is_in_no_box_is_named():
    graph = nx.DiGraph([(stage, "polish") for members in BOXES.values() for stage in members])
    with pytest.raises(DataError, match="differ in polish: put each stage in one box"):
        group(graph)


def test_the_readme_is_short():
    assert len(TEXTS["README.md"].splitlines()) <= 150


def test_the_readme_quotes_the_benchmark_of_int8():
    models = json.loads((ROOT / "benchmarks/quantization.json").read_text())["models"]
    own, defaults = models["int8_static"], models["onnxruntime S8S8 MinMax, its defaults"]
    claim = f"{own['sqnr_db']:.1f} dB on MobileNetV2 where onnxruntime's defaults, which are also Olive's, give"
    assert f"{claim} {defaults['sqnr_db']:.1f} dB" in " ".join(TEXTS["README.md"].split())


@pytest.mark.parametrize("page", TEXTS)
def test_every_path_that_a_page_names_exists(page):
    for path in REPOSITORY_PATH.findall(TEXTS[page]):
        if not re.search(r"NAME|CLASS|[*]", path) and not f"{path}/".startswith(ADDED):
            assert (ROOT / path).exists(), f"{page} names {path}, which does not exist"


@pytest.mark.parametrize("page", TEXTS)
def test_every_link_within_the_repository_leads_somewhere(page):
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", TEXTS[page]):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), f"{page} links to {target}, which does not exist"
        titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
        anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not anchor or anchor in anchors, f"{page} links to {target}#{anchor}, which is no title"


def test_a_page_keeps_all_but_its_generated_parts():
    readme = "a\n<!-- begin results: made -->\nold\n<!-- end results -->\nb\n"
    expected = "a\n<!-- begin results: made -->\nnew \\1\n<!-- end results -->\nb\n"
    assert replace_part(readme, "results", "new \\1") == expected
    with pytest.raises(ValueError, match="no markers for the part pipeline"):
        replace_part(readme, "pipeline", "new")


def in_git(path: str) -> Any:
    """What is staged or committed: a later run of the pipeline changes the timings in the working tree."""
    command = ["git", "show", f":{path}"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    return json.loads(text) if Path(path).suffix == ".json" else text


@pytest.mark.parametrize("page", PAGES)
def test_the_generated_parts_of_a_page_are_made_of_what_is_in_git(page):
    text = in_git(page)
    assert updated(page, text, in_git) == text, "run `make docs`"
