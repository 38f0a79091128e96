"""Push DVC's run cache to a remote, so that another machine can restore a run instead of repeating it."""

from dataclasses import dataclass

from onnx_release.core.errors import StorageError
from onnx_release.core.plain_text import count_of


@dataclass(frozen=True)
class PushedCounts:
    """The files that the remote did not have, and the runs in the run cache."""

    files: int
    runs: int


def push_with_runs(remote: str | None = None) -> PushedCounts:
    """Run `dvc push --run-cache`, and push the files of every run as well.

    DVC itself pushes the list of runs, and only those of their files that are in dvc.lock and not in git: no metrics.
    Without its metrics another machine cannot restore a stage and runs it again. There, `dvc pull --run-cache` brings
    the list, and `dvc repro --pull` the files that it needs.

    Without `remote` it takes the default one. Raises StorageError with DVC's message if there is no remote, or if it
    cannot be reached or takes no run cache.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            files = repo.push(remote=remote)
            with repo.lock:
                runs = repo.stage_cache.push(remote)
                for odb, objects in repo.stage_cache.get_used_objs(runs).items():
                    result = repo.cloud.push(objects, remote=remote, odb=odb)
                    if result.failed:
                        raise StorageError(f"{count_of(len(result.failed), 'file')} could not be pushed: run it again")
                    files += len(result.transferred)
                # DVC only logs which runs it could not copy.
                odb = repo.cloud.get_remote_odb(remote, hash_name="md5-dos2unix")
                lost = [run for run in runs if not odb.fs.exists(odb.fs.join(odb.path, "runs", run[0][:2], *run))]
                if lost:
                    raise StorageError(f"{count_of(len(lost), 'run')} could not be pushed: run it again")
    # ImportError: the remote's package is not installed. OSError: it cannot be reached, or refuses access.
    except (DvcException, ImportError, OSError) as cause:
        raise StorageError(f"the push failed: {cause}\ndocs/remotes.md says how to set up a remote") from cause
    return PushedCounts(files, len(runs))
