"""The hat functions of a grid of times, and their slopes in time, on the device:
what TA-BN reads its grid with.

With the cells [g_l, g_(l+1)] and r_l = min(max((t - g_l) / (g_(l+1) - g_l), 0), 1), weight_k = r_(k-1) - r_k
where r_(-1) is 1 and r_(n-1) is 0. The slopes are those of the one cell with g_l <= t < g_(l+1). The time
comes from the table of numbers (`numbers`).
"""

from __future__ import annotations

THREADS = 128

_TEXT = """
extern "C" __global__ void __launch_bounds__(128) hat_weights_GRID_OUT(
    const double* numbers, int place, const GRID* grid, OUT* out, int nodes) {
  const int k = blockIdx.x * 128 + threadIdx.x;
  if (k >= nodes) return;
  const GRID t = GRID(numbers[place]);
  const GRID before = k == 0 ? GRID(1) : (t - grid[k - 1]) / (grid[k] - grid[k - 1]);
  const GRID after = k == nodes - 1 ? GRID(0) : (t - grid[k]) / (grid[k + 1] - grid[k]);
  const GRID left = before < GRID(0) ? GRID(0) : before > GRID(1) ? GRID(1) : before;
  const GRID right = after < GRID(0) ? GRID(0) : after > GRID(1) ? GRID(1) : after;
  out[k] = OUT(left - right);
}

extern "C" __global__ void __launch_bounds__(128) hat_slopes_GRID_OUT(
    const double* numbers, int place, const GRID* grid, OUT* out, int nodes) {
  const int k = blockIdx.x * 128 + threadIdx.x;
  if (k >= nodes) return;
  const GRID t = GRID(numbers[place]);
  GRID slope = GRID(0);
  if (k > 0 && grid[k - 1] <= t && t < grid[k]) slope += GRID(1) / (grid[k] - grid[k - 1]);
  if (k < nodes - 1 && grid[k] <= t && t < grid[k + 1]) slope -= GRID(1) / (grid[k + 1] - grid[k]);
  out[k] = OUT(slope);
}
"""

TEXT = "".join(
    _TEXT.replace("GRID", grid).replace("OUT", out) for grid in ("f32", "f64") for out in ("f32", "f64")
)
