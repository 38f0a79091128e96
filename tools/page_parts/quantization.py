"""Make the tables of docs/quantization.md from what the benchmarks of INT8 wrote."""

from onnx_release.report.text import number, table
from tools.page_parts import Maker, Read


def recipes(read: Read) -> str:
    """Compare int8_static with other quantizers, the best last."""
    found = read("benchmarks/quantization.json")
    models = sorted(found["models"].items(), key=lambda item: item[1]["sqnr_db"])
    rows = [
        [marked(name), f"{row['agreement']:.3f}", f"{row['sqnr_db']:.1f} dB", f"{row['latency']:.2f}"]
        for name, row in models
    ]
    return f"{table(['', 'agreement', 'SQNR', 'latency'], rows)}\n\nOn an {found['machine']}."


def avx2(read: Read) -> str:
    """Compare the target avx2 with other quantizers on a CPU without VNNI, the best last."""
    models = sorted(read("benchmarks/avx2.json")["models"].items(), key=lambda item: item[1]["sqnr_db"])
    rows = [[marked(name), f"{row['agreement']:.3f}", f"{row['sqnr_db']:.1f} dB"] for name, row in models]
    return table(["on AVX2", "agreement", "SQNR"], rows)


def marked(name: str) -> str:
    """Return the name of a quantizer, in bold if it is the pipeline's."""
    return f"**{name}**" if name.startswith("int8_static") else name


def curve(read: Read) -> str:
    """Show what the search finds in more minutes."""
    rows = [
        [
            *(number(row["minutes"]), str(row["fitted_graphs"]), str(row["float_layers"])),
            *(f"{row['calibration_sqnr_db']:.1f} dB", f"{row['sqnr_db']:.1f} dB", f"{row['agreement']:.3f}"),
        ]
        for row in read("benchmarks/quantization_curve.json")["minutes"]
    ]
    header = [
        "`quantize_static.minutes`",
        "graphs fitted",
        "float layers",
        "SQNR, calibration",
        "SQNR, evaluation",
        "agreement",
    ]
    return table(header, rows)


def calibration(read: Read) -> str:
    """Compare the pipeline's calibration with onnxruntime's in time, ranges and memory."""
    found = read("benchmarks/calibration.json")
    return (
        f"onnxruntime takes {number(found['onnxruntime_seconds'])} s and this repository {number(found['seconds'])} s, "
        f"which is {number(found['speedup'])} times as fast. Ends of ranges that differ by more than one bin: "
        f"{found['beyond_one_bin']} of {2 * found['ranges']}. Part of the gain is that values which go straight into a "
        f"Clip are not observed; counting the same values is {number(found['histogram_speedup'])} times as fast, on "
        "all cores here and on one core in onnxruntime. Memory is "
        f"{found['memory_mb_100']:.0f} MB for 100 samples and {found['memory_mb_2000']:.0f} MB for 2,000 samples "
        f"({found['machine']})."
    )


def ablation(part: str, header: list[str], columns: list[str]) -> Maker:
    """Return the maker of a table of benchmarks/ablation.json, with a row for each entry."""

    def make(read: Read) -> str:
        entries = read("benchmarks/ablation.json")[part]
        rows = [[row["name"], *(f"{row[key]:.1f}" if key in row else "" for key in columns)] for row in entries]
        return table(header, rows)

    return make


def float_layers(read: Read) -> str:
    """Show what ONNX Runtime does to float layers between quantized ones."""
    found = read("benchmarks/ablation.json")["float_layers"]
    alone, kept = found["quantized when loaded"], found["kept in float"]
    return (
        f"With all weights of this network in float, the answers have {alone:.1f} dB if ONNX Runtime quantizes the "
        f"weights on loading, and {kept:.1f} dB if they stay in float."
    )
