"""Every written kernel compiles for the cards of two generations, where there is no card at all."""

import importlib
import pkgutil

import numpy as np
import odegrad.engine.cuda
import pytest
from nvrtc import ARCHITECTURES, compile_or_skip
from odegrad.engine.cuda.max_pool import MAX_POOL
from odegrad.engine.cuda.source import Source, pack_size
from odegrad.engine.errors import ArgumentTypeError


def written_sources() -> list[Source]:
    """Every Source of the modules in engine/cuda, in the order of their names."""
    package = odegrad.engine.cuda
    modules = [
        importlib.import_module(f"{package.__name__}.{m.name}")
        for m in pkgutil.iter_modules(package.__path__)
    ]
    found = {id(v): v for m in modules for v in vars(m).values() if isinstance(v, Source)}
    return sorted(found.values(), key=lambda source: source.name)


SOURCES = written_sources()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.name)
def test_it_compiles(source, dtype, architecture):
    assert compile_or_skip(source.complete(dtype, **dict(source.macros)), architecture)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
def test_pooling_of_several_channels_a_thread_compiles(dtype, architecture):
    macros = {"THREADS": 256, "WIDTH": pack_size(dtype)}
    assert compile_or_skip(MAX_POOL.complete(dtype, **macros), architecture)


def test_their_names_are_distinct():
    assert len({source.name for source in SOURCES}) == len(SOURCES) > 0


def test_other_dtypes_are_refused():
    with pytest.raises(ArgumentTypeError, match=r"work on float32 or float64; got complex128"):
        SOURCES[0].complete("complex128", **dict(SOURCES[0].macros))


def test_a_mistake_in_a_text_is_reported_with_its_line():
    with pytest.raises(AssertionError, match=r"kernel\.cu\(2\)"):
        compile_or_skip('extern "C" __global__ void wrong() {\n  return 1;\n}', "sm_90")
