// y = 255 clamp(x/2 + 1/2, 0, 1), rounded to the nearest integer and halves to the even one, each step in f32, as diffusers'
// `VaeImageProcessor` and numpy do it; NaN gives 0. Reference: src/ops/elementwise/pixels.rs.
//
//   x [count]   f16, bf16 or f32      y [count]   u8
// Entries, 256 threads, any grid in x, no shared memory: pixels_forward_{f16,bf16,f32}. A vector of x at a time where both
// pointers are multiples of 16 bytes.
//
// Moves 3 (5) bytes an element for 5 FLOP: memory binds. Predicted: 0.85 of the copy bandwidth. Measured: not yet.
#include "map.cuh"

struct PixelsParams {
    uint64_t count;
};

__device__ inline uint32_t pixel(float x) {
    // fmaxf and fminf take the number where the other is NaN. The product must not be fused with what follows.
    return __float2uint_rn(__fmul_rn(fminf(fmaxf(fmaf(x, 0.5f, 0.5f), 0.0f), 1.0f), 255.0f));
}

__device__ inline uint32_t four_pixels(const float* x) {
    return pixel(x[0]) | pixel(x[1]) << 8 | pixel(x[2]) << 16 | pixel(x[3]) << 24;
}

__device__ inline void store_pixels(uint8_t* to, const float (&x)[4]) { *reinterpret_cast<uint32_t*>(to) = four_pixels(x); }
__device__ inline void store_pixels(uint8_t* to, const float (&x)[8]) {
    *reinterpret_cast<uint2*>(to) = make_uint2(four_pixels(x), four_pixels(x + 4));
}

template <typename T>
__device__ inline void pixels(uint8_t* y, const T* x, const PixelsParams& p) {
    constexpr int N = LANES<T>;
    const uint64_t vectors = aligned_to_vectors(y, x) ? p.count / N : 0;
    const uint64_t first = static_cast<uint64_t>(blockIdx.x) * MAP_THREADS + threadIdx.x;
    const uint64_t step = static_cast<uint64_t>(gridDim.x) * MAP_THREADS;
    for (uint64_t vector = first; vector < vectors; vector += step) {
        float values[N];
        load(x + vector * N, values);
        store_pixels(y + vector * N, values);
    }
    for (uint64_t at = vectors * N + first; at < p.count; at += step) y[at] = pixel(to_float(x[at]));
}

#define PIXELS(T)                                                                                                          \
    extern "C" __global__ void __launch_bounds__(MAP_THREADS) pixels_forward_##T(uint8_t* y, const T* x, PixelsParams p) { \
        pixels(y, x, p);                                                                                                   \
    }

PIXELS(f16)
PIXELS(bf16)
PIXELS(f32)
