"""Run the experiments of a plan through DVC's queue, on one machine.

A worker of DVC's queue that is killed leaves a task that counts as running for ever, and workers hang
(treeverse/dvc#10398, #10428). So a sweep does not ask the queue what is done: it looks at the experiments in refs/exps,
and at the stages in the run cache. Every sweep starts with an empty queue, and again when its workers are gone.
"""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil
from dvc.exceptions import DvcException
from dvc.lock import LockError

from onnx_release.core.addresses import lock_entries
from onnx_release.core.command import path_with_python
from onnx_release.core.errors import SweepError
from onnx_release.core.files import remove, write_text
from onnx_release.core.git import git_output
from onnx_release.core.paths import LOCK, PIPELINES
from onnx_release.review.revisions import namespace
from onnx_release.sweep.plan import Experiment, set_arguments
from onnx_release.sweep.progress import Progress, unfinished
from onnx_release.sweep.repository import (
    CLONE,
    SWEEP_FOLDER,
    clone_processes,
    experiment_names,
    fetch_experiment,
    git,
    open_clone,
    stop_processes,
)

LOGS = SWEEP_FOLDER / "logs"
POLL_SECONDS, TIMED_POLL_SECONDS = 1.0, 5.0
# Workers that take nothing from a filled queue for this long are hung; they start in a few seconds.
HUNG_SECONDS = 120.0
# Workers that end without having taken anything, as on a full disk, are started this often in all.
WORKER_STARTS = 5
# An experiment whose worker is killed is tried this often in all.
ATTEMPTS = 2


def run_on_queue(plan: list[Experiment], base: str, jobs: int, say: Callable[[str, str], None]) -> Progress:
    """Run the experiments that are not done; `say` gets the name of every experiment that ends, and its result.

    `jobs` experiments run at once; timed ones run alone, after all others. Processes that an earlier sweep left running
    are stopped first: their stages start again, and stages that had ended do not.
    """
    progress = Progress(say)
    stop_processes()
    open_clone(base)
    try:
        note_results(plan, base, progress)
        wanted = unfinished(plan, progress)
        for timed in (False, True):
            wave = [experiment for experiment in wanted if experiment.timed == timed]
            run_wave(wave, base, 1 if timed else jobs, progress)
            stop_processes()  # idle workers of the first wave would take tasks of the second
    finally:
        stop_processes()
    if not any(experiment.name in progress.failed for experiment in plan):
        remove(CLONE)  # with the experiments that only prepared
    return progress


def note_results(plan: list[Experiment], base: str, progress: Progress) -> None:
    """Note the experiments that have a result already, in the repository or in the clone of an earlier sweep."""
    own, in_clone = experiment_names(base, Path()), experiment_names(base, CLONE)
    for experiment in plan:
        if experiment.name in own | in_clone:
            if not experiment.prepares and experiment.name not in own:
                fetch_experiment(base, experiment.name)  # it ended after the tool that started it
            progress.done[experiment.name] = "there already"


def run_wave(wave: list[Experiment], base: str, jobs: int, progress: Progress) -> None:
    """Queue each experiment once all experiments before it have ended, and wait until none is left."""
    queue = Queue(base)
    attempts = Counter[str]()
    waiting_since, starts = time.monotonic(), 0
    while rest := [experiment for experiment in wave if not progress.ended(experiment.name)]:
        queued, active = queue.names()  # before the refs: an experiment in neither set and without a ref has failed
        finished = experiment_names(base, CLONE)
        for experiment in rest:
            if experiment.name in queue.entries:
                if experiment.name not in queued | active:
                    note_end(experiment, queue, finished, progress)
            elif experiment.name in finished:  # from a queue that was discarded
                note_end(experiment, queue, finished, progress)
            elif can_start(experiment, rest, progress):
                after = [earlier for earlier in reversed(experiment.after) if earlier in finished]
                with contextlib.suppress(LockError):  # a worker has the lock: try again in the next round
                    queue.put(experiment, after)
                    queued.add(experiment.name)
        workers = count_processes("queue-worker")
        if count_processes("exec-run") or not queued | active:  # a task whose worker is gone counts as active
            waiting_since, starts = time.monotonic(), 0
        if (active and not workers) or time.monotonic() - waiting_since > HUNG_SECONDS:
            attempts.update(active)
            for name in active:
                if attempts[name] == ATTEMPTS:
                    progress.fail(name, f"its worker was killed {ATTEMPTS} times")
            queue.discard()
            queue = Queue(base)
            waiting_since = time.monotonic()
        elif workers < min(jobs, len(queued | active)):
            starts += 1
            if starts > WORKER_STARTS:
                raise SweepError(f"the workers of DVC's queue end at once: see {CLONE}/.dvc/tmp/exps/celery/*.out")
            queue.start_workers(jobs)
        # Polling takes time from a timed experiment.
        time.sleep(TIMED_POLL_SECONDS if wave[0].timed and active else POLL_SECONDS)


