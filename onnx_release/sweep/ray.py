"""Run the experiments of a plan on a Ray cluster, and bring their results into the repository.

Each is a task, which clones the git remote at the base revision and pushes its result (onnx_release.sweep.node). An
experiment that builds on others takes their outcomes as arguments, so that it starts as soon as these are done. What a
sweep has done is on the two remotes: this process may die at any time, and the next one goes on from there.
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
from onnx_release.review.revisions import namespace
from onnx_release.sweep import node as sweep_node
from onnx_release.sweep.node import Job, Outcome
from onnx_release.sweep.plan import Experiment, override
from onnx_release.sweep.progress import Progress, unfinished
from onnx_release.sweep.repository import git

REMOTE = "origin"
# A task whose worker or node died is tried again, so often. One that failed by itself is not.
RETRIES = 3
# Without an answer from the address, and without a node that could run anything.
CONNECT_SECONDS = 10
WAIT_SECONDS = 60
NO_NODE = ("the cluster", "waiting for a node with a CPU, there is none")


def run_plan(plan: Sequence[Experiment], base: str, address: str, say: Callable[[str, str], None]) -> Progress:
    """Run on the cluster what is not on the git remote yet, and say what comes of each experiment, after its name.

    At the end, those of the grid are pulled, without their data. Raises SweepError with what is in the way of all.
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
            ray.shutdown()  # and with it what still runs
    pull([experiment.name for experiment in plan if experiment.name in progress.done and not experiment.prepares])
    return progress


def import_ray() -> Any:
    try:
        import ray
    except ImportError as cause:
        raise SweepError("--ray needs Ray: run `pip install -r requirements-ray.txt`") from cause
    return ray


def check_remotes(base: str) -> str:
    """The git remote's URL. Raises SweepError unless nodes can get the base revision and its data from the remotes."""
    if REMOTE not in git("remote").splitlines():
        raise SweepError(
            f"there is no git remote called {REMOTE}, from which nodes clone: run `git remote add {REMOTE} URL` "
            f"and `git push {REMOTE} HEAD`"
        )
    git("fetch", "--quiet", REMOTE)
    if not git("for-each-ref", "--contains", base, f"refs/remotes/{REMOTE}"):
        raise SweepError(f"{base[:7]} is not on {REMOTE}, from which nodes clone it: run `git push {REMOTE} HEAD`")
    # Nodes have what is in git, and not this machine's other settings. DVC itself makes relative paths absolute.
    settings = ConfigParser(interpolation=None)
    settings.read(".dvc/config", encoding="utf-8")
    name = settings.get("core", "remote", fallback="")
    if not name:
        raise SweepError(
            "there is no default DVC remote in .dvc/config, through which nodes exchange data: run `dvc remote add "
            "--default NAME URL`, commit .dvc/config and push it"
        )
    remote = settings.get(f"'remote \"{name}\"'", "url", fallback="")
    if remote.startswith(("http://", "https://")):
        raise SweepError(
            f"the DVC remote {name} is {remote}, and DVC's run cache does not go through HTTP: use another"
        )
    if "://" not in remote and not Path(remote).is_absolute():
        raise SweepError(
            f"the DVC remote {name} is {remote}, which is another folder from each node's clone: give an absolute path "
            "that all nodes mount"
        )
    status = json.loads(dvc("status", "--cloud", "--json"))
    missing = sorted(path for path, state in status.items() if state in {"new", "missing"})
    if missing:
        raise SweepError(
            f"the DVC remote {name} lacks {len(missing)} outputs of the base revision, {missing[0]} among them: run "
            "`make repro` if they are not here, and `python -m tools.push`"
        )
    return git("remote", "get-url", REMOTE)


