"""What is in a release: the chosen variant, what it needs to run, and what people and programs read of it."""

import http.server
import io
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import onnx
import pytest
from dockerfile_parse import DockerfileParser
from dvc.repo import Repo

from onnx_release.core.errors import DataError, ReleaseFolderError, SpecError
from onnx_release.core.files import sha256, write_json, write_text
from onnx_release.core.paths import MACHINE_LOCK, ModelFiles
from onnx_release.core.spec import Images, Spec
from onnx_release.core.yaml_files import read_yaml
from onnx_release.packaging.package import CARRIED, git_state, label_names
from onnx_release.runtime.release import MANIFEST, NOT_RELEASED, open_release
from tests.clone import path_with_python
from tests.digits_spec import DIGITS_SPEC
from tests.imports import ROOT
from tests.release_project import MODEL, change_json, make_project, make_release, validation, write_validations
from tests.validated import KINDS, validated

FILES = ModelFiles(MODEL)
LABELS = 'labels: ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]'


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    make_project(folder)
    return folder


@pytest.fixture(scope="module")
def release(original: Path) -> Path:
    return make_release(original)


@pytest.fixture
def project(original: Path, tmp_path: Path) -> Path:
    """A copy to be changed, without a release."""
    return shutil.copytree(original, tmp_path / "project", ignore=shutil.ignore_patterns("release"))


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def contents(folder):
    return {name: (folder / name).read_bytes() for name in sorted(names(folder))}


def manifest(folder):
    return json.loads((folder / MANIFEST).read_text())


def test_a_release_holds_what_it_needs_and_nothing_that_made_it(release):
    found = names(release)
    assert {
        *(
            "MODEL_CARD.md",
            "Dockerfile",
            ".dockerignore",
            "requirements.txt",
            "model.onnx",
            "runtime.json",
            "labels.txt",
        ),
        *(f"models/{MODEL}/spec.yaml", f"models/{MODEL}/data.py", f"triton/{MODEL}/config.pbtxt"),
        *(
            "serving/__main__.py",
            "serving/page/index.html",
            "onnx_release/__init__.py",
            "onnx_release/runtime/release.py",
        ),
    } <= found
    library = {name for name in found if name.startswith("onnx_release/")}
    carried = {path for room in CARRIED for path in (ROOT / room).rglob("*.py")}
    assert library == {
        "onnx_release/__init__.py",
        "onnx_release/types.py",
        *(path.relative_to(ROOT).as_posix() for path in carried),
    }
    assert not [name for name in found if name.startswith("data/") or name.endswith(("network.py", "weights.pth"))]
    assert (release / "labels.txt").read_text() == "".join(f"{digit}\n" for digit in range(10))
    assert (release / "onnx_release/runtime/release.py").read_bytes() == (
        ROOT / "onnx_release/runtime/release.py"
    ).read_bytes()


def test_the_manifest_says_what_it_is_of(release):
    found = manifest(release)
    assert found["files"] == {
        name: {"sha256": sha256(release / name), "bytes": (release / name).stat().st_size}
        for name in names(release) - {MANIFEST}
    }
    assert (found["model"], found["variant"], found["task"]) == (MODEL, "int8_static", "classification")
    assert found["metrics"]["validate"] == validation("classification", labelled=True)
    assert found["metrics"]["benchmark"].keys() >= {"int8_static", "torch_eager", "machine"}
    assert "fp16" not in found["metrics"]["benchmark"]
    assert found["hardware"]["cpu"] == "AMD EPYC"
    assert found["versions"]["python"] == "3.11.7" and found["versions"]["numpy"] and found["versions"]["onnxruntime"]
    assert found["opsets"] == {"ai.onnx": 18}
    assert found["git"] is None  # the project is in no repository


def test_the_same_inputs_give_the_same_bytes_in_any_folder(original, release, project):
    assert contents(make_release(project)) == contents(release)
    text = "".join(content.decode(errors="replace") for content in contents(release).values())
    assert str(original) not in text


