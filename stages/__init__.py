"""One script for each stage of the pipeline; dvc.yaml runs them as `python -m stages.NAME`."""

from onnx_release.core.command import die_of_ctrl_c_until_main

die_of_ctrl_c_until_main()
