"""Commands for people: `python -m tools.NAME`."""

from onnx_release.core.command import die_of_ctrl_c_until_main

die_of_ctrl_c_until_main()
