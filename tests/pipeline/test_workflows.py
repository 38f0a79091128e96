"""What .github/workflows/ may do, and with whose code."""

import re
import shlex
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.imports import ROOT
from tools.pull_request_comment import parser

FILES = sorted((ROOT / ".github/workflows").glob("*.yml"))
WORKFLOWS: dict[str, dict[str, Any]] = {path.stem: YAML(typ="safe").load(path.read_text()) for path in FILES}
JOBS = {(name, job): content for name, workflow in WORKFLOWS.items() for job, content in workflow["jobs"].items()}
COMMENT = ("pull-request", "comment")
PIPELINE = ("pull-request", "pipeline")


def steps(key: tuple[str, str], text: str) -> list[dict[str, Any]]:
    """The steps of a job whose action or command has `text`."""
    return [step for step in JOBS[key]["steps"] if text in step.get("uses", "") + step.get("run", "")]


def test_every_action_is_pinned_by_its_hash_and_has_one():
    lines = [line for path in FILES for line in path.read_text().splitlines() if "uses:" in line]
    assert lines
    pins = [
        re.fullmatch(r" +(?:- )?uses: ([\w-]+/[\w-]+)(?:/[\w-]+)?@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)", x) for x in lines
    ]
    assert [line for line, pin in zip(lines, pins, strict=True) if pin is None] == []
    assert len({pin.groups() for pin in pins if pin}) == len({pin[1] for pin in pins if pin})


def test_a_token_that_writes_is_in_no_job_that_runs_the_pull_requests_code():
    assert WORKFLOWS["pull-request"]["permissions"] == {}
    assert WORKFLOWS["ci"]["permissions"] == {"contents": "read"}
    granted = {key: job.get("permissions", WORKFLOWS[key[0]]["permissions"]) for key, job in JOBS.items()}
    assert granted.pop(COMMENT) == {"contents": "read", "pull-requests": "write"}
    assert all(permissions == {"contents": "read"} for permissions in granted.values())
    [checkout] = steps(COMMENT, "actions/checkout")
    assert checkout["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"
    for key, job in JOBS.items():
        if key != COMMENT:
            assert not re.search(r"secrets\.|github\.token", str(job))


def test_no_checkout_leaves_its_token_in_the_clone():
    checkouts = [step for key in JOBS for step in steps(key, "actions/checkout")]
    assert len(checkouts) == len(JOBS)
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_no_workflow_of_a_fork_gets_a_token_that_writes():
    for workflow in WORKFLOWS.values():
        events = workflow["on"]
        assert set([events] if isinstance(events, str) else events) <= {
            "push",
            "pull_request",
            "schedule",
            "workflow_dispatch",
        }
    assert "github.event.pull_request.head.repo.full_name == github.repository" in JOBS[COMMENT]["if"]


@pytest.mark.parametrize("key", JOBS, ids="/".join)
def test_nothing_is_put_into_a_command_but_by_its_environment(key):
    assert not [step["run"] for step in JOBS[key]["steps"] if "${{" in step.get("run", "")]


def test_the_comparison_has_the_whole_history():
    for key in JOBS:
        if steps(key, ".ci/review"):
            [checkout] = steps(key, "actions/checkout")
            assert checkout["with"]["fetch-depth"] == 0
    assert steps(PIPELINE, ".ci/review")


def test_a_pull_request_runs_the_models_that_it_touches_once_and_the_main_branch_all():
    assert [key for key in JOBS if steps(key, ".ci/review")] == [PIPELINE]
    [everything] = [key for key in JOBS if steps(key, "make repro-all")]
    assert JOBS[everything]["if"] == "github.event_name == 'push'" and everything[0] == "ci"
    assert not [key for key in JOBS for text in ("make repro ", "tools.repro", "dvc repro") if steps(key, text)]
    review = (ROOT / ".ci/review").read_text()
    assert "in $touched" in review and "python -m tools.touched_models" in review
    rules = (ROOT / "Makefile").read_text()
    assert "\n\tpython -m tools.repro --all\n" in rules and "\n\tpython -m tools.gate --all\n" in rules


def test_the_report_is_posted_when_a_gate_fails():
    assert "!cancelled()" in JOBS[COMMENT]["if"]
    assert JOBS[COMMENT]["needs"] == "pipeline"
    for text in ("cache/save", "upload-artifact", "pull_request_comment"):
        [step] = steps(PIPELINE, text)
        assert step["if"] == "${{ !cancelled() }}"


@pytest.mark.parametrize("key", [PIPELINE, COMMENT], ids="/".join)
def test_the_script_has_the_options_that_it_is_called_with(key):
    [step] = steps(key, "tools.pull_request_comment")
    words = shlex.split(step["run"].split("tools.pull_request_comment")[1].partition(">")[0].replace("\\\n", ""))
    names = {word.lstrip("$"): "7" for word in words if word.startswith("$")}
    assert names.keys() - {"RUNNER_TEMP/review"} == step["env"].keys() - {"GH_TOKEN", "PULL_REQUEST"}
    parser().parse_args([names.get(word.lstrip("$"), word) for word in words])
    assert ("gh pr comment" in step["run"]) == (key == COMMENT)


def test_one_workflow_alone_comments_on_pull_requests():
    """`gh pr comment --edit-last` edits the last comment of its author, whichever workflow has made it."""
    assert [key for key in JOBS if steps(key, "gh pr comment")] == [COMMENT]
