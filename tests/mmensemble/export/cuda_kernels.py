"""Which operators ONNX Runtime runs on a GPU: the kernels of its CUDA execution provider that graphs here need.

From docs/OperatorKernels.md of microsoft/onnxruntime at commit 001d12d2623fd411ce0f83d05abb5e82304a3389, read on
2026-11-22. Of each operator there is the range that comes nearest to opset 23, and of its types those that occur here.

"14+" on that page does not mean every later opset. A kernel without an end serves an operator only as it was defined
in the kernel's first opset; if opset 22 defines it anew, it falls to the CPU (`VerifyVersion` in
onnxruntime/core/framework/kernel_registry.cc). `Kernel.serves` follows that rule.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CUDA_KERNELS", "GENERATION_KERNELS", "LATER_KERNELS", "WITHOUT_KERNEL", "Kernel"]

FLOATS = frozenset({"float", "float16", "double"})
NUMBERS = FLOATS | {"int64"}
ARITHMETIC = NUMBERS | {"uint8"}
ANY = ARITHMETIC | {"bool"}
BOOL = frozenset({"bool"})


@dataclass(frozen=True)
class Kernel:
    """The opsets of a kernel, `last` being None where it has no end, and the types of the data that it takes."""

    first: int
    types: frozenset[str]
    last: int | None = None

    def serves(self, since_version: int) -> bool:
        """Whether it serves an operator whose definition is of opset `since_version`."""
        return self.first == since_version or (self.last is not None and self.first <= since_version <= self.last)


# Domain ai.onnx.
CUDA_KERNELS = {
    "Abs": Kernel(13, NUMBERS),
    "Add": Kernel(14, ARITHMETIC),
    "And": Kernel(7, BOOL),
    "ArgMax": Kernel(13, FLOATS),
    "Attention": Kernel(23, frozenset({"float", "float16"}), last=23),
    "Cast": Kernel(23, ANY),
    "Clip": Kernel(13, ARITHMETIC),
    "Concat": Kernel(13, ANY),
    "ConstantOfShape": Kernel(9, ANY),
    "Conv": Kernel(22, FLOATS),
    "CumSum": Kernel(14, NUMBERS),
    "Div": Kernel(14, ARITHMETIC),
    "Equal": Kernel(13, NUMBERS | BOOL),
    "Exp": Kernel(13, FLOATS),
    "Expand": Kernel(13, ANY),
    "Gather": Kernel(13, ANY),
    "GatherElements": Kernel(13, ANY),
    "GatherND": Kernel(13, NUMBERS | BOOL),
    "Gelu": Kernel(20, FLOATS),
    "Gemm": Kernel(13, FLOATS),
    "Greater": Kernel(13, NUMBERS),
    "GreaterOrEqual": Kernel(16, NUMBERS),
    "IsNaN": Kernel(20, FLOATS),
    "LSTM": Kernel(14, FLOATS),
    "LayerNormalization": Kernel(17, FLOATS),
    "Less": Kernel(13, NUMBERS),
    "LessOrEqual": Kernel(16, NUMBERS),
    "Log": Kernel(13, FLOATS),
    "LogSoftmax": Kernel(13, FLOATS),
    "MatMul": Kernel(13, FLOATS),
    "Max": Kernel(13, NUMBERS),
    "MaxPool": Kernel(12, FLOATS | {"uint8"}),
    "Min": Kernel(13, NUMBERS),
    "Mul": Kernel(14, ARITHMETIC),
    "Neg": Kernel(13, NUMBERS),
    "Not": Kernel(1, BOOL),
    "OneHot": Kernel(11, frozenset({"float", "float16", "int64"})),
    "Or": Kernel(7, BOOL),
    "Range": Kernel(11, frozenset({"float", "double", "int64"})),
    "ReduceMax": Kernel(18, NUMBERS),
    "ReduceMean": Kernel(18, FLOATS),
    "ReduceSum": Kernel(13, NUMBERS),
    "Relu": Kernel(14, FLOATS),
    "Reshape": Kernel(23, ANY),
    "Shape": Kernel(23, ANY),
    "Sigmoid": Kernel(13, FLOATS),
    "Slice": Kernel(13, ANY),
    "Softmax": Kernel(13, FLOATS),
    "Softplus": Kernel(1, FLOATS),
    "Split": Kernel(18, ANY),
    "Sqrt": Kernel(13, FLOATS),
    "Squeeze": Kernel(23, ANY),
    "Sub": Kernel(14, ARITHMETIC),
    "Sum": Kernel(13, FLOATS),
    "Tanh": Kernel(13, FLOATS),
    "Tile": Kernel(13, NUMBERS),
    "Transpose": Kernel(23, ANY),
    "Trilu": Kernel(14, ANY),
    "Unsqueeze": Kernel(23, ANY),
    "Where": Kernel(16, ARITHMETIC),
}

# Their kernels on that page are older than their definitions at opset 23, so that an ONNX Runtime of that commit runs
# them on the CPU. Newer ones have got kernels (onnxruntime's issue 27729): onnxruntime-gpu 1.31.1 places them on the
# CUDA provider. That is what it logged when sessions were made with stand-ins for the CUDA libraries; nothing ran.
LATER_KERNELS = frozenset({"ConstantOfShape", "Equal", "LSTM", "ReduceMax", "Softplus"})

# What has no kernel at opset 23, neither on that page nor in onnxruntime-gpu 1.31.1, and why.
WITHOUT_KERNEL = {
    # Files of precision "fp16", which are for GPUs, have Gather and Max in its place.
    "MaxPool": "opset 22 defines it anew, and the CUDA kernel stays at opset 12 (onnxruntime's pull request 27715)",
    "TreeEnsembleRegressor": "the CUDA provider has no kernels of the domain ai.onnx.ml",
}

# Graphs that write texts are of opset 24, which defines many operators anew; on that page these still have the kernels
# of opset 23. onnxruntime-gpu 1.31.1 has those of opset 24: in sessions that were made with stand-ins for the CUDA
# libraries it placed all of them on the CUDA provider, except a few that compute shapes, which it keeps on the CPU.
GENERATION_KERNELS = (CUDA_KERNELS.keys() - WITHOUT_KERNEL.keys()) | {
    "Constant",
    "Cos",
    "Identity",
    "If",
    "RMSNormalization",
    "RotaryEmbedding",
    "Sin",
    "TensorScatter",
}
