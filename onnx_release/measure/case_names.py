"""Read which shape cases the references have."""

from onnx_release.core.array_files import ArrayFile


def case_names(cases: ArrayFile) -> list[str]:
    """Return the names of the shape cases in the file, in its order: each has its arrays in NAME/inputs."""
    return [folder.removesuffix("/inputs") for folder in cases.names if folder.endswith("/inputs")]
