"""Small passes that prepare a graph for onnxconverter-common, and put right what it leaves wrong."""
