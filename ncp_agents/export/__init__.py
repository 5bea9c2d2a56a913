"""Policies and layers as files for other programs: ONNX, and other frameworks' formats."""