def can_start(experiment: Experiment, rest: list[Experiment], progress: Progress) -> bool:
    """Return whether all experiments before it have ended. One that only prepares fails if one of them failed."""
    if experiment.prepares and any(earlier in progress.failed for earlier in experiment.after):
        # The experiments that build on it do its work themselves, and say why they fail.
        progress.failed[experiment.name] = "an experiment before it failed"
        return False
    return not any(other.name in experiment.after and not progress.ended(other.name) for other in rest)


def note_end(experiment: Experiment, queue: "Queue", finished: set[str], progress: Progress) -> None:
    """Fetch the result of an experiment that has left the queue, or note why there is none."""
    ran = queue.keep_log(experiment.name)
    if experiment.name in finished:
        if not experiment.prepares:
            fetch_experiment(base=queue.base, name=experiment.name)
        progress.finish(experiment.name, ran)
    else:
        progress.fail(experiment.name, failure_reason(LOGS / f"{experiment.name}.log"))


def count_processes(command: str) -> int:
    """Count the clone's processes that run this command of DVC: queue-worker, or exec-run, which is an experiment."""
    count = 0
    for process in clone_processes():
        with contextlib.suppress(psutil.Error):
            count += command in process.cmdline()
    return count


class Queue:
    """The queue of the clone; `entries` are those that this process has added."""

    def __init__(self, base: str) -> None:
        from dvc.repo import Repo

        self.base = base
        self.repo = Repo(CLONE.absolute())
        self.queue = self.repo.experiments.celery_queue
        self.entries: dict[str, Any] = {}
        self.started: dict[str, float] = {}

    def put(self, experiment: Experiment, after: list[str]) -> None:
        """Run `dvc exp run --queue` in a workspace where the work of `after` is done."""
        git("reset", "--quiet", "--hard", self.base, cwd=CLONE)
        git("clean", "--quiet", "--force", "-d", cwd=CLONE)
        for name in after:
            apply_result(name, self.base)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.chdir(CLONE):
                self.repo.experiments.run(
                    targets=list(experiment.targets),
                    params=set_arguments(experiment)[1::2],
                    name=experiment.name,
                    queue=True,
                )
        except LockError:
            raise
        except DvcException as cause:
            raise SweepError(f"{experiment.name} cannot be queued: {cause}") from cause
        for entry in (*self.queue.iter_queued(), *self.queue.iter_active()):  # a worker may have it already
            self.entries.setdefault(entry.name, entry)

    def names(self) -> tuple[set[str], set[str]]:
        """Return the names that wait, and the names that run or whose worker is gone."""
        queued = {entry.name for entry in self.queue.iter_queued()}
        active = {entry.name for entry in self.queue.iter_active()}
        for name in active:
            self.started.setdefault(name, time.monotonic())
        return queued, active

    def start_workers(self, count: int) -> None:
        """Run `dvc queue start` as a program of its own: workers that this process forked would keep its lock."""
        command = [sys.executable, "-m", "dvc", "queue", "start", "--jobs", str(count)]
        log = SWEEP_FOLDER / "workers.log"  # not a pipe, since the workers keep inherited files open
        with log.open("w", encoding="utf-8") as file:
            environment = {**os.environ, "PATH": path_with_python()}
            code = subprocess.run(command, cwd=CLONE, env=environment, stdout=file, stderr=file, check=False).returncode
        if code:
            raise SweepError(f"`dvc queue start` failed: {log.read_text(encoding='utf-8').strip()}")

    def keep_log(self, name: str) -> str:
        """Copy the log to LOGS, and say what ran and how long it took."""
        if name not in self.entries:
            return "ran in a queue that was discarded"
        folder = Path(self.queue.pid_dir) / self.entries[name].stash_rev
        log = folder / f"{folder.name}.out"
        if not log.is_file():
            return "nothing ran"
        LOGS.mkdir(exist_ok=True)
        kept = LOGS / f"{name}.log"
        shutil.copy(log, kept)
        seconds = time.monotonic() - self.started.get(name, time.monotonic())
        return f"{', '.join(stages_that_ran(kept)) or 'nothing'} in {seconds:.0f} s"

    def discard(self) -> None:
        """Stop the workers and forget all that is queued, so that another queue starts empty."""
        stop_processes()
        self.repo.close()
        remove(CLONE / ".dvc/tmp/exps")


