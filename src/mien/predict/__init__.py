"""From sources to readings, without torch: `Recognizer`, the ONNX backend and smoothing over time."""
