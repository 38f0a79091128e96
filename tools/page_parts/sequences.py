"""Make the tables of docs/sequences.md from benchmarks/sequences.json."""

from onnx_release.report.text import number, speedup_cell, table
from onnx_release.timing.speedup import Speedup
from tools.page_parts import Read

# Headers of `neighbour_cells`.
NEIGHBOUR_METRICS = ("mean cosine", "least cosine", "same nearest neighbour")


def padding(read: Read) -> str:
    """Show how far padding moves an embedding of minilm, in PyTorch and in every variant."""
    found = read("benchmarks/sequences.json")
    keys = ("by_1", "by_7", "to_longest")
    rows = [
        [row["name"], *(number(row[key], 1) if row[key] else "0" for key in keys), str(row["texts"])]
        for row in found["padding"]
    ]
    header = ["", "1 token of padding", "7", "to the longest", "texts"]
    return (
        f"{table(header, rows)}\n\nEach cell is the largest difference in any number of an embedding, whose length is "
        f"1; measured on an {found['machine']} (`python -m benchmarks.sequences`)."
    )


def batches(read: Read) -> str:
    """Show how close int8_dynamic is to PyTorch when texts run alone, padded, and in batches."""
    found = read("benchmarks/sequences.json")
    rows = [[row["name"], *neighbour_cells(row)] for row in found["batches"]]
    return (
        f"{table(['`int8_dynamic`', *NEIGHBOUR_METRICS], rows)}\n\n{found['texts']} texts. The "
        f"shortest has {found['tokens']['least']} tokens, and half of them have at most "
        f"{number(found['tokens']['median'])}."
    )


def sequence_recipes(read: Read) -> str:
    """Show what the options of onnxruntime's dynamic quantizer do to minilm, and which values cost the most."""
    found = read("benchmarks/sequences.json")
    rows = [
        [
            *(row["name"], str(row["quantized"]), *neighbour_cells(row)),
            f"{row['size_mb']:.1f}",
            speedup_cell(Speedup(row["speedup"], row["speedup_low"], row["speedup_high"])),
        ]
        for row in found["recipes"]
    ]
    first = found["wide_products"][0]
    return (
        f"{table(['', 'products in INT8', *NEIGHBOUR_METRICS, 'MB', 'speed-up over fp32'], rows)}\n\n"
        f"{found['texts']} texts; timed at batch 1 and the `example` size on an {found['machine']}. Brackets are "
        "95 % intervals.\n\n**Single values cost the most.** In every text the input of the first layer's product from "
        f"1,536 to 384 reaches about {number(first['largest_at_least'], 2)}, while 99.9 % of its values are below "
        f"{number(first['quantile_999'], 2)}. A range that includes the largest value leaves few steps for the others."
    )


def neighbour_cells(row: dict[str, float]) -> list[str]:
    """Return the cells under NEIGHBOUR_METRICS for a row of benchmarks/sequences.json."""
    return [f"{row['mean_cosine']:.4f}", f"{row['least_cosine']:.4f}", f"{row['same_neighbour']:.3f}"]
