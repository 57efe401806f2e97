"""torch networks as parts of an ONNX graph."""
