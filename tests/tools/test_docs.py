"""README.md and docs/ name all that there is and nothing else, and their generated parts are up to date."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import networkx as nx
import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from onnx_release.core.errors import DataError
from onnx_release.core.files import write_json, write_text
from onnx_release.core.params import ParamsAndGates
from onnx_release.core.paths import MACHINE_PIPELINE, MODELS_BENCHMARK, PARAMS, ModelFiles
from onnx_release.core.spec import Spec
from onnx_release.report.metrics import ALL_METRICS
from tests.clone import list_models
from tests.core.test_rooms import ROOMS
from tests.declared_stages import declared_stages, stages_in
from tests.imports import ROOT
from tests.listed_models import make_models
from tests.release_project import TIMING, change_json
from tests.revisions import git
from tools.docs import PAGES, read_file, replace_part, updated
from tools.new_model import pipeline_text
from tools.page_parts.pipeline import BOXES, group, stage_graph
from tools.page_parts.reference import commented_keys, metrics
from tools.page_parts.results import all_models, results

TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
REFERENCE = TEXTS["docs/reference.md"]
STAGES = [*stages_in((ROOT / MACHINE_PIPELINE).read_text(encoding="utf-8")), *declared_stages("m")]
# A path of this repository in a text. Those that hold a NAME, a VARIANT or a * stand for several.
FOLDERS = "benchmarks|deploy|docs|models|onnx_release|pipelines|serving|stages|sweeps|tests|tools|[.]ci|[.]github"
FOLDERS += "|[.]dvc/plots"
REPOSITORY_PATH = re.compile(rf"(?<![\w./-])((?:{FOLDERS})/[\w./*-]*[\w*/])")
# Models that the pages add to the repository, as a reader would.
ADDED = ("models/digits/", "pipelines/digits/", "models/face_pnet.", "models/mobilenet_v2/1")


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
    assert [stage for stage, _ in rows("docs/reference.md", "Stages")] == STAGES


def test_every_parameter_has_a_comment_that_says_what_it_means():
    commented = {key: meaning for key, _, meaning in commented_keys((ROOT / PARAMS).read_text(encoding="utf-8"))}
    every = [key for key, _ in keys(ParamsAndGates) if not key.startswith("gates.")]
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


def test_the_picture_is_the_same_whichever_models_are_listed(tmp_path, monkeypatch):
    shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    shutil.copytree(ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    make_models(tmp_path, {"cars": "classification", "texts": "embedding"})
    for name in ("cars", "texts"):
        write_text(tmp_path / ModelFiles(name).pipeline, pipeline_text(name))
    git(tmp_path, "init", "-q")
    monkeypatch.chdir(tmp_path)
    both = stage_graph()
    assert sorted(both) == sorted(STAGES)
    assert not nx.is_empty(group(both))
    list_models(tmp_path, "texts")
    assert nx.utils.graphs_equal(stage_graph(), both)


def test_a_stage_that_is_in_no_box_is_named():
    graph = nx.DiGraph([(stage, "polish") for members in BOXES.values() for stage in members])
    with pytest.raises(DataError, match="differ in polish: put each stage in one box"):
        group(graph)


def test_the_readme_is_short():
    # 150 lines with the results of eight models; the table has a line for each.
    assert len(replace_part(TEXTS["README.md"], "results", "").splitlines()) <= 138


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


@pytest.fixture
def run_models(tmp_path, monkeypatch):
    """A repository with a classifier and a detector that have run, and a model that has not."""
    make_models(tmp_path, {"cars": "classification", "faces": "detection", "texts": "embedding"}, "cars", "faces")
    for model in ("cars", "faces"):
        path = tmp_path / "metrics" / model / "benchmark.json"
        change_json(path, {"export": TIMING, "torch_compile": TIMING})
    seconds = {"model": "cars", "machine": "a laptop", "fresh_seconds": 44.0, "unchanged_seconds": 2.5}
    write_json(tmp_path / "benchmarks/pipeline.json", seconds)
    write_json(tmp_path / MODELS_BENCHMARK, {"faces": {"machine": "a server", "seconds": 66.0}})
    monkeypatch.chdir(tmp_path)


def test_the_results_of_the_readme_are_those_of_all_models_on_the_list(run_models):
    found = all_models(read_file)
    assert "| cars | classification | yes | int8_static | 5.5 [5, 6] | 30.5 dB |" in found
    assert "| faces | detection |" in found
    assert "| texts | embedding | no results yet: run `make repro MODEL=texts` |" in found
    assert models_shown(f"<!-- begin results: -->\n{found}\n<!-- end results -->") == ["cars", "faces", "texts"]
    list_models(Path(), "faces")
    assert "| cars |" not in all_models(read_file)


def test_the_results_of_a_model_are_of_its_own_metrics_and_its_task(run_models):
    classifier, detector = (results(model)(read_file) for model in ("cars", "faces"))
    assert classifier.startswith("| | same answer as PyTorch | accuracy | SQNR, dB | latency, ms |")
    assert detector.startswith("| | boxes matched with PyTorch's | accuracy | case agreement | box IoU |")
    assert "\n| int8_static | 99.0 % [98.0 %, 100.0 %] | 97.0 % | 30.5 | 0.125 | 5.5 [5, 6] |" in classifier
    assert "`int8_static` is released." in classifier


def test_the_results_of_a_model_say_how_long_its_pipeline_takes_if_that_was_measured(run_models):
    assert results("cars")(read_file).endswith(
        "The pipeline takes 44 s in a fresh clone with the packages installed and 2.5 s when nothing changed "
        "(`python -m benchmarks.pipeline`, a laptop)."
    )
    assert results("faces")(read_file).endswith(
        "The pipeline takes 66 s in a fresh clone with the packages installed (`python -m benchmarks.models faces`, "
        "a server)."
    )
    write_json(MODELS_BENCHMARK, {})
    assert results("faces")(read_file).endswith("is released.")


def test_the_metrics_of_the_reference_are_in_the_folder_of_a_model():
    titles = re.findall("^### (.*)$", metrics(read_file), re.MULTILINE)
    assert titles[0] == "metrics/NAME/prepare.json"
    assert "metrics/NAME/validate/VARIANT.json" in titles


def test_a_generated_part_that_git_could_not_merge_is_made_anew():
    page = "<!-- begin results: made -->\n<<<<<<< ours\na\n=======\nb\n>>>>>>> theirs\n<!-- end results -->\n"
    assert replace_part(page, "results", "new") == "<!-- begin results: made -->\nnew\n<!-- end results -->\n"


def test_a_page_keeps_all_but_its_generated_parts():
    readme = "a\n<!-- begin results: made -->\nold\n<!-- end results -->\nb\n"
    expected = "a\n<!-- begin results: made -->\nnew \\1\n<!-- end results -->\nb\n"
    assert replace_part(readme, "results", "new \\1") == expected
    with pytest.raises(ValueError, match="no markers for the part pipeline"):
        replace_part(readme, "pipeline", "new")


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    """What is staged or committed: a later run of the pipeline changes the timings in the working tree.

    models.yaml has the models that README.md shows, so that a change of the list alone fails no test.
    """
    folder = tmp_path_factory.mktemp("committed")
    subprocess.run(["git", "checkout-index", "--all", f"--prefix={folder}/"], cwd=ROOT, check=True)
    git(folder, "init", "-q")  # DVC needs a repository
    list_models(folder, *models_shown((folder / "README.md").read_text(encoding="utf-8")))
    return folder


def models_shown(readme: str) -> list[str]:
    """The first cell of each row of the results, without the header."""
    part = readme.partition("<!-- begin results")[2].partition("<!-- end results")[0]
    return re.findall(r"^\| (\w+) \|", part, re.MULTILINE)[1:]


@pytest.mark.parametrize("page", PAGES)
def test_the_generated_parts_of_a_page_are_made_of_what_is_in_git(page, committed, monkeypatch):
    monkeypatch.chdir(committed)
    text = Path(page).read_text(encoding="utf-8")
    assert updated(page, text, read_file) == text, "run `make docs`"
