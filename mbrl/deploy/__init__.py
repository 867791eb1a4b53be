"""Policies out of torch: graphs in ONNX, the guard that goes with them, and the file that a robot carries.

`runtime` needs NumPy and onnxruntime alone, and nothing else of this package.
"""
