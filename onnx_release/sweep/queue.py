"""Run the experiments of a plan through DVC's queue, on one machine.

A worker of DVC's queue that is killed leaves a task that counts as running for ever, and workers hang
(treeverse/dvc#10398, #10428). So the queue is never trusted with what is done: that are the experiments in refs/exps,
and the stages in the run cache. Every sweep starts with an empty queue, and so does one whose workers are gone.
"""

import contextlib
import io
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

from onnx_release.core.errors import SweepError
from onnx_release.core.files import remove
from onnx_release.core.paths import LOCK
from onnx_release.review.revisions import namespace
from onnx_release.sweep.plan import Experiment, override
from onnx_release.sweep.progress import Progress, unfinished
from onnx_release.sweep.repository import (
    CLONE,
    FOLDER,
    bring,
    experiments,
    git,
    open_clone,
    processes,
    stop_processes,
)

LOGS = FOLDER / "logs"
POLL_SECONDS, TIMED_POLL_SECONDS = 1.0, 5.0
# Workers that take nothing from a queue that is not empty for so long are hung; they start in a few.
HUNG_SECONDS = 120.0
# Workers that end without having taken anything, which a full disk does to them, are started so often in all.
STARTS = 5
# An experiment whose worker is killed is tried again, so often in all.
ATTEMPTS = 2


def run_plan(plan: list[Experiment], base: str, jobs: int, say: Callable[[str, str], None]) -> Progress:
    """Run what is not done yet; `say` gets the name of every experiment that ends, and what came of it.

    `jobs` experiments run at once, timed ones alone and after all others. What an earlier sweep left running is
    stopped first: its stages that were running start again, and nothing that had ended does.
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
            stop_processes()  # idle workers of the first wave would take from the second
    finally:
        stop_processes()
    if not any(experiment.name in progress.failed for experiment in plan):
        remove(CLONE)  # and with it the experiments that only prepared
    return progress


def note_results(plan: list[Experiment], base: str, progress: Progress) -> None:
    """Note the experiments that have a result already, in the repository or in the clone of an earlier sweep."""
    own, in_clone = experiments(base, Path()), experiments(base, CLONE)
    for experiment in plan:
        if experiment.name in own | in_clone:
            if not experiment.prepares and experiment.name not in own:
                bring(base, experiment.name)  # it ended after the tool that had started it
            progress.done[experiment.name] = "there already"


def run_wave(wave: list[Experiment], base: str, jobs: int, progress: Progress) -> None:
    """Queue each experiment once all that it comes after have ended, and wait until none is left."""
    queue = Queue(base)
    attempts = Counter[str]()
    waiting_since, starts = time.monotonic(), 0
    while rest := [experiment for experiment in wave if not progress.ended(experiment.name)]:
        queued, active = queue.names()  # before the refs: what is in neither and has no ref has failed
        finished = experiments(base, CLONE)
        for experiment in rest:
            if experiment.name in queue.entries:
                if experiment.name not in queued | active:
                    note_end(experiment, queue, finished, progress)
            elif experiment.name in finished:  # of a queue that was discarded
                note_end(experiment, queue, finished, progress)
            elif can_start(experiment, rest, progress):
                after = [earlier for earlier in reversed(experiment.after) if earlier in finished]
                with contextlib.suppress(LockError):  # a worker is taking something out; next time
                    queue.put(experiment, after)
                    queued.add(experiment.name)
        workers = count_processes("queue-worker")
        if count_processes("exec-run") or not queued | active:  # a task whose worker is gone counts as active
            waiting_since, starts = time.monotonic(), 0
        if (active and not workers) or time.monotonic() - waiting_since > HUNG_SECONDS:
            attempts.update(active)
            for name in active:
                if attempts[name] == ATTEMPTS:
                    progress.fail(name, "its worker was killed, and again when it was tried anew")
            queue.discard()
            queue = Queue(base)
            waiting_since = time.monotonic()
        elif workers < min(jobs, len(queued | active)):
            starts += 1
            if starts > STARTS:
                raise SweepError(f"the workers of DVC's queue end at once: see {CLONE}/.dvc/tmp/exps/celery/*.out")
            queue.start_workers(jobs)
        # Looking costs something of what a timed experiment measures.
        time.sleep(TIMED_POLL_SECONDS if wave[0].timed and active else POLL_SECONDS)


def can_start(experiment: Experiment, rest: list[Experiment], progress: Progress) -> bool:
    """Whether nothing that it comes after is still to run. One that only prepares is left out if such a one failed."""
    if experiment.prepares and any(earlier in progress.failed for earlier in experiment.after):
        # Those that would have found its work done do it themselves, and say why they fail.
        progress.failed[experiment.name] = "what it comes after failed"
        return False
    return not any(other.name in experiment.after and not progress.ended(other.name) for other in rest)


def note_end(experiment: Experiment, queue: "Queue", finished: set[str], progress: Progress) -> None:
    """Bring the result of an experiment that has left the queue, or note why there is none."""
    ran = queue.keep_log(experiment.name)
    if experiment.name in finished:
        if not experiment.prepares:
            bring(base=queue.base, name=experiment.name)
        progress.finish(experiment.name, ran)
    else:
        progress.fail(experiment.name, failure(LOGS / f"{experiment.name}.log"))


def count_processes(command: str) -> int:
    """How many of the clone's processes are this command of DVC: queue-worker, or exec-run, which is an experiment."""
    count = 0
    for process in processes():
        with contextlib.suppress(psutil.Error):
            count += command in process.cmdline()
    return count


