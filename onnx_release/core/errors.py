"""Declare the errors that a user can fix.

ReleaseError
├── ParameterError     a key or value of params.yaml, models/NAME/params.yaml or models.yaml
├── SpecError          a model's folder or its spec.yaml
├── SourceError        a file that could not be fetched, or is not the one that was declared
├── CheckpointError    weights that do not load into the network
├── DataError          a sample, a photograph, or a file that a stage made
├── InputError         a request that contradicts the spec
├── NetworkError       a PyTorch network in training mode, or with NaN or other shapes than declared
├── ExportError        a network that does not convert as asked
├── GraphError         an ONNX file that is invalid, does not load, or gives other answers
├── ProviderError      an execution provider that does not run the model although it was asked for
├── BenchmarkError     nothing to measure, or no baseline to compare with
├── RevisionError      a git revision that is missing or has no metrics
├── SweepError         a grid of parameters, or a repository in which it cannot run
├── ReleaseFolderError a folder that is no release, or has changed since it was made
└── StorageError       a result that could not be written

Each message says what is wrong, where, and what to do. `onnx_release.core.command` prints it without a traceback.
"""


class ReleaseError(Exception):
    """The base of every error that the user can fix. Its text is the whole message."""


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
