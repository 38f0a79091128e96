"""What can go wrong in a way that the user can mend.

ReleaseError
├── ParameterError     a key or value of params.yaml
├── SpecError          a model's folder or its spec.yaml
├── SourceError        a file that could not be fetched, or is not the one that was declared
├── CheckpointError    weights that do not load into the network
├── DataError          a sample or a photograph
├── InputError         a request that contradicts the spec
├── NetworkError       what the PyTorch network does: training mode, NaN, other shapes than declared
├── ExportError        a network that does not convert as asked
├── GraphError         an ONNX file that is invalid, does not load, or gives other answers
├── ProviderError      an execution provider that was asked for and does not run the model
├── BenchmarkError     nothing that could be measured, or no baseline to compare with
├── RevisionError      a revision of git that is not here or has no metrics
├── SweepError         a grid, or a repository in which it cannot run
├── ReleaseFolderError a folder that is no release, or not the one that was made
└── StorageError       a result that could not be written

Each message says what is wrong, where, and what to do. `onnx_release.core.command` prints it without a traceback.
"""


class ReleaseError(Exception):
    """The base of every error that the user can mend; its text is the whole message."""


class ParameterError(ReleaseError):
    pass


class SpecError(ReleaseError):
    pass


class SourceError(ReleaseError):
    pass


class CheckpointError(ReleaseError):
    pass


class DataError(ReleaseError):
    pass


class InputError(ReleaseError):
    pass


class NetworkError(ReleaseError):
    pass


class ExportError(ReleaseError):
    pass


class GraphError(ReleaseError):
    pass


class ProviderError(ReleaseError):
    pass


class BenchmarkError(ReleaseError):
    pass


class RevisionError(ReleaseError):
    pass


class SweepError(ReleaseError):
    pass


class ReleaseFolderError(ReleaseError):
    pass


class StorageError(ReleaseError):
    pass
