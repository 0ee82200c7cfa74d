// What kernels share: the storage types, 16-byte vectors of them, sums in a fixed order.
//
// Storage is f16 or bf16 (f32 where an operation says so); every sum, statistic and function is f32. Biases and the scales and
// shifts of norms are f32 vectors. Offsets into global memory are 64-bit.
#pragma once
#include <cstdint>

#include "ptx.cuh"

constexpr int WARP = 32;
constexpr uint32_t ALL_LANES = 0xffffffff;
constexpr float LOG2_E = 1.44269504f;

using f32 = float;
struct f16 {
    uint16_t bits;
};
struct bf16 {
    uint16_t bits;  // The high half of a float.
};

template <typename T>
__host__ __device__ constexpr T ceil_div(T a, T b) {
    return (a + b - 1) / b;
}

// ---- Single elements ------------------------------------------------------------------------------------------------

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(f16 x) { return f16_to_float(x.bits); }
__device__ inline float to_float(bf16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }

// Rounds to nearest, ties to even.
template <typename T>
__device__ inline T from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
    return x;
}
template <>
__device__ inline f16 from_float<f16>(float x) {
    return {float_to_f16(x)};
}
template <>
__device__ inline bf16 from_float<bf16>(float x) {
    return {float_to_bf16(x)};
}

// ---- Vectors: 16 bytes, one memory instruction ----------------------------------------------------------------------

template <typename T>
constexpr int LANES = 16 / sizeof(T);

// Elements in the order of memory.
__device__ inline void unpack(const uint4& packed, float (&x)[4], float) {
    x[0] = __uint_as_float(packed.x);
    x[1] = __uint_as_float(packed.y);
    x[2] = __uint_as_float(packed.z);
    x[3] = __uint_as_float(packed.w);
}
template <typename T>
__device__ inline void unpack(const uint4& packed, float (&x)[8], T) {
    const uint32_t pairs[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        x[2 * i] = to_float(T{static_cast<uint16_t>(pairs[i])});
        x[2 * i + 1] = to_float(T{static_cast<uint16_t>(pairs[i] >> 16)});
    }
}

__device__ inline uint32_t pack_pair(float low, float high, f16) { return floats_to_f16x2(low, high); }
__device__ inline uint32_t pack_pair(float low, float high, bf16) { return floats_to_bf16x2(low, high); }

__device__ inline uint4 pack(const float (&x)[4], float) {
    return {__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]), __float_as_uint(x[3])};
}
template <typename T>
__device__ inline uint4 pack(const float (&x)[8], T) {
    return {pack_pair(x[0], x[1], T{}), pack_pair(x[2], x[3], T{}), pack_pair(x[4], x[5], T{}), pack_pair(x[6], x[7], T{})};
}

__device__ inline void unpack(float single, float (&x)[1], float) { x[0] = single; }
template <typename T>
__device__ inline void unpack(T single, float (&x)[1], T) {
    x[0] = to_float(single);
}

// `N` consecutive elements as they lie in memory: a vector, whose address must be a multiple of 16, or one element.
template <typename T, int N>
struct Stored {
    static_assert(N == LANES<T>);
    using Type = uint4;
};
template <typename T>
struct Stored<T, 1> {
    using Type = T;
};

template <typename T, int N>
__device__ inline typename Stored<T, N>::Type read(const T* from) {
    return *reinterpret_cast<const typename Stored<T, N>::Type*>(from);
}

template <typename T, int N>
__device__ inline void load(const T* from, float (&x)[N]) {
    unpack(read<T, N>(from), x, T{});
}

template <typename T, int N>
__device__ inline void store(T* to, const float (&x)[N]) {
    static_assert(N == LANES<T> || N == 1);
    if constexpr (N == 1) {
        *to = from_float<T>(x[0]);
    } else {
        *reinterpret_cast<uint4*>(to) = pack(x, T{});
    }
}

template <typename... P>
__device__ inline bool aligned_to_vectors(const P*... pointers) {
    return ((reinterpret_cast<uint64_t>(pointers) | ...) & 15) == 0;
}

// ---- Sums and maxima in a fixed order -------------------------------------------------------------------------------

// Over the lanes of a warp, a butterfly: every lane has the same bits.
__device__ inline float warp_sum(float x) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}

// NaN if any is NaN.
__device__ inline float warp_max(float x) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) x = max_nan(x, __shfl_xor_sync(ALL_LANES, x, distance));
    return x;
}

// Over all threads of a block of WARPS whole warps, warps in ascending order. One barrier; `scratch` is not written again before
// the next barrier that the block passes.
template <int WARPS>
__device__ inline float block_sum(float x, float (&scratch)[WARPS]) {
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
    __syncthreads();  // the sums of all warps are in scratch
    float sum = scratch[0];
#pragma unroll
    for (int warp = 1; warp < WARPS; ++warp) sum += scratch[warp];
    return sum;
}

// As block_sum, NaN if any is NaN.
template <int WARPS>
__device__ inline float block_max(float x, float (&scratch)[WARPS]) {
    x = warp_max(x);
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
    __syncthreads();  // the maxima of all warps are in scratch
    float max = scratch[0];
#pragma unroll
    for (int warp = 1; warp < WARPS; ++warp) max = max_nan(max, scratch[warp]);
    return max;
}
