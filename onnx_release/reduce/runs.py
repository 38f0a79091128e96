"""Make the runs that show the values of a model: every calibration sample, and the corners of the declared sizes."""

from functools import partial

from onnx_release.core.spec import Spec, batch_dimension
from onnx_release.data.model_data import ModelData
from onnx_release.data.samples import SampleFile
from onnx_release.network.shape_cases import Sizes, case_inputs, case_name, shape_cases
from onnx_release.reduce.observe import Run, elements

# The part of the observations that the samples make; the others are shape cases.
SAMPLES = "samples"
# How many draws of samples fill a shape case.
DRAWS = 4
# A shape case of many times the elements of a sample repeats it: it gives few new ranges, and takes as much more time.
MOST_TIMES_LARGER = 16


def sample_runs(samples: SampleFile) -> list[Run]:
    """Return a run for each sample."""
    return [Run(f"calibration sample {index}", SAMPLES, partial(samples.batch, index)) for index in range(len(samples))]


def corner_runs(
    spec: Spec,
    samples: SampleFile,
    data: ModelData | None = None,
    draws: int = DRAWS,
    times_larger: float = MOST_TIMES_LARGER,
) -> list[Run]:
    """Return runs for the shape cases of one item, each filled with some draws of samples; none without samples.

    More items in a batch give no new values. A case with more than `times_larger` the elements of any sample is left
    out.
    """
    if not len(samples):
        return []
    largest = max(elements(samples.inputs(index)) for index in range(len(samples)))
    runs = []
    for sizes in one_item_cases(spec):
        arrays = [partial(case_inputs, spec, sizes, samples, seed, data) for seed in range(draws)]
        if elements(arrays[0]()) <= times_larger * largest:
            name = case_name(sizes)
            runs += [Run(f"the shape case {name}", name, one) for one in arrays]
    return runs


def one_item_cases(spec: Spec) -> list[Sizes]:
    """Return the shape cases with a batch of one, or none if all other sizes are fixed."""
    batch = batch_dimension(spec)
    one = {batch: max(1, spec.dimensions[batch].min)} if isinstance(batch, str) else {}
    cases = [sizes | one for sizes in shape_cases(spec)]
    different = [sizes for index, sizes in enumerate(cases) if sizes not in cases[:index]]
    return different if len(different) > 1 else []
