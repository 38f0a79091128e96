"""What is read of a branch, a commit, an experiment and the workspace, and what is said of those that cannot be."""

import subprocess

import pytest

from onnx_release.core.errors import RevisionError
from onnx_release.review.revisions import load_pair, workspace
from tests.revisions import as_json, commit, git, write

EXPORT = "metrics/a/export.json"


def nodes(count):
    return {EXPORT: as_json({"nodes": count})}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """main has 1 node and then 2; the branch `work`, which starts from 1, has 3, and is checked out."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    write(folder, nodes(1))
    commit(folder)
    git(folder, "switch", "-q", "-c", "work")
    write(folder, nodes(3))
    commit(folder)
    git(folder, "switch", "-q", "main")
    write(folder, nodes(2))
    commit(folder)
    git(folder, "switch", "-q", "work")
    monkeypatch.chdir(folder)
    return folder


def counts(base, head):
    return [nodes_of(side) for side in load_pair(base, head)]


def nodes_of(revision):
    return revision.of_model("a").metrics["export"]["nodes"]


def test_the_merge_base_is_compared_with_and_named(repository):
    base, head = load_pair("main", None)
    common = git(repository, "rev-parse", "main~1")
    assert base.of_model("a").metrics == {"export": {"nodes": 1}}
    assert base.name == f"merge base of main and the workspace ({common[:7]})"
    assert (nodes_of(head), head.name) == (3, "workspace, as committed")


def test_head_may_be_a_revision_and_the_base_a_commit_or_a_tag(repository):
    git(repository, "tag", "released", "main~1")
    assert counts("released", "main") == [1, 2]
    assert counts(git(repository, "rev-parse", "HEAD~1"), "HEAD") == [1, 3]
    assert counts("HEAD", None) == [3, 3]


def test_a_dirty_workspace_is_compared_as_it_is_and_said_to_be(repository):
    write(repository, nodes(4))
    (repository / "metrics/a/half.json.partial").write_text("{")
    assert counts("HEAD", None) == [3, 4]
    assert load_pair("HEAD", None)[1].name == "workspace, not committed"


def experiment(folder, name, count, baseline):
    """An experiment as DVC keeps it: a commit on top of its baseline, which only a ref below refs/exps knows."""
    git(folder, "switch", "-q", "--detach", baseline)
    write(folder, nodes(count))
    made, start = commit(folder), git(folder, "rev-parse", baseline)
    git(folder, "update-ref", f"refs/exps/{start[:2]}/{start[2:]}/{name}", made)
    git(folder, "update-ref", "refs/exps/exec/EXEC_HEAD", made)
    git(folder, "switch", "-q", "work")
    return made


def test_an_experiment_is_taken_itself_as_base_and_as_head(repository):
    made = experiment(repository, "bold-ants", 7, "main")
    assert counts("bold-ants", None) == [7, 3]
    assert counts("bold-ants", "main") == [7, 2]
    assert load_pair("bold-ants", None)[0].name == f"bold-ants ({made[:7]})"
    assert counts("main", "bold-ants") == [2, 7]


def test_of_two_experiments_of_one_name_the_one_from_here_is_meant_and_elsewhere_neither(repository):
    experiment(repository, "bold-ants", 7, "main")
    experiment(repository, "bold-ants", 8, "main~1")
    with pytest.raises(RevisionError, match="there are 2 experiments called bold-ants; name a commit"):
        load_pair("bold-ants", None)
    experiment(repository, "bold-ants", 9, "work")
    assert counts("bold-ants", None) == [9, 3]


def test_a_base_without_metrics_says_so(repository):
    git(repository, "rm", "-q", "-r", "metrics")
    commit(repository)
    write(repository, nodes(5))
    with pytest.raises(
        RevisionError, match=r"^HEAD \(\w{7}\) has no metrics/: choose a base that has run `make repro`"
    ):
        load_pair("HEAD", None)


def before_models(folder):
    """Move the metrics to where they were before models were side by side."""
    git(folder, "rm", "-q", "-r", "metrics")
    write(folder, {"metrics/export.json": as_json({"nodes": 5}), "metrics/validate/fp32.json": as_json({"passed": 1})})


def test_a_revision_of_before_models_were_side_by_side_has_none_and_says_so(repository):
    after = git(repository, "rev-parse", "HEAD")
    before_models(repository)
    commit(repository)
    git(repository, "checkout", "-q", after, "--", "metrics")
    with pytest.raises(
        RevisionError, match=r"^HEAD \(\w{7}\) has no models, since .* choose a revision with metrics/NAME/"
    ):
        load_pair("HEAD", None)
    # What a merge has left of it hides no model.
    assert workspace().models == ["a"]


def test_a_workspace_of_before_models_were_side_by_side_says_so(repository):
    before_models(repository)
    with pytest.raises(
        RevisionError, match=r"^the workspace has no models, since its metrics are directly below metrics/"
    ):
        load_pair("HEAD", None)


def test_the_models_of_a_revision_are_those_with_metrics_and_each_has_its_own(repository):
    """Also where the name of one is the beginning of another's, and where one has stages and has never run."""
    write(repository, {"metrics/a_large/export.json": as_json({"nodes": 9}), "pipelines/b/dvc.yaml": b"stages: {}\n"})
    write(repository, {"metrics/a/validate/fp32.json": as_json({"passed": True})})
    write(repository, {"metrics/a_large/plots/latency.csv": b"variant\nfp32\n"})
    found = workspace()
    assert found.models == ["a", "a_large"]
    assert found.of_model("a").metrics == {"export": {"nodes": 3}, "validate/fp32": {"passed": True}}
    assert found.of_model("a_large").metrics == {"export": {"nodes": 9}}
    assert found.of_model("a").table("latency") is None and found.of_model("a_large").table("latency") is not None


