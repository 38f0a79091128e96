"""DVC's run cache on a remote: what another machine needs in order to restore a run instead of repeating it."""

from dataclasses import dataclass

from onnx_release.core.errors import StorageError


@dataclass(frozen=True)
class Pushed:
    files: int  # that the remote did not have
    runs: int  # in the run cache


def push_with_runs(remote: str | None = None) -> Pushed:
    """`dvc push --run-cache`, and the files of every run.

    DVC by itself pushes the list of runs, and of their files only those that dvc.lock names and git does not hold: no
    metrics. Without its metrics a stage is not restored elsewhere, it runs again. On the other machine,
    `dvc pull --run-cache` brings the list, and `dvc repro --pull` the files that it needs.

    `remote` is the default one unless given. Raises StorageError with DVC's words if there is no remote, or if it
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
                        raise StorageError(f"{len(result.failed)} files could not be pushed: run it again")
                    files += len(result.transferred)
                # DVC logs what it could not copy of the list, and goes on.
                odb = repo.cloud.get_remote_odb(remote, hash_name="md5-dos2unix")
                lost = [run for run in runs if not odb.fs.exists(odb.fs.join(odb.path, "runs", run[0][:2], *run))]
                if lost:
                    raise StorageError(f"{len(lost)} runs could not be pushed: run it again")
    # ImportError: a remote whose package is not installed. OSError: one that is not reached, or lets nobody in.
    except (DvcException, ImportError, OSError) as cause:
        raise StorageError(f"the push did not succeed: {cause}\ndocs/remotes.md says how to set a remote up") from cause
    return Pushed(files, len(runs))
