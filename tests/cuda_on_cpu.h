// CUDA C on the CPU: what a kernel's text uses of the language, for g++ -std=c++20.
//
// A block's threads are fibers of one thread of the system: each runs until it waits, and all that wait are released
// together, in ascending or descending order as if by the toss of a coin, so that a race or a barrier left out shows.
// Shared memory is NaN (all bits set) at the start of a block. A barrier that only some threads reach is an error, as is one that they
// reach at different lines of the text. Blocks run one after another: atomics are plain operations. A function that
// declares shared memory must be `static __device__` here, not inline: its variables share one section.
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("shared_memory")))
#define __syncthreads() cuda::wait(cuda::AT_BLOCK, ~0u, __LINE__)
#define __syncwarp(...) cuda::wait(cuda::AT_WARP, cuda::mask_of(__VA_ARGS__), __LINE__)
#define __shfl_sync(mask, value, lane) cuda::exchange(mask, value, cuda::lane_of(lane), __LINE__)
#define __shfl_down_sync(mask, value, by) cuda::exchange(mask, value, cuda::below(cuda::lane() + int(by)), __LINE__)
#define __shfl_up_sync(mask, value, by) cuda::exchange(mask, value, cuda::below(cuda::lane() - int(by)), __LINE__)
#define __shfl_xor_sync(mask, value, with) cuda::exchange(mask, value, cuda::below(cuda::lane() ^ int(with)), __LINE__)
#define warpSize 32

struct dim3 { unsigned x = 1, y = 1, z = 1; };
static dim3 threadIdx, blockIdx, blockDim, gridDim;