def test_the_dependencies_of_a_stage_are_those_of_the_model(repository):
    """In the lock of its own pipeline, and not in that of the root or of a model whose name begins with its name."""
    write(repository, {"dvc.lock": lock_of("root", "package@a", "benchmark@a", "benchmark")})
    write(repository, {"pipelines/a/dvc.lock": lock_of("a", "benchmark", "validate@fp32")})
    write(repository, {"pipelines/a_large/dvc.lock": lock_of("a_large", "benchmark")})
    write(repository, {"pipelines/b/dvc.lock": lock_of("b", "export")})
    sides = [workspace(), load_pair(commit(repository), None)[0]]
    for found in sides:
        assert [found.of_model(model).locked("benchmark") for model in ("a", "a_large", "b", "c")] == [
            {"a/benchmark": "x"}, {"a_large/benchmark": "x"}, {}, {},
        ]  # fmt: skip
        assert found.of_model("a").locked("validate@fp32") == {"a/validate@fp32": "x"}


def lock_of(name, *stages):
    """A dvc.lock in which each stage depends on a file that is called by `name` and the stage."""
    deps = "".join(f"  {stage}: {{deps: [{{path: {name}/{stage}, md5: x}}]}}\n" for stage in stages)
    return f"stages:\n{deps}".encode()


def test_a_workspace_without_metrics_says_so(repository):
    (repository / EXPORT).unlink()
    with pytest.raises(RevisionError, match=r"the workspace has no metrics/: run `make repro`"):
        load_pair("HEAD", None)


@pytest.mark.parametrize("name", ["mian", "HEAD~9", "exec/EXEC_HEAD", "--all", "", "main:metrics"])
def test_a_revision_that_there_is_not_is_named(repository, name):
    with pytest.raises(RevisionError, match=f"no branch, tag, commit or experiment called {name}: `git branch -a`"):
        load_pair(name, None)


def test_branches_with_nothing_in_common_say_so(repository):
    git(repository, "switch", "-q", "--orphan", "other")
    write(repository, nodes(6))
    commit(repository)
    with pytest.raises(RevisionError, match="main and the workspace have no commit in common"):
        load_pair("main", None)


def test_a_shallow_clone_without_the_merge_base_says_how_to_get_it(repository, monkeypatch):
    clone = repository.parent / "clone"
    command = ["git", "clone", "-q", "--depth", "1", "--no-single-branch", f"file://{repository}", str(clone)]
    subprocess.run(command, check=True)
    monkeypatch.chdir(clone)
    with pytest.raises(
        RevisionError, match=r"shallow and lacks the merge base of origin/main .* `git fetch --unshallow`"
    ):
        load_pair("origin/main", None)
    with pytest.raises(RevisionError, match=r"(?s)called HEAD~1: .*This clone is shallow: `git fetch --unshallow`"):
        load_pair("HEAD~1", None)
    subprocess.run(["git", "fetch", "-q", "--unshallow"], check=True)
    assert counts("origin/main", None) == [1, 3]


def test_no_repository_is_said_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(RevisionError, match="this is not a git repository"):
        load_pair("HEAD", None)


def test_a_group_may_be_called_na_or_like_a_number(repository):
    write(repository, {"metrics/a/plots/latency.csv": b"group,value\nNA,1\n007,\n"})
    table = workspace().of_model("a").table("latency")
    assert table is not None
    assert table["group"].tolist() == ["NA", "007"]
    assert table["value"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        (EXPORT, b"", r"metrics/a/export\.json of workspace, not committed is not JSON"),
        (EXPORT, b"[1]", r"metrics/a/export\.json of workspace, not committed has no metrics by name"),
        ("pipelines/a/dvc.lock", b"a: [", r"pipelines/a/dvc\.lock of workspace, not committed is not valid YAML"),
        (
            "metrics/a/plots/latency.csv",
            b"",
            r"metrics/a/plots/latency\.csv of workspace, not committed is not a table",
        ),
    ],
)
def test_a_damaged_file_is_named_with_its_revision(repository, path, content, message):
    write(repository, {path: content})
    head = load_pair("HEAD", None)[1].of_model("a")
    with pytest.raises(RevisionError, match=message):
        _ = head.metrics, head.locked("benchmark"), head.table("latency")