def apply_result(name: str, base: str) -> None:
    """Bring an experiment's entries of every dvc.lock and its metrics/ into the clone's workspace.

    DVC then finds its stages unchanged. To restore a stage from the run cache would take most of a second, since DVC
    writes dvc.lock again after each.
    """
    ref = f"{namespace(base)}/{name}"
    changed = git("diff", "--name-only", base, ref, "--", "metrics", cwd=CLONE).splitlines()
    if changed:
        git("checkout", "--quiet", ref, "--", *changed, cwd=CLONE)
    for lock in git("diff", "--name-only", base, ref, "--", str(LOCK), str(PIPELINES), cwd=CLONE).splitlines():
        before, after = (lock_entries(git_output("show", f"{of}:{lock}", cwd=CLONE) or "") for of in (base, ref))
        here = lock_entries((CLONE / lock).read_text(encoding="utf-8") if (CLONE / lock).is_file() else "")
        own = {stage: entry for stage, entry in after.items() if before.get(stage) != entry}
        write_text(CLONE / lock, "".join((here | own).values()))


def stages_that_ran(log: Path) -> list[str]:
    """Return the stages that an experiment ran, by its log, without those restored from the run cache."""
    return re.findall(r"^Running stage '([^']+)'", log.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)


# Lines that describe a failure, the best first: a stage's own message, the end of a traceback, DVC's message.
ERRORS = (r"error: .+", r"[\w.]+(?:Error|Exception): .+", r"ERROR: .+")


def failure_reason(log: Path) -> str:
    """Return the line of its log that says why an experiment failed."""
    if not log.is_file():
        return f"it did not start: see {CLONE}/.dvc/tmp/exps/celery"
    text = log.read_text(encoding="utf-8", errors="replace")
    found = [lines[-1] for error in ERRORS if (lines := re.findall(f"^{error}$", text, re.MULTILINE))]
    return f"{(found or text.splitlines()[-1:] or ['it printed nothing'])[0]} ({log})"


def repeated_work(logs: Iterable[Path], runs: Path, before: set[str]) -> dict[str, int]:
    """Count by the logs of experiments how often each command was run again on the same inputs.

    `runs` is the run cache, which has a folder for every command with the hashes of all its inputs; `before` are the
    names of those that it had before the experiments. Commands that it never keeps, and failed runs, do not count.
    """
    ran = Counter[str]()
    for log in logs:
        text = log.read_text(encoding="utf-8", errors="replace")
        commands = re.findall(r"^Running stage '[^']+':\n> (.+)$", text, re.MULTILINE)
        ran.update(commands[:-1] if "ERROR: failed to reproduce" in text else commands)
    kept, new = Counter[str](), Counter[str]()
    for folder in runs.glob("*/*"):
        entry = next(folder.iterdir()).read_text(encoding="utf-8")
        command = entry.splitlines()[0].removeprefix("cmd: ")
        kept[command] += 1
        new[command] += folder.name not in before
    return {command: count - new[command] for command, count in ran.items() if command in kept and count > new[command]}
