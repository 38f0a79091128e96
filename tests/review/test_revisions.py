"""What is read of a branch, a commit, an experiment and the workspace, and what is said of those that cannot be."""

import subprocess

import pytest

from onnx_release.core.errors import RevisionError
from onnx_release.review.revisions import load_pair
from tests.revisions import as_json, commit, git, write

EXPORT = "metrics/export.json"


def nodes(count):
    return {EXPORT: as_json({"nodes": count})}


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """main has 1 node and then 2; the branch `work`, which starts from 1, has 3, and is checked out."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "main")
    write(folder, {**nodes(1), "params.yaml": b"model: a\n"})
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
    return [side.metrics["export"]["nodes"] for side in load_pair(base, head)]


def test_the_merge_base_is_compared_with_and_named(repository):
    base, head = load_pair("main", None)
    common = git(repository, "rev-parse", "main~1")
    assert base.metrics == {"export": {"nodes": 1}}
    assert base.name == f"merge base of main and the workspace ({common[:7]})"
    assert (head.metrics["export"]["nodes"], head.name) == (3, "workspace, as committed")
    assert base.model == "a"


def test_head_may_be_a_revision_and_the_base_a_commit_or_a_tag(repository):
    git(repository, "tag", "released", "main~1")
    assert counts("released", "main") == [1, 2]
    assert counts(git(repository, "rev-parse", "HEAD~1"), "HEAD") == [1, 3]
    assert counts("HEAD", None) == [3, 3]


def test_a_dirty_workspace_is_compared_as_it_is_and_said_to_be(repository):
    write(repository, nodes(4))
    (repository / "metrics/half.json.partial").write_text("{")
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
    write(repository, {"metrics/plots/latency.csv": b"group,value\nNA,1\n007,\n"})
    table = load_pair("HEAD", None)[1].table("latency")
    assert table is not None
    assert table["group"].tolist() == ["NA", "007"]
    assert table["value"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        (EXPORT, b"", r"metrics/export\.json of workspace, not committed is not JSON"),
        (EXPORT, b"[1]", r"metrics/export\.json of workspace, not committed has no metrics by name"),
        ("params.yaml", b"a: [", r"params\.yaml of workspace, not committed is not valid YAML"),
        ("metrics/plots/latency.csv", b"", r"metrics/plots/latency\.csv of workspace, not committed is not a table"),
    ],
)
def test_a_damaged_file_is_named_with_its_revision(repository, path, content, message):
    write(repository, {path: content})
    head = load_pair("HEAD", None)[1]
    with pytest.raises(RevisionError, match=message):
        _ = head.metrics, head.model, head.table("latency")
