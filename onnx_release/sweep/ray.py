"""Run the experiments of a plan on a Ray cluster, and bring their results into the repository.

Each is a task, which clones the git remote at the base revision and pushes its result (onnx_release.sweep.node). An
experiment that builds on others takes their outcomes as arguments, so it starts as soon as they are done. All results
are on the two remotes: this process may die at any time, and the next one continues from there.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from configparser import ConfigParser
from pathlib import Path
from typing import Any

from onnx_release.core.errors import SweepError
from onnx_release.core.paths import ModelFiles
from onnx_release.core.plain_text import count_of
from onnx_release.review.revisions import namespace
from onnx_release.sweep import node as sweep_node
from onnx_release.sweep.node import NodeJob, NodeOutcome
from onnx_release.sweep.plan import Experiment, set_arguments
from onnx_release.sweep.progress import Progress, unfinished
from onnx_release.sweep.repository import git

REMOTE = "origin"
# A task whose worker or node died is tried again this often. One that failed by itself is not.
RETRIES = 3
# How long to wait for an answer from the address, and for a node that can run something.
CONNECT_SECONDS = 10
WAIT_SECONDS = 60
NO_NODE = ("the cluster", "has no node with a CPU yet; waiting for one")


def run_on_ray(plan: Sequence[Experiment], base: str, address: str, say: Callable[[str, str], None]) -> Progress:
    """Run the experiments that are not on the git remote, and say the name and the result of each.

    At the end it pulls those of the grid, without their data. Raises SweepError if none of them can run.
    """
    ray = import_ray()
    url = check_remotes(base)
    there = check_names(plan, base)
    progress = Progress(say)
    progress.done |= {experiment.name: "there already" for experiment in plan if experiment.name in there}
    todo = unfinished(plan, progress)
    if todo:
        preparing = {experiment.name for experiment in plan if experiment.prepares}
        author = (git("config", "user.name"), git("config", "user.email"))
        jobs = [make_job(experiment, preparing, base, url, author) for experiment in todo]
        connect(ray, address)
        try:
            run_jobs(ray, jobs, progress)
        finally:
            ray.shutdown()  # this also stops tasks that still run
    pull_experiments(
        [experiment.name for experiment in plan if experiment.name in progress.done and not experiment.prepares]
    )
    return progress


def import_ray() -> Any:
    try:
        import ray
    except ImportError as cause:
        raise SweepError("--ray needs Ray: run `pip install -r requirements-ray.txt`") from cause
    return ray


def check_remotes(base: str) -> str:
    """Return the git remote's URL. Raises SweepError unless nodes can get the base revision and its data."""
    if REMOTE not in git("remote").splitlines():
        raise SweepError(
            f"nodes clone from the git remote {REMOTE}, which does not exist: run `git remote add {REMOTE} URL` "
            f"and `git push {REMOTE} HEAD`"
        )
    git("fetch", "--quiet", REMOTE)
    if not git("for-each-ref", "--contains", base, f"refs/remotes/{REMOTE}"):
        raise SweepError(f"nodes clone {base[:7]} from {REMOTE}, which does not have it: run `git push {REMOTE} HEAD`")
    # Nodes have only the settings that are in git. DVC itself makes relative paths absolute.
    settings = ConfigParser(interpolation=None)
    settings.read(".dvc/config", encoding="utf-8")
    name = settings.get("core", "remote", fallback="")
    if not name:
        raise SweepError(
            "nodes exchange data through the default DVC remote, and .dvc/config has none: run `dvc remote add "
            "--default NAME URL`, commit .dvc/config and push it"
        )
    remote = settings.get(f"'remote \"{name}\"'", "url", fallback="")
    if remote.startswith(("http://", "https://")):
        raise SweepError(f"the DVC remote {name} is {remote}, and DVC has no run cache over HTTP: use another remote")
    if "://" not in remote and not Path(remote).is_absolute():
        raise SweepError(
            f"the DVC remote {name} is the relative path {remote}, another folder on each node: give an absolute path "
            "that all nodes mount"
        )
    status = json.loads(dvc_output("status", "--cloud", "--json"))
    missing = sorted(path for path, state in status.items() if state in {"new", "missing"})
    if missing:
        raise SweepError(
            f"the DVC remote {name} lacks {count_of(len(missing), 'output')} of the base revision, {missing[0]} among "
            "them: run `make repro` if they are missing here, and then `python -m tools.push`"
        )
    return git("remote", "get-url", REMOTE)


