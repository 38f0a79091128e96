"""The line of the user's source that is named for a node or a finding."""

from onnx_release.graph.source_lines import source_line
from tests.imports import ROOT


def test_this_library_is_never_blamed_and_files_have_the_same_name_in_every_folder(tmp_path, monkeypatch):
    trace = f'File "{ROOT}/models/a/network.py", line 3, in f\nFile "{ROOT}/onnx_release/network/network.py", line 5\n'
    for folder in (ROOT, tmp_path):
        monkeypatch.chdir(folder)
        assert source_line(trace) == ("models/a/network.py", 3)