def test_the_card_says_what_a_person_asks(release):
    card = (release / "MODEL_CARD.md").read_text()
    for text in (
        "A small convolutional network for 8 by 8 handwritten digits.",
        "`int8_static`: 8-bit weights and activations",
        "| input | image | float32 | batch × 1 × 8 × 8 |",
        "- batch: 1 to 64",
        "`preprocess()`: Scale an image of grey values 0..16 [8, 8] to 0..1.",
        "on 500 samples of 500 groups, 500 with labels",
        "| same answer as PyTorch | 99.0 % [98.0 %, 100.0 %] | |",
        "| accuracy lost | 1.0 % | |",
        "| signal to error (SQNR), dB | 30.5 | |",
        "It had to meet: at least 86% of the samples keep PyTorch's answer, the SQNR is at least 19.5 dB.",
        "| latency of a call, median, ms | 0.125 | 0.125 |",
        "| times as fast as PyTorch eager | 5.5 [5, 6] | 1 |",
        "on AMD EPYC, 2 cores, 24 GiB of memory",
        "ranges come from 160 samples of 160 groups",
        "CPUs of the kind `avx2`",
        "| weights.pth | weights.pth | `920ace1627",
        "`labels.txt` names the 10 classes",
        "cp model.onnx* triton/digits_cnn/1/",
    ):
        assert text in card, text
    assert "\n\n\n" not in card and "None" not in card and "{" not in card


@pytest.mark.parametrize(("task", "labelled"), KINDS)
def test_there_is_a_card_for_every_task_with_labels_and_without(project, task, labelled):
    """It is written from what the real validate() gives, where an unknown name is an error."""
    spec = project / f"models/{MODEL}/spec.yaml"
    text = DIGITS_SPEC.replace("task: classification", f"task: {task}").replace("  agreement: 0.86", "  cosine: 0.9")
    spec.write_text(text if task in ("classification", "detection") else text.replace(LABELS, ""))
    write_validations(project, MODEL, task, labelled > 0)
    card = (make_release(project) / "MODEL_CARD.md").read_text()
    agreement = "| 99.0 % [98.0 %, 100.0 %] | |"
    assert (agreement in card) == (task != "tensor")
    assert ("| accuracy, on 500 labelled samples | 97.0 % [96.0 %, 98.0 %] | 98.0 % |" in card) == (labelled > 0)
    assert ("its samples have no labels." in card) == (labelled == 0)
    assert ("| box iou | 1 | |" in card) == (task == "detection")
    assert ("| rank correlation | 1 | |" in card) == (task == "embedding")
    assert "None" not in card and "{" not in card


def test_a_detector_that_finds_nothing_is_released_with_dashes(project):
    spec = project / f"models/{MODEL}/spec.yaml"
    spec.write_text(spec.read_text().replace("task: classification", "task: detection"))
    write_json(project / FILES.metrics / "validate/int8_static.json", validated("detection", finds_nothing=True))
    card = (make_release(project) / "MODEL_CARD.md").read_text()
    assert "| box iou | – | |" in card and "| score error | – | |" in card


def test_the_card_says_where_speed_was_not_measured(project):
    change_json(project / FILES.metrics / "benchmark.json", {"disturbed_rounds": 15})
    card = (make_release(project) / "MODEL_CARD.md").read_text()
    assert "| times as fast as PyTorch eager | not measured | 1 |" in card
    assert (
        "was not measured: other work took cores.** Other work took cores in" in card
        and "`dvc repro -f -s pipelines/digits_cnn/dvc.yaml:benchmark`, and then `make repro MODEL=digits_cnn`" in card
    )


def test_only_what_clients_can_send_is_shown_as_sent(release, project):
    assert "/predict" not in (release / "MODEL_CARD.md").read_text()  # digits_cnn has no decode()
    data = project / f"models/{MODEL}/data.py"
    data.write_text(data.read_text() + '\n\ndef decode(content: bytes):\n    """Comma separated."""\n')
    card = (make_release(project) / "MODEL_CARD.md").read_text()
    assert "curl -F file=@FILE http://127.0.0.1:8000/predict" in card and "`decode()`: Comma separated." in card


def test_a_float_release_says_so_and_has_no_budget(project):
    change_json(project / FILES.metrics / "summary.json", {"variant": "fp32"})
    card = (make_release(project) / "MODEL_CARD.md").read_text()
    assert "`fp32`: float32" in card and "The error had to stay within 4 times PyTorch's own rounding" in card
    assert "of the kind" not in card and "8-bit" not in card


