"""The stand-in for cublasLt has the numbers, types and parameters of nvmath-python, where that is installed."""

import inspect
import re

import fake_cublaslt
import pytest
from fake_cublaslt import FakeCublasLt

FUNCTIONS = [name for name in vars(FakeCublasLt) if name.startswith(("create", "matmul_", "matrix_"))]
CALLED = [name for name in [*FUNCTIONS, "matmul"] if callable(getattr(FakeCublasLt, name))]
ENUMS = ["MatmulDescAttribute", "MatrixLayoutAttribute", "MatmulPreferenceAttribute", "ReductionScheme"]


@pytest.fixture(scope="module")
def package():
    return pytest.importorskip("nvmath.bindings.cublasLt", reason="nvmath-python is not installed")


@pytest.mark.parametrize("name", ENUMS)
def test_numbers_of_attributes(package, name):
    real = getattr(package, name)
    assert {one.name: int(real[one.name]) for one in getattr(fake_cublaslt, name)} == {
        one.name: int(one) for one in getattr(fake_cublaslt, name)
    }


@pytest.mark.parametrize("name", CALLED)
def test_functions_take_as_many_arguments(package, name):
    """The first line of a docstring there is the signature."""
    words = re.match(r"\w+\((.*?)\)", getattr(package, name).__doc__)[1]
    own = [p for p in inspect.signature(getattr(FakeCublasLt, name)).parameters if p != "self"]
    assert len(own) == (words.count(",") + 1 if words else 0)


def test_what_the_heuristics_write(package):
    assert package.matmul_heuristic_result_dtype == fake_cublaslt.result_dtype


@pytest.mark.parametrize(
    "kind, name",
    [
        ("fp64", "COMPUTE_64F"),
        ("fp32", "COMPUTE_32F"),
        ("tf32", "COMPUTE_32F_FAST_TF32"),
        ("bf16", "COMPUTE_32F"),
    ],
)
def test_numbers_of_types(package, kind, name):
    from nvmath import CudaDataType
    from nvmath.bindings.cublas import ComputeType

    [(compute, operands, result)] = [
        key for key, found in fake_cublaslt.COMBINATIONS.items() if found == kind
    ]
    own = {"fp64": "CUDA_R_64F", "bf16": "CUDA_R_16BF"}.get(kind, "CUDA_R_32F")
    summed = "CUDA_R_64F" if kind == "fp64" else "CUDA_R_32F"
    assert (compute, operands, result) == (ComputeType[name], CudaDataType[own], CudaDataType[summed])
