"""The chosen variant on this machine: its graph as ONNX Runtime optimises it, and a profile by operator."""