def test_where_no_variant_may_be_released_the_folder_says_why(project):
    refused = {"fp32": "logits is off by 0.1", "fp16": "it passed, but could not be timed: it crashed"}
    change_json(project / FILES.metrics / "summary.json", {"variant": None, "refused": refused})
    folder = make_release(project)
    assert names(folder) == {NOT_RELEASED}
    text = (folder / NOT_RELEASED).read_text()
    assert text.startswith(f"No variant of {MODEL} may be released:\n- fp16: it passed, but could not")
    assert "\n- fp32: logits is off by 0.1\n" in text
    assert "run `make repro MODEL=digits_cnn`. artifacts/digits_cnn/report/index.html has the details." in text


def test_without_the_server_there_is_no_release(project):
    (project / "serving/__main__.py").unlink()
    with pytest.raises(SpecError, match=r"serving/__main__\.py is not there, so the release could not be served"):
        make_release(project)


@pytest.mark.parametrize("name", ["metrics/digits_cnn/summary.json", "artifacts/digits_cnn/provider.json"])
def test_without_the_stages_before_it_says_so(project, name):
    (project / name).unlink()
    with pytest.raises(DataError, match=f"{name} is not there: run `dvc repro`"):
        make_release(project)


def test_a_comment_in_the_spec_changes_no_byte_and_the_release_has_all_that_it_says(project, release):
    spec = project / FILES.spec
    spec.write_text("# a comment\n" + spec.read_text().replace("budget:", "# another comment\nbudget:"))
    made = make_release(project)
    assert contents(made) == contents(release)
    assert "#" not in (made / FILES.spec).read_text()
    assert open_release(made).spec == read_yaml(spec, Spec, SpecError)


def test_what_does_not_open_is_not_released(project):
    """A page's file whose name would be a place on another drive under Windows."""
    (project / "serving/page/c:x.html").write_text("")
    with pytest.raises(ReleaseFolderError, match=r"'serving/page/c:x\.html' is outside of the folder"):
        make_release(project)


def test_what_dvc_leaves_out_is_not_in_the_manifest(project, release):
    (project / "serving/__pycache__").mkdir()
    for name in ("__pycache__/__main__.cpython-311.pyc", "page/.DS_Store", "page/index.html.partial"):
        (project / "serving" / name).write_bytes(b"x")
    assert names(make_release(project)) == names(release)


def test_torch_in_a_data_py_is_refused(project):
    data = project / f"models/{MODEL}/data.py"
    data.write_text(data.read_text() + "\nimport torch\n")
    with pytest.raises(SpecError, match=r"data\.py imports torch, and a release runs without PyTorch"):
        make_release(project)