def check_names(plan: Sequence[Experiment], base: str) -> set[str]:
    """The names of this base that are on the git remote. Raises SweepError for one of the plan that is another here."""
    folder = f"{namespace(base)}/"
    here = dict(
        line.split()[::-1] for line in git("for-each-ref", "--format=%(objectname) %(refname)", folder).splitlines()
    )
    there = dict(line.split()[::-1] for line in git("ls-remote", REMOTE, folder + "*").splitlines())
    other = [experiment.name for experiment in plan if differs(here, there, folder + experiment.name)]
    if other:
        raise SweepError(
            f"{', '.join(other)}: here and not on {REMOTE}, or another there, and a name is used once: "
            f"run `dvc exp remove {' '.join(other)}`, or `dvc exp push {REMOTE}` with what is not there"
        )
    return {name.removeprefix(folder) for name in there}


def differs(here: dict[str, str], there: dict[str, str], name: str) -> bool:
    return name in here and here[name] != there.get(name)


def make_job(experiment: Experiment, preparing: set[str], base: str, url: str, author: tuple[str, str]) -> Job:
    """The task of an experiment. It needs what prepares for it; one that prepares needs all that it comes after."""
    needs = tuple(name for name in experiment.after if experiment.prepares or name in preparing)
    arguments = (*override(experiment.params), *experiment.targets)
    return Job(
        experiment.name, arguments, experiment.after, needs, experiment.timed, url, base, namespace(base), author
    )


def connect(ray: Any, address: str) -> None:
    """Raises SweepError if no cluster answers there."""
    if "://" in address:
        raise SweepError(f"{address}: --ray takes HOST:PORT, or auto; run this on a machine of the cluster")
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        # Ray itself tries for ten minutes.
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        except OSError as cause:
            raise SweepError(
                f"nothing answers at {address} ({cause}): --ray takes HOST:PORT as `ray start --head` prints it, or "
                "auto on a node of the cluster"
            ) from cause
    ray.cloudpickle.register_pickle_by_value(sweep_node)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError, ImportError) as cause:
        raise SweepError(f"Ray does not connect to {address}: {cause}") from cause


def run_jobs(ray: Any, jobs: Sequence[Job], progress: Progress) -> None:
    """Submit all jobs, and note what becomes of each. Raises SweepError once a node has another environment."""
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
                    "requirements.txt of the base revision on every node and sweep again: what is done is not repeated"
                )
            count = f"{len(jobs) - len(names)} of {len(jobs)}"
            if outcome.state in {"ran", "found"}:
                progress.finish(name, f"{outcome.state} on {outcome.node} in {outcome.seconds:.0f} s", count)
            else:
                progress.fail(name, f"{outcome.state} on {outcome.node}: {outcome.reason}", count)


def outcome_of(ray: Any, ref: Any, name: str) -> Outcome:
    try:
        return ray.get(ref)
    except ray.exceptions.RayError as error:
        return Outcome(name, "failed", "no node", 0, str(error).strip())


def largest_node(ray: Any, progress: Progress) -> int:
    """The CPUs of the largest node: a task that asks for all of them has a node to itself.

    Where there is none yet, a task that does nothing has the autoscaler start one.
    """

    def cpus() -> int:
        return int(max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0))

    if not cpus():
        asking = ray.remote(num_cpus=1)(sweep_node.node_folder).remote()
        while not ray.wait([asking], timeout=WAIT_SECONDS)[0]:
            progress.say(*NO_NODE)
    return cpus()


def pull(names: Sequence[str]) -> None:
    """Bring experiments into the repository: what is in git, metrics among it, and no data."""
    if names:
        dvc("exp", "pull", "--no-cache", REMOTE, *names)


def pull_data(names: Sequence[str]) -> None:
    """Bring what these experiments have made into DVC's cache, so that `dvc exp apply` finds it."""
    if names:
        dvc("exp", "pull", REMOTE, *names)


def dvc(*arguments: str) -> str:
    """What DVC prints. Raises SweepError if it fails."""
    command = [sys.executable, "-m", "dvc", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SweepError(f"dvc {' '.join(arguments[:2])} failed: {result.stderr.strip()}")
    return result.stdout
