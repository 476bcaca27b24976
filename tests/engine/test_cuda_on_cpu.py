"""The stand-in for a GPU that kernels are tested on: threads, barriers, shared memory, shuffles, arguments."""

import types

import numpy as np
import pytest
from cuda_on_cpu import CpuModule, Guarded, needs_compiler
from cuda_on_device import DeviceModule

pytestmark = needs_compiler

TEXT = r"""
extern "C" __global__ void scale(float* x, float by, long long n) {
  const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  if (i < n) x[i] *= by;
}
extern "C" __global__ void __launch_bounds__(96) block_sum(const double* x, double* out) {
  __shared__ double part[96];
  part[threadIdx.x] = x[blockIdx.x * 96 + threadIdx.x];
  for (int half = 48; half > 2; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
  }
  __syncthreads();
  if (threadIdx.x == 0) out[blockIdx.x] = part[0] + part[1] + part[2];
}
extern "C" __global__ void warp_sum(const int* x, int* out) {
  int total = x[threadIdx.x];
  if (threadIdx.x >= 64) return;
  for (int by = 16; by; by /= 2) total += __shfl_down_sync(0xffffffffu, total, by);
  if (threadIdx.x % 32 == 0) atomicAdd(out, total);
}
extern "C" __global__ void uninitialised(float* out) {
  __shared__ float part[4];
  out[threadIdx.x] = part[threadIdx.x];
  part[threadIdx.x] = 1;
}
extern "C" __global__ void without_barrier(int* out) {
  __shared__ int part[64];
  part[threadIdx.x] = threadIdx.x;
  out[threadIdx.x] = part[(threadIdx.x + 1) % 64];
}
extern "C" __global__ void fill(int* out) { out[threadIdx.x] = 7; }
extern "C" __global__ void divergent(int* out) {
  if (threadIdx.x < 3) __syncthreads();
  else __syncthreads();
}
"""


@pytest.fixture(scope="module")
def module():
    return CpuModule(TEXT)


def test_every_thread_of_every_block_runs(module):
    x = Guarded((300,), np.float32, offset=1)
    x.array[:] = np.arange(300)
    module.get_function("scale")((3,), (128,), (x.array, np.float32(2), np.int64(300)))
    np.testing.assert_array_equal(x.check(), 2 * np.arange(300))


def test_barriers_order_shared_memory(module):
    x, out = np.arange(192.0), np.empty(2)
    module.get_function("block_sum")((2,), (96,), (x, out))
    np.testing.assert_array_equal(out, [x[:96].sum(), x[96:].sum()])


def test_shuffles_see_the_values_of_their_warp(module):
    x, out = np.arange(80, dtype=np.int32), np.zeros(1, np.int32)
    module.get_function("warp_sum")((1,), (80,), (x, out))
    assert out[0] == x[:64].sum()


def test_shared_memory_is_not_kept_from_block_to_block(module):
    out = np.zeros(4, np.float32)
    module.get_function("uninitialised")((2,), (4,), (out,))
    assert np.isnan(out).all()


def test_a_missing_barrier_shows(module):
    out = np.zeros(64, np.int32)
    module.get_function("without_barrier")((1,), (64,), (out,))
    assert (out != (np.arange(64) + 1) % 64).any()


def test_a_barrier_that_threads_reach_at_different_lines_is_refused(module):
    with pytest.raises(AssertionError, match="waits at line"):
        module.get_function("divergent")((1,), (8,), (np.zeros(8, np.int32),))


@pytest.mark.parametrize("wrong", [2.0, np.float64(2), np.int32(2)], ids=lambda x: type(x).__name__)
def test_an_argument_of_another_type_is_refused(module, wrong):
    with pytest.raises(AssertionError, match="argument 1 is"):
        module.get_function("scale")((1,), (8,), (np.ones(8, np.float32), wrong, np.int64(8)))


def test_a_write_past_the_end_is_seen(module):
    out = Guarded((63,), np.int32)
    module.get_function("fill")((1,), (64,), (out.array,))
    with pytest.raises(AssertionError, match="past an end"):
        out.check()


class Copy:
    """An array on a device: a copy of what it was made of."""

    def __init__(self, host):
        self._memory = host.copy()
        self.data = types.SimpleNamespace(ptr=self._memory.ctypes.data)

    def get(self):
        return self._memory


def test_on_a_device_whole_memories_go_there_and_come_back():
    module = DeviceModule(types.SimpleNamespace(RawModule=CpuModule, asarray=Copy), TEXT, ())
    x = Guarded((5,), np.float32, offset=1)
    x.array[:] = 1
    module.get_function("scale")((1,), (8,), (x.array, np.float32(3), np.int64(5)))
    assert (x.check() == 3).all()
    out = Guarded((63,), np.int32)
    module.get_function("fill")((1,), (64,), (out.array,))
    with pytest.raises(AssertionError, match="past an end"):
        out.check()
