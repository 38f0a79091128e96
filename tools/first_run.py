"""Run a model as its folder has it, on one sample and at two sizes, before the pipeline does."""

import tempfile
from pathlib import Path

from onnx_release.core.errors import ReleaseError
from onnx_release.core.spec import Source, example_sizes, load_spec
from onnx_release.data.fetch import origin_path
from onnx_release.data.model_data import load_data, place_of, reason_of
from onnx_release.data.samples import SampleFile, without_batch_axis, write_samples
from onnx_release.measure.answers import check_answers


def why_it_fails(model: str) -> str | None:
    """Run models/`model` in float32 on a sample, and at its smallest and its example sizes; None if nothing fails.

    The sources are read where they lie, and must be on this machine.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            run_first(model, Path(folder))
    except ReleaseError as error:
        return str(error)
    except Exception as error:  # a model's code may raise anything
        return f"{place_of(error, model)}: {reason_of(error)}"
    return None


def run_first(model: str, folder: Path) -> None:
    """Do what the stages prepare and reference do, with one sample and two shape cases. Raises what they raise."""
    from onnx_release.network.network import check_outputs, load_network, run_network  # they need torch
    from onnx_release.network.shape_cases import case_inputs, shape_cases

    spec, raw, file = load_spec(model), folder / "raw", folder / "evaluation.npz"
    link_sources(model, spec.sources, raw)
    data, network = load_data(model), load_network(model, raw)
    write_samples(file, data.samples(raw, "evaluation"), 1, spec)
    samples = SampleFile(file)
    sizes = (shape_cases(spec)[0], example_sizes(spec))
    runs = [samples.batch(0), *(case_inputs(spec, case, samples, 0, data) for case in sizes)]
    for inputs in runs:
        outputs = run_network(network, spec, inputs)
        check_outputs(spec, inputs, outputs)
        if inputs is runs[0] and spec.task != "tensor":
            check_answers(spec, [data.postprocess(without_batch_axis(outputs, spec))])


def link_sources(model: str, sources: list[Source], raw: Path) -> None:
    """Make the folder `raw`, with a link to each source under its name: a copy of photographs may not fit."""
    raw.mkdir()
    for source in sources:
        path = origin_path(model, source)
        if path is not None:
            (raw / source.name).symlink_to(path.resolve())