def test_weights_in_other_files_come_along(project):
    path = project / FILES.variant("int8_static")
    model = onnx.load(path)
    onnx.save_model(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    folder = make_release(project)
    assert (folder / "model.onnx.data").read_bytes() == path.with_name("model.onnx.data").read_bytes()
    assert "model.onnx.data" in open_release(folder).manifest.files


def test_sources_that_are_marked_come_along_and_labels_out_of_one(project):
    """A file, and a folder; names in a source must be as many as the classes."""
    raw = project / "data/raw" / MODEL
    (raw / "parts").mkdir(parents=True)
    (raw / "parts/a.txt").write_text("a")
    (raw / "names.txt").write_bytes(b"".join(b"class %d\r\n" % number for number in range(10)))
    spec = project / f"models/{MODEL}/spec.yaml"
    lines = "\n".join(
        f"  - {{name: {name}, sha256: {'a' * 64}, from: {{path: x}}, release: {release}}}"
        for name, release in (("parts", "true"), ("names.txt", "false"))
    )
    text = DIGITS_SPEC.replace("sources:\n", f"sources:\n{lines}\n")
    spec.write_text(text.replace(LABELS, "labels: names.txt"))
    folder = make_release(project)
    assert {name for name in names(folder) if name.startswith("data/")} == {f"data/raw/{MODEL}/parts/a.txt"}
    assert open_release(folder).labels == [f"class {number}" for number in range(10)]
    (raw / "names.txt").write_text("a\nb\n")
    with pytest.raises(SpecError, match=r"names\.txt has 2 names, logits has 10"):
        make_release(project, Path("artifacts/other"))


def test_names_of_photographs_are_those_of_their_folders(tmp_path, make_spec):
    raw = tmp_path / "raw"
    for name in ("tulips", "asters"):
        (raw / "flowers" / name).mkdir(parents=True)
    spec = make_spec({"x": ["batch", 3, 4, 4]}, {"y": ["batch", 2]}, batch=(1, 4, 2))
    images = Images(folder="flowers", resize=6, crop=4, mean=[0.5], std=[0.5])
    assert label_names(raw, spec.model_copy(update={"images": images})) == ["asters", "tulips"]
    images = images.model_copy(update={"classes": ["tulips", "asters"]})
    assert label_names(raw, spec.model_copy(update={"images": images})) == ["tulips", "asters"]
    (raw / "names.txt").write_text("asters\ntulips\n")
    images = images.model_copy(update={"classes": "names.txt"})
    assert label_names(raw, spec.model_copy(update={"images": images})) == ["asters", "tulips"]
    update = {"images": images, "labels": ["Aster", "Tulip"]}
    assert label_names(raw, spec.model_copy(update=update)) == ["Aster", "Tulip"]
    assert label_names(raw, spec) == []
    images = images.model_copy(update={"classes": ["tulips", "asters"]})
    more = make_spec({"x": ["batch", 3, 4, 4]}, {"y": ["batch", 4]}, task="classification", batch=(1, 4, 2))
    assert label_names(raw, more.model_copy(update={"images": images})) == ["tulips", "asters", "2", "3"]


def test_photographs_stand_in_for_data_py_in_the_release_too(project):
    """Their folders are the classes' names, and the card says how they are prepared."""
    folder = project / f"models/{MODEL}"
    (folder / "data.py").unlink()
    for digit in range(10):
        (project / "data/raw" / MODEL / "weights.pth" / f"number {digit}").mkdir(parents=True)
    images = "images: {folder: weights.pth, resize: 9, crop: 8, mean: [0.5], std: [0.25]}"
    (folder / "spec.yaml").write_text(DIGITS_SPEC.replace(LABELS, images))
    made = make_release(project)
    assert open_release(made).labels == [f"number {digit}" for digit in range(10)]
    assert f"models/{MODEL}/data.py" not in names(made)
    card = (made / "MODEL_CARD.md").read_text()
    assert "photographs in folders by class (`weights.pth`), of which 50% were evaluated on" in card
    assert "preprocessing and postprocessing are in `onnx_release/data/image_folder.py`" in card and "/predict" in card


def test_the_card_says_how_an_official_split_was_used(project):
    folder = project / f"models/{MODEL}"
    (folder / "data.py").unlink()
    for part in ("train", "val"):
        for digit in range(10):
            (project / "data/raw" / MODEL / "weights.pth" / part / f"number {digit}").mkdir(parents=True)
    images = "images: {folder: weights.pth, resize: 9, crop: 8, interpolation: bicubic, mean: [0.5], std: [0.25]}"
    (folder / "spec.yaml").write_text(DIGITS_SPEC.replace(LABELS, images))
    made = make_release(project)
    assert open_release(made).labels == [f"number {digit}" for digit in range(10)]
    card = (made / "MODEL_CARD.md").read_text()
    assert "(`weights.pth`), calibrated on those of train/ and evaluated on those of val/. " in card
    assert "resized to 9 pixels (bicubic)" in card


@pytest.mark.parametrize("model", ["face_pnet", "minilm"])
def test_other_models_have_what_theirs_need(tmp_path, model, monkeypatch):
    make_project(tmp_path, model)
    (tmp_path / "data/raw" / model).mkdir(parents=True)
    (tmp_path / "data/raw" / model / "tokenizer.json").write_text("{}")
    folder = make_release(tmp_path, model=model)
    found = names(folder)
    packages = (folder / "requirements.txt").read_text()
    assert (f"data/raw/{model}/tokenizer.json" in found) == ("\ntokenizers==" in packages) == (model == "minilm")
    assert open_release(folder).labels == (["background", "face"] if model == "face_pnet" else None)
    assert "curl -F file=@FILE" in (folder / "MODEL_CARD.md").read_text()


def test_a_gpu_release_asks_for_the_gpu_s_packages_and_says_what_the_machine_brings(project):
    change_json(project / FILES.provider, {"provider": "CUDAExecutionProvider"})
    folder = make_release(project)
    packages = (folder / "requirements.txt").read_text()
    assert "\nonnxruntime-gpu[cuda,cudnn]==" in packages and "\nonnxruntime==" not in packages
    assert "an NVIDIA GPU (CUDA)" in (folder / "MODEL_CARD.md").read_text()
    assert "KIND_GPU" in (folder / f"triton/{MODEL}/config.pbtxt").read_text()


def test_the_commit_is_named_and_whether_code_differs_from_it(project, monkeypatch):
    monkeypatch.chdir(project)
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.invalid"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    assert git_state(FILES) is None  # there is no commit
    subprocess.run([*git, "add", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message=made"], check=True)
    revision = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    clean = {"revision": revision, "modified": False}
    assert git_state(FILES) == clean
    (project / FILES.metrics / "summary.json").write_text("{}")
    for path in (MACHINE_LOCK, FILES.lock):
        write_text(project / path, "")
    (project / "README.md").write_text("")
    assert git_state(FILES) == clean  # what the pipeline writes, and what it does not read
    another = project / "models/another/spec.yaml"
    another.parent.mkdir()
    another.write_text("task: tensor\n")
    assert git_state(FILES) == clean  # another model
    added = project / FILES.folder / "words.txt"
    added.write_text("")
    assert git_state(FILES) == {"revision": revision, "modified": True}
    added.unlink()
    (project / "requirements.txt").write_text("numpy==1.0\n")
    assert git_state(FILES) == {"revision": revision, "modified": True}


def instructions(release):
    text = (release / "Dockerfile").read_text()
    return DockerfileParser(fileobj=io.BytesIO(text.encode())).structure


def values(release, name):
    return [item["value"] for item in instructions(release) if item["instruction"] == name]


def test_the_dockerfile_runs_the_server_as_nobody_in_particular(release):
    assert values(release, "FROM") == ["python:3.11-slim-bookworm"]  # the Python that made it, with its latest fixes
    assert values(release, "USER") == ["10001"]
    assert json.loads(values(release, "CMD")[-1]) == ["python", "-m", "serving"]
    assert values(release, "STOPSIGNAL") == ["SIGTERM"]
    assert "SERVING_HOST=0.0.0.0" in values(release, "ENV")[0] and values(release, "EXPOSE") == ["8000"]
    order = [item["instruction"] for item in instructions(release) if item["instruction"] != "COMMENT"]
    steps = [item["value"] for item in instructions(release)]
    install = next(index for index, step in enumerate(steps) if step.startswith("pip install"))
    assert steps.index("requirements.txt ./") < install < steps.index(". .")
    assert order.index("USER") > max(index for index, name in enumerate(order) if name in ("RUN", "COPY"))


def test_the_dockerfile_s_linter_finds_nothing(release):
    path = path_with_python()
    command = ["hadolint", str(release / "Dockerfile")]
    result = subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, ""), result.stdout


def test_its_health_check_is_python_that_asks_whether_the_server_is_ready(release, monkeypatch):
    """It is run as Docker runs it: without a shell, against a server that says one thing and then the other."""
    (check,) = values(release, "HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])
    assert command[0] == "python"
    asked = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response([200, 503][len(asked) - 1])
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {"SERVING_PORT": str(server.server_port)}
        codes = [
            subprocess.run([sys.executable, *command[1:]], env=environment, check=False).returncode for _ in range(2)
        ]
        server.shutdown()
    assert codes == [0, 1] and asked == ["/v2/health/ready"] * 2


def test_running_the_release_does_not_change_it_for_dvc(original, release, tmp_path, monkeypatch):
    """Python writes __pycache__ beside the modules that it imports."""
    (tmp_path / FILES.artifacts).mkdir(parents=True)
    shutil.copytree(release, tmp_path / FILES.release)
    shutil.copyfile(ROOT / ".dvcignore", tmp_path / ".dvcignore")
    monkeypatch.chdir(tmp_path)
    with Repo.init(no_scm=True) as repo:
        repo.add(str(FILES.release))
        cache = tmp_path / FILES.release / "onnx_release/__pycache__"
        cache.mkdir()
        (cache / "release.cpython-311.pyc").write_bytes(b"compiled")
        assert repo.status() == {}
        (tmp_path / FILES.release / "labels.txt").write_text("another\n")
        assert repo.status()
