// What kernels share: the storage types, 16-byte vectors of them, sums in a fixed order.
//
// Storage is f16 or bf16; every sum, statistic and function is f32. Biases and the scales and
// shifts of norms are f32 vectors. Offsets into global memory are 64-bit.
#pragma once
#include <cstddef>
#include <cstdint>

#include "ptx.cuh"

constexpr int WARP = 32;
constexpr uint32_t ALL_LANES = 0xffffffff;
constexpr float LOG2_E = 1.44269504f;

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

// ---- Layouts of parameters ------------------------------------------------------------------------------------------

// PARAMS_LAYOUT(S, fields...), all fields of S in order, leaves two variables in the PTX that no kernel reads: S_fields, their names
// as they are written here, and S_layout, the size of S and their offsets. src/ops/twins.rs compares them with the struct in Rust.
#define OFFSETS_1(S, FIELD) offsetof(S, FIELD)
#define OFFSETS_2(S, FIELD, ...) offsetof(S, FIELD), OFFSETS_1(S, __VA_ARGS__)
#define OFFSETS_3(S, FIELD, ...) offsetof(S, FIELD), OFFSETS_2(S, __VA_ARGS__)
#define OFFSETS_4(S, FIELD, ...) offsetof(S, FIELD), OFFSETS_3(S, __VA_ARGS__)
#define OFFSETS_5(S, FIELD, ...) offsetof(S, FIELD), OFFSETS_4(S, __VA_ARGS__)
#define OFFSETS_6(S, FIELD, ...) offsetof(S, FIELD), OFFSETS_5(S, __VA_ARGS__)
#define OFFSETS_7(S, FIELD, ...) offsetof(S, FIELD), OFFSETS_6(S, __VA_ARGS__)
#define OFFSETS_8(S, FIELD, ...) offsetof(S, FIELD), OFFSETS_7(S, __VA_ARGS__)
#define OFFSETS_9(S, FIELD, ...) offsetof(S, FIELD), OFFSETS_8(S, __VA_ARGS__)
#define OFFSETS_10(S, FIELD, ...) offsetof(S, FIELD), OFFSETS_9(S, __VA_ARGS__)
#define OFFSETS_11(S, FIELD, ...) offsetof(S, FIELD), OFFSETS_10(S, __VA_ARGS__)
#define OFFSETS_12(S, FIELD, ...) offsetof(S, FIELD), OFFSETS_11(S, __VA_ARGS__)
#define OFFSETS_13(S, FIELD, ...) offsetof(S, FIELD), OFFSETS_12(S, __VA_ARGS__)
#define OFFSETS_14(S, FIELD, ...) offsetof(S, FIELD), OFFSETS_13(S, __VA_ARGS__)
#define OFFSETS_15(S, FIELD, ...) offsetof(S, FIELD), OFFSETS_14(S, __VA_ARGS__)
#define OFFSETS_16(S, FIELD, ...) offsetof(S, FIELD), OFFSETS_15(S, __VA_ARGS__)
#define NTH_OF_16(A, B, C, D, E, F, G, H, I, J, K, L, M, N, O, P, NTH, ...) NTH
#define OFFSETS(...)                                                                                                  \
    NTH_OF_16(__VA_ARGS__, OFFSETS_16, OFFSETS_15, OFFSETS_14, OFFSETS_13, OFFSETS_12, OFFSETS_11, OFFSETS_10, OFFSETS_9, OFFSETS_8, OFFSETS_7, OFFSETS_6, OFFSETS_5, \
              OFFSETS_4, OFFSETS_3, OFFSETS_2, OFFSETS_1, )
#define PARAMS_LAYOUT(S, ...)                                                               \
    extern "C" {                                                                            \
    __constant__ uint32_t S##_layout[] = {sizeof(S), OFFSETS(__VA_ARGS__)(S, __VA_ARGS__)}; \
    __constant__ char S##_fields[] = #__VA_ARGS__;                                          \
    }

// ---- Single elements ------------------------------------------------------------------------------------------------

__device__ inline float to_float(f16 x) { return f16_to_float(x.bits); }
__device__ inline float to_float(bf16 x) { return __uint_as_float(static_cast<uint32_t>(x.bits) << 16); }

// Rounds to nearest, ties to even.
template <typename T>
__device__ inline T from_float(float x);
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

template <typename T>
__device__ inline uint4 pack(const float (&x)[8], T) {
    return {pack_pair(x[0], x[1], T{}), pack_pair(x[2], x[3], T{}), pack_pair(x[4], x[5], T{}), pack_pair(x[6], x[7], T{})};
}

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

// Parameters: f32, whatever the storage. N is 1 or a multiple of 4.
template <int N>
__device__ inline void load(const float* from, float (&x)[N]) {
    static_assert(N == 1 || N % 4 == 0);
    if constexpr (N == 1) {
        x[0] = *from;
    } else {
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            const float4 four = *reinterpret_cast<const float4*>(from + i);
            x[i] = four.x, x[i + 1] = four.y, x[i + 2] = four.z, x[i + 3] = four.w;
        }
    }
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

// ---- Products of 16 x 16 by 16 x 8: operands and sums as in ptx.cuh --------------------------------------------------

__device__ inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, f16) {
    multiply_add_f16(c, a, b0, b1);
}
__device__ inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, bf16) {
    multiply_add_bf16(c, a, b0, b1);
}

// Of 16 x 8 by 8 x 8.
__device__ inline void multiply_add_half(float (&c)[4], const uint32_t (&a)[2], uint32_t b0, f16) {
    multiply_add_half_f16(c, a, b0);
}
__device__ inline void multiply_add_half(float (&c)[4], const uint32_t (&a)[2], uint32_t b0, bf16) {
    multiply_add_half_bf16(c, a, b0);
}

// ---- Sums and maxima in a fixed order -------------------------------------------------------------------------------

struct Sum {
    __device__ static float of(float x, float y) { return x + y; }
};
// NaN if any is NaN.
struct Max {
    __device__ static float of(float x, float y) { return max_nan(x, y); }
};

// Over the lanes of a warp, a butterfly: every lane has the same bits.
template <class OPERATION>
__device__ inline float warp_reduce(float x) {
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) x = OPERATION::of(x, __shfl_xor_sync(ALL_LANES, x, distance));
    return x;
}

// Over all threads of a block of WARPS whole warps, warps in ascending order. One barrier; `scratch` is not written again before
// the next barrier that the block passes.
template <class OPERATION, int WARPS>
__device__ inline float block_reduce(float x, float (&scratch)[WARPS]) {
    x = warp_reduce<OPERATION>(x);
    if (threadIdx.x % WARP == 0) scratch[threadIdx.x / WARP] = x;
    __syncthreads();  // the results of all warps are in scratch
    float result = scratch[0];
#pragma unroll
    for (int warp = 1; warp < WARPS; ++warp) result = OPERATION::of(result, scratch[warp]);
    return result;
}
