"""The functions of one value that generated kernels call: `f32_exp`, `f64_exp`, ...
of the templates in `jit.expressions`.

They are those of the CUDA mathematics library, at most 2 units in the last place off (NVIDIA, CUDA C++
Programming Guide, "Mathematical Functions"), and choices in which a NaN stays one, as in NumPy.
"""

from __future__ import annotations

_LIBRARY = "ceil cos cosh exp expm1 floor log log1p rint sin sinh sqrt tan tanh".split()

# # is the type, @ the letter that the library puts behind the names of its functions on floats
_TEXT = (
    "".join(f"__device__ inline # #_{name}(# x) {{ return {name}@(x); }}\n" for name in _LIBRARY)
    + """\
__device__ inline # #_abs(# x) { return fabs@(x); }
__device__ inline # #_arctan(# x) { return atan@(x); }
__device__ inline # #_pow(# x, # y) { return pow@(x, y); }
__device__ inline # #_sigmoid(# x) { return #(0.5) * tanh@(#(0.5) * x) + #(0.5); }
__device__ inline # #_softplus(# x) { return (x <= #(0) ? #(0) : x) + log1p@(exp@(-fabs@(x))); }
__device__ inline # #_relu(# x) { return x <= #(0) ? #(0) : x; }
__device__ inline # #_relu_gate(# x, # gate) { return x * (gate > #(0) ? #(1) : #(0)); }
__device__ inline # #_sign(# x) { return x > #(0) ? #(1) : x < #(0) ? #(-1) : x; }
__device__ inline # #_maximum(# x, # y) { return x != x ? x : (x > y ? x : y); }
__device__ inline # #_minimum(# x, # y) { return x != x ? x : (x < y ? x : y); }
"""
)

TYPES = "typedef float f32;\ntypedef double f64;\n"
FUNCTIONS = TYPES + _TEXT.replace("#", "f32").replace("@", "f") + _TEXT.replace("#", "f64").replace("@", "")
KINDS = {
    "float32": "f32",
    "float64": "f64",
}  # of each dtype, the type in kernels and the prefix of its functions
