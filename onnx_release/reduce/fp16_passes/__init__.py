"""Prepare a graph for onnxconverter-common's conversion to float16, and put right what it leaves wrong.

Each module holds small passes that change a model in place; `convert` says in which order they run. A node is "kept" if
it stays in float32. Weights may be references to another file: no pass here looks at large ones.
"""