def check_names(plan: Sequence[Experiment], base: str) -> set[str]:
    """Return the names of this base's experiments on the git remote. Raises SweepError if one of the plan differs."""
    folder = f"{namespace(base)}/"
    here = dict(
        line.split()[::-1] for line in git("for-each-ref", "--format=%(objectname) %(refname)", folder).splitlines()
    )
    there = dict(line.split()[::-1] for line in git("ls-remote", REMOTE, folder + "*").splitlines())
    other = [experiment.name for experiment in plan if differs(here, there, folder + experiment.name)]
    if other:
        raise SweepError(
            f"{', '.join(other)}: this experiment is not on {REMOTE}, or differs there: run `dvc exp remove "
            f"{' '.join(other)}`, or `dvc exp push {REMOTE}` with the missing ones"
        )
    return {name.removeprefix(folder) for name in there}


def differs(here: dict[str, str], there: dict[str, str], name: str) -> bool:
    return name in here and here[name] != there.get(name)


def make_job(experiment: Experiment, preparing: set[str], base: str, url: str, author: tuple[str, str]) -> NodeJob:
    """Make the job of an experiment. It needs those that prepare for it; one that prepares needs all before it."""
    needs = tuple(name for name in experiment.after if experiment.prepares or name in preparing)
    arguments = (*set_arguments(experiment), *experiment.targets)
    parameters = ModelFiles(experiment.model).params.as_posix()
    return NodeJob(
        experiment.name,
        arguments,
        experiment.after,
        needs,
        experiment.timed,
        url,
        base,
        namespace(base),
        author,
        parameters,
    )


def connect(ray: Any, address: str) -> None:
    """Connect to the cluster. Raises SweepError if none answers at the address."""
    if "://" in address:
        raise SweepError(f"{address}: --ray takes HOST:PORT or auto; run this on a machine of the cluster")
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        # Checked here, since Ray would try for ten minutes.
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        except OSError as cause:
            raise SweepError(
                f"nothing answers at {address} ({cause}): give --ray the HOST:PORT that `ray start --head` prints, or "
                "auto on a node of the cluster"
            ) from cause
    ray.cloudpickle.register_pickle_by_value(sweep_node)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError, ImportError) as cause:
        raise SweepError(f"Ray cannot connect to {address}: {cause}") from cause


def run_jobs(ray: Any, jobs: Sequence[NodeJob], progress: Progress) -> None:
    """Submit all jobs and note the outcome of each. Raises SweepError as soon as a node has another environment."""
    run = ray.remote(max_retries=RETRIES)(sweep_node.run_job)
    whole_node = largest_node(ray, progress) if any(job.timed for job in jobs) else 1
    refs: dict[str, Any] = {}
    for job in jobs:
        earlier = [refs[name] for name in job.after if name in refs]
        refs[job.name] = run.options(num_cpus=whole_node if job.timed else 1, name=job.name).remote(job, *earlier)
    names = {ref: name for name, ref in refs.items()}
    while names:
        ready, _ = ray.wait(list(names), timeout=WAIT_SECONDS)
        if not ready and not ray.cluster_resources().get("CPU"):
            progress.say(*NO_NODE)
        for ref in ready:
            name = names.pop(ref)
            outcome = outcome_of(ray, ref, name)
            if outcome.state == "unfit":
                raise SweepError(
                    f"the environment of {outcome.node} is not the repository's: {outcome.reason}. Install "
                    "requirements.txt of the base revision on every node and sweep again: done work is not repeated"
                )
            count = f"{len(jobs) - len(names)} of {len(jobs)}"
            if outcome.state in {"ran", "found"}:
                progress.finish(name, f"{outcome.state} on {outcome.node} in {outcome.seconds:.0f} s", count)
            else:
                progress.fail(name, f"{outcome.state} on {outcome.node}: {outcome.reason}", count)


def outcome_of(ray: Any, ref: Any, name: str) -> NodeOutcome:
    try:
        return ray.get(ref)
    except ray.exceptions.RayError as error:
        return NodeOutcome(name, "failed", "no node", 0, str(error).strip())


def largest_node(ray: Any, progress: Progress) -> int:
    """Return the CPUs of the largest node: a task that asks for all of them has a node to itself.

    If there is no node yet, a task that does nothing makes the autoscaler start one.
    """

    def cpus() -> int:
        return int(max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0))

    if not cpus():
        asking = ray.remote(num_cpus=1)(sweep_node.node_folder).remote()
        while not ray.wait([asking], timeout=WAIT_SECONDS)[0]:
            progress.say(*NO_NODE)
    return cpus()


def pull_experiments(names: Sequence[str]) -> None:
    """Bring experiments into the repository: the files in git, with the metrics, and no data."""
    if names:
        dvc_output("exp", "pull", "--no-cache", REMOTE, *names)


def pull_data(names: Sequence[str]) -> None:
    """Bring the data of these experiments into DVC's cache, so that `dvc exp apply` finds it."""
    if names:
        dvc_output("exp", "pull", REMOTE, *names)


def dvc_output(*arguments: str) -> str:
    """Return what DVC prints. Raises SweepError if it fails."""
    command = [sys.executable, "-m", "dvc", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SweepError(f"dvc {' '.join(arguments[:2])} failed: {result.stderr.strip()}")
    return result.stdout
