"""Measurements behind the claims of this project: `python -m benchmarks.NAME`."""

from onnx_release.core.command import die_of_ctrl_c_until_main

die_of_ctrl_c_until_main()
