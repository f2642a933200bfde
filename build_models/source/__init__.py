"""Where models come from: torch callables, ONNX files, and the families of their outputs."""