class Queue:
    """The queue of the clone; `entries` are those that this process has put into it."""

    def __init__(self, base: str) -> None:
        from dvc.repo import Repo

        self.base = base
        self.repo = Repo(CLONE.absolute())
        self.queue = self.repo.experiments.celery_queue
        self.entries: dict[str, Any] = {}
        self.started: dict[str, float] = {}

    def put(self, experiment: Experiment, after: list[str]) -> None:
        """`dvc exp run --queue`, in a workspace where the work of `after` is done."""
        git("reset", "--quiet", "--hard", self.base, cwd=CLONE)
        git("clean", "--quiet", "--force", "-d", cwd=CLONE)
        for name in after:
            take_over(name, self.base)
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.chdir(CLONE):
                self.repo.experiments.run(
                    targets=list(experiment.targets) or None,
                    params=override(experiment.params)[1::2],
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
        """Those that wait, and those that run or whose worker is gone."""
        queued = {entry.name for entry in self.queue.iter_queued()}
        active = {entry.name for entry in self.queue.iter_active()}
        for name in active:
            self.started.setdefault(name, time.monotonic())
        return queued, active

    def start_workers(self, count: int) -> None:
        """`dvc queue start`, as a program of its own: workers that this process forked would hold its lock."""
        command = [sys.executable, "-m", "dvc", "queue", "start", "--jobs", str(count)]
        log = FOLDER / "workers.log"  # no pipe: the workers keep what they inherit open
        with log.open("w", encoding="utf-8") as file:
            code = subprocess.run(command, cwd=CLONE, stdout=file, stderr=file, check=False).returncode
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


def take_over(name: str, base: str) -> None:
    """Bring into the clone's workspace what an experiment has in dvc.lock and metrics/.

    DVC then finds its stages unchanged. To restore one from the run cache instead costs it most of a second, for it
    writes dvc.lock anew after each.
    """
    ref = f"{namespace(base)}/{name}"
    changed = git("diff", "--name-only", base, ref, "--", "metrics", cwd=CLONE).splitlines()
    if changed:
        git("checkout", "--quiet", ref, "--", *changed, cwd=CLONE)
    before, after = (lock_entries(git("show", f"{commit}:{LOCK}", cwd=CLONE)) for commit in (base, ref))
    own = {stage: entry for stage, entry in after.items() if before.get(stage) != entry}
    merged = lock_entries((CLONE / LOCK).read_text(encoding="utf-8")) | own
    (CLONE / LOCK).write_text("".join(merged.values()), encoding="utf-8")


def lock_entries(text: str) -> dict[str, str]:
    """The lines of dvc.lock by stage, in the order of the file; what stands before the first has an empty name."""
    entries = {"": ""}
    stage = ""
    for line in text.splitlines():
        if re.match(r"  [^ ]", line):
            stage = line.strip().rstrip(":")
            entries[stage] = ""
        entries[stage] += line + "\n"
    return entries


def stages_that_ran(log: Path) -> list[str]:
    """The stages that an experiment ran, by its log; those restored from the run cache are not among them."""
    return re.findall(r"^Running stage '([^']+)'", log.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)


# What names a failure best, best first: a stage's own message, the end of a traceback, what DVC says about it.
ERRORS = (r"error: .+", r"[\w.]+(?:Error|Exception): .+", r"ERROR: .+")


def failure(log: Path) -> str:
    """Why an experiment failed, in a line of its log."""
    if not log.is_file():
        return f"it did not start; see {CLONE}/.dvc/tmp/exps/celery"
    text = log.read_text(encoding="utf-8", errors="replace")
    found = [lines[-1] for error in ERRORS if (lines := re.findall(f"^{error}$", text, re.MULTILINE))]
    return f"{(found or text.splitlines()[-1:] or ['it said nothing'])[0]} ({log})"


def repeated_work(logs: Iterable[Path], runs: Path, before: set[str]) -> dict[str, int]:
    """How often each command was run beyond once for each of its inputs, by the logs of experiments.

    `runs` is the run cache, which has a folder for every command with the hashes of all that it read; `before` are the
    names of those that it had already. Commands that it never keeps, and runs that failed, do not count.
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
