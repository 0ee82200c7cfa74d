// y = x in another type, rounded to nearest, ties to even; what is too large for f16 becomes infinite, NaN stays NaN.
//
//   x, y [count]
// Entries, 256 threads, any grid in x, no shared memory: convert_{f32_f16,f32_bf16,f16_f32,bf16_f32}, named from_to. Eight
// elements at a time where both pointers are multiples of 16 bytes.
//
// Moves 6 bytes an element: memory binds. Predicted: 0.9 of the copy bandwidth. Measured: not yet.
#include "map.cuh"

struct ConvertParams {
    uint64_t count;
};

constexpr int BLOCK = 8;  // elements of a thread: a vector of the narrow type, two of the wide one

// `BLOCK` elements in as many vectors as they take.
template <typename T>
__device__ inline void load_block(const T* from, float (&x)[BLOCK]) {
#pragma unroll
    for (int start = 0; start < BLOCK; start += LANES<T>) {
        float values[LANES<T>];
        load(from + start, values);
#pragma unroll
        for (int i = 0; i < LANES<T>; ++i) x[start + i] = values[i];
    }
}

template <typename T>
__device__ inline void store_block(T* to, const float (&x)[BLOCK]) {
#pragma unroll
    for (int start = 0; start < BLOCK; start += LANES<T>) {
        float values[LANES<T>];
#pragma unroll
        for (int i = 0; i < LANES<T>; ++i) values[i] = x[start + i];
        store(to + start, values);
    }
}

template <typename To, typename From>
__device__ inline void convert(To* y, const From* x, const ConvertParams& p) {
    const uint64_t blocks = aligned_to_vectors(y, x) ? p.count / BLOCK : 0;
    const uint64_t first = static_cast<uint64_t>(blockIdx.x) * MAP_THREADS + threadIdx.x;
    const uint64_t step = static_cast<uint64_t>(gridDim.x) * MAP_THREADS;
    for (uint64_t block = first; block < blocks; block += step) {
        float values[BLOCK];
        load_block(x + block * BLOCK, values);
        store_block(y + block * BLOCK, values);
    }
    for (uint64_t at = blocks * BLOCK + first; at < p.count; at += step) y[at] = from_float<To>(to_float(x[at]));
}

#define CONVERT(FROM, TO)                                                                                                    \
    extern "C" __global__ void __launch_bounds__(MAP_THREADS) convert_##FROM##_##TO(TO* y, const FROM* x, ConvertParams p) { \
        convert(y, x, p);                                                                                                    \
    }

CONVERT(f32, f16)
CONVERT(f32, bf16)
CONVERT(f16, f32)
CONVERT(bf16, f32)
