// An image as bytes. Reference: src/ops/elementwise/pixels.rs (`pixel`, `to_pixels`), which cites its source.
//
//   y = 255 clamp(x / 2 + 1/2, 0, 1), to the nearest integer, halves to the even one; NaN gives 0
//   flags[0] |= NOT_FINITE if an x is infinite or NaN: the host zeroes it before the launch
//   x [count] f16 or bf16, y [count] bytes, flags [1] u32
// Each step is rounded to f32.
//
// Entries: pixels_forward_{f16,bf16}, 256 threads, any grid in x, no shared memory. Vectors of 8 where x is a multiple of 16 bytes and
// y of 8.
//
// Moves 3 bytes an element, 2.4 MB for 512 x 512: memory binds, then the launch. Predicted: 0.7 of the copy bandwidth for 1024 x 1024.
// Measured: not yet.
#include "../elementwise/map.cuh"

constexpr uint32_t NOT_FINITE = 1;

struct PixelsParams {
    uint64_t count;
};
PARAMS_LAYOUT(PixelsParams, count)

__device__ inline uint32_t pixel(float x) {
    const float unit = __fadd_rn(__fmul_rn(x, 0.5f), 0.5f);
    return __float2uint_rn(__fmul_rn(fminf(fmaxf(unit, 0.0f), 1.0f), 255.0f));
}

__device__ inline bool is_finite(float x) { return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u; }

template <typename T>
__device__ inline void pixels(uint8_t* y, uint32_t* flags, const T* x, const PixelsParams& p) {
    constexpr int N = LANES<T>;
    const bool aligned = aligned_to_vectors(x) && reinterpret_cast<uint64_t>(y) % N == 0;
    const uint64_t vectors = aligned ? p.count / N : 0;
    const uint64_t first = static_cast<uint64_t>(blockIdx.x) * MAP_THREADS + threadIdx.x;
    const uint64_t step = static_cast<uint64_t>(gridDim.x) * MAP_THREADS;
    bool finite = true;
    for (uint64_t vector = first; vector < vectors; vector += step) {
        float values[N];
        load(x + vector * N, values);
        uint32_t words[2] = {0, 0};
#pragma unroll
        for (int i = 0; i < N; ++i) {
            words[i / 4] |= pixel(values[i]) << (i % 4 * 8);
            finite = finite && is_finite(values[i]);
        }
        reinterpret_cast<uint2*>(y)[vector] = {words[0], words[1]};
    }
    for (uint64_t at = vectors * N + first; at < p.count; at += step) {
        const float value = to_float(x[at]);
        y[at] = static_cast<uint8_t>(pixel(value));
        finite = finite && is_finite(value);
    }
    if (!finite) atomicOr(flags, NOT_FINITE);
}

#define PIXELS(T)                                                                         \
    extern "C" __global__ void __launch_bounds__(MAP_THREADS)                             \
        pixels_forward_##T(uint8_t* y, uint32_t* flags, const T* x, PixelsParams p) {     \
        pixels(y, flags, x, p);                                                           \
    }

PIXELS(f16)
PIXELS(bf16)