extern "C" char __start_shared_memory[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_shared_memory[] __attribute__((weak, visibility("hidden")));

namespace cuda {

enum State { READY, AT_BLOCK, AT_WARP, DONE };
struct Thread { ucontext_t context; State state; unsigned mask; int line; char given[16]; };

constexpr int MOST = 1024, STACK = 1 << 16;
static Thread threads[MOST];
static ucontext_t scheduler;
static char* stacks;
static int current, count;
static uint32_t coin;
static char trouble[200];
static void (*body)();
static void** arguments;

inline int lane() { return current % 32; }
inline int lane_of(int lane) { return lane & 31; }
inline int below(int lane) { return lane >= 0 && lane < 32 ? lane : cuda::lane(); }  // out of range: one's own value
inline unsigned mask_of(unsigned mask = ~0u) { return mask; }

inline void wait(State what, unsigned mask, int line) {
  Thread& me = threads[current];
  me.state = what; me.mask = mask; me.line = line;
  swapcontext(&me.context, &scheduler);
}

template <typename T> inline T exchange(unsigned mask, T value, int from, int line) {
  static_assert(sizeof(T) <= sizeof threads[0].given, "a value of at most 16 bytes");
  memcpy(threads[current].given, &value, sizeof(T));
  wait(AT_WARP, mask, line);
  memcpy(&value, threads[current / 32 * 32 + from].given, sizeof(T));
  wait(AT_WARP, mask, line);
  return value;
}

inline bool votes(unsigned mask, bool vote, bool all, int line) {
  bool result = all;
  for (int k = 0; k < 32; ++k) {
    const bool other = exchange(mask, int(vote), k, line);
    if (mask >> k & 1) result = all ? result && other : result || other;
  }
  return result;
}

inline void start() { body(); threads[current].state = DONE; swapcontext(&threads[current].context, &scheduler); }

inline void resume(int k) {
  current = k;
  threadIdx = {k % blockDim.x, k / blockDim.x % blockDim.y, k / (blockDim.x * blockDim.y)};
  swapcontext(&scheduler, &threads[k].context);
}

inline bool release_block() {
  int line = 0;
  for (int k = 0; k < count; ++k) {
    if (threads[k].state == DONE) continue;
    if (threads[k].state != AT_BLOCK) return false;
    if (line && line != threads[k].line) return false;
    line = threads[k].line;
  }
  for (int k = 0; k < count; ++k) if (threads[k].state == AT_BLOCK) threads[k].state = READY;
  return line;
}

inline bool release_warps() {
  bool released = false;
  for (int k = 0; k < count; ++k) {
    if (threads[k].state != AT_WARP) continue;
    bool complete = true;
    const int first = k / 32 * 32;
    for (int j = first; j < first + 32 && j < count; ++j) {
      const Thread& other = threads[j];
      if (threads[k].mask >> (j - first) & 1 && other.state != DONE)
        complete &= other.state == AT_WARP && other.mask == threads[k].mask && other.line == threads[k].line;
    }
    if (!complete) continue;
    const unsigned mask = threads[k].mask;
    for (int j = first; j < first + 32 && j < count; ++j)
      if (mask >> (j - first) & 1 && threads[j].state == AT_WARP) threads[j].state = READY;
    released = true;
  }
  return released;
}

inline bool stuck() {
  for (int k = 0; k < count; ++k) {
    if (threads[k].state == DONE) continue;
    if (release_warps() || release_block()) return false;
    snprintf(trouble, sizeof trouble, "block %u: thread %d waits at line %d for threads that never come there",
             blockIdx.x, k, threads[k].line);
    return true;
  }
  return true;
}

inline void run_block() {
  memset(__start_shared_memory, 0xff, size_t(__stop_shared_memory - __start_shared_memory));
  for (int k = 0; k < count; ++k) {
    Thread& thread = threads[k];
    thread.state = READY;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = stacks + size_t(k) * STACK;
    thread.context.uc_stack.ss_size = STACK;
    makecontext(&thread.context, start, 0);
  }
  for (;;) {
    coin = coin * 1664525 + 1013904223;
    for (int j = 0; j < count; ++j) {
      const int k = coin >> 31 ? count - 1 - j : j;
      if (threads[k].state == READY) resume(k);
    }
    if (stuck()) return;
  }
}

inline const char* launch(const unsigned* sizes, void** given, void (*what)()) {
  gridDim = {sizes[0], sizes[1], sizes[2]};
  blockDim = {sizes[3], sizes[4], sizes[5]};
  count = int(blockDim.x * blockDim.y * blockDim.z);
  if (count < 1 || count > MOST) return "a block has 1 to 1024 threads";
  if (!stacks) stacks = static_cast<char*>(malloc(size_t(MOST) * STACK));
  body = what; arguments = given; trouble[0] = 0;
  for (unsigned z = 0; z < gridDim.z; ++z)
    for (unsigned y = 0; y < gridDim.y; ++y)
      for (unsigned x = 0; x < gridDim.x && !trouble[0]; ++x) { blockIdx = {x, y, z}; run_block(); }
  return trouble;
}

template <typename... P, size_t... k>
inline void call_with(void (*kernel)(P...), std::index_sequence<k...>) { kernel(*static_cast<P*>(arguments[k])...); }
template <typename... P>
inline void call(void (*kernel)(P...)) { call_with(kernel, std::index_sequence_for<P...>{}); }
template <typename... P>  // for each parameter its size; negative for a floating-point number
inline int parameters(void (*)(P...), int* out) {
  ((*out++ = std::is_floating_point_v<P> ? -int(sizeof(P)) : int(sizeof(P))), ...);
  return int(sizeof...(P));
}

}  // namespace cuda

#define __all_sync(mask, vote) cuda::votes(mask, vote, true, __LINE__)
#define __any_sync(mask, vote) cuda::votes(mask, vote, false, __LINE__)

template <typename T> inline T __ldg(const T* p) { return *p; }
template <typename T> inline T atomicAdd(T* p, std::type_identity_t<T> x) { T old = *p; *p = old + x; return old; }
template <typename T> inline T atomicMax(T* p, std::type_identity_t<T> x) { T old = *p; *p = old > x ? old : x; return old; }
template <typename T> inline T atomicMin(T* p, std::type_identity_t<T> x) { T old = *p; *p = old < x ? old : x; return old; }
template <typename T> inline T atomicExch(T* p, std::type_identity_t<T> x) { T old = *p; *p = x; return old; }
inline void __threadfence() {}
inline void __threadfence_block() {}

inline float min(float a, float b) { return fmin(a, b); }
inline float max(float a, float b) { return fmax(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
template <typename T> requires std::is_integral_v<T> inline T min(T a, T b) { return a < b ? a : b; }
template <typename T> requires std::is_integral_v<T> inline T max(T a, T b) { return a > b ? a : b; }
inline float rsqrt(float x) { return 1 / sqrt(x); }
inline double rsqrt(double x) { return 1 / sqrt(x); }
