"""Recognise expressions, without torch: `Recognizer`, the ONNX backend and smoothing over time."""
