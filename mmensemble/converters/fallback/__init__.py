"""The way out for estimators without a form of their own: skl2onnx converts them, and what it gives is tried out."""
