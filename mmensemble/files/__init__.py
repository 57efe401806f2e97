"""File formats: tables out of files and into them, and parts that survive their process. No onnxruntime."""
