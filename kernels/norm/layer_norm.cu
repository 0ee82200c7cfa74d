// y = (x - mean) / sqrt(variance + eps) weight + bias, mean and variance over each row (Ba et al. 2016). Reference: src/ops/norm.
//
//   x, y [rows, C]     f16 or bf16, row-major; y may be x
//   weight, bias [C]   f32
// Statistics in two passes, mean first, in an order that depends on C and on whether pointers are multiples of 16 bytes.
//
// Entries                            threads   grid              shared bytes
//   layer_norm_forward_{f16,bf16}      128     ceil(rows / 4)    0     C a multiple of 8, at most 2048; pointers of 16 bytes
//   layer_norm_forward_any_{f16,bf16}  256     rows              64    every C
// The first gives a warp a row and keeps it in registers. The second gives a block a row and reads it three times, out of L1 but
// for the first (62 and at most 39 registers); it uses vectors where C is a multiple of 8 and all pointers of 16 bytes.
//
// Moves 4 bytes an element for about 7 FLOP: memory binds. Predicted: 0.85 of the copy bandwidth from 2,000 rows on. Measured:
// not yet.
#include "../common.cuh"

constexpr int ROW_VECTORS = 8;  // of a lane, at most: 8 x 8 x 32 = 2048 channels
constexpr int ROWS = 4;         // of a block, a warp each
constexpr int ANY_THREADS = 256;
constexpr int ANY_WARPS = ANY_THREADS / WARP;

struct LayerNormParams {
    uint32_t rows;
    uint32_t channels;  // C
    float eps;
};
PARAMS_LAYOUT(LayerNormParams, rows, channels, eps)

// Of `any`.
struct LayerNormShared {
    float sums[ANY_WARPS];
    float squares[ANY_WARPS];
};

// (x - mean) factor weight + bias of `N` neighbouring channels. The parameters come in vectors of 4, whatever the storage of x.
template <int N>
__device__ inline void scale_and_shift(float (&x)[N], float mean, float factor, const float* weight, const float* bias) {
    constexpr int WIDTH = N == 1 ? 1 : LANES<float>;
#pragma unroll
    for (int i = 0; i < N; i += WIDTH) {
        float w[WIDTH], b[WIDTH];
        load(weight + i, w);
        load(bias + i, b);
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) x[i + j] = fmaf((x[i + j] - mean) * factor, w[j], b[j]);
    }
}

// ---- A row in the registers of a warp -------------------------------------------------------------------------------

template <typename T>
__device__ inline void layer_norm(T* y, const T* x, const float* weight, const float* bias, const LayerNormParams& p) {
    constexpr int N = LANES<T>;
    const uint32_t row = blockIdx.x * ROWS + threadIdx.x / WARP;
    if (row >= p.rows) return;
    const uint32_t first = threadIdx.x % WARP * N;
    const uint64_t start = static_cast<uint64_t>(row) * p.channels;
    uint4 packed[ROW_VECTORS];
    float sum = 0.0f;
#pragma unroll
    for (int v = 0; v < ROW_VECTORS; ++v) {
        const uint32_t channel = first + v * WARP * N;
        if (channel < p.channels) packed[v] = *reinterpret_cast<const uint4*>(x + start + channel);
    }
#pragma unroll
    for (int v = 0; v < ROW_VECTORS; ++v) {
        if (first + v * WARP * N < p.channels) {
            float values[N];
            unpack(packed[v], values, T{});
#pragma unroll
            for (int i = 0; i < N; ++i) sum += values[i];
        }
    }
    const float mean = warp_sum(sum) / p.channels;
    float squares = 0.0f;
#pragma unroll
    for (int v = 0; v < ROW_VECTORS; ++v) {
        if (first + v * WARP * N < p.channels) {
            float values[N];
            unpack(packed[v], values, T{});
#pragma unroll
            for (int i = 0; i < N; ++i) squares = fmaf(values[i] - mean, values[i] - mean, squares);
        }
    }
    const float factor = rsqrt_approx(warp_sum(squares) / p.channels + p.eps);
#pragma unroll
    for (int v = 0; v < ROW_VECTORS; ++v) {
        const uint32_t channel = first + v * WARP * N;
        if (channel < p.channels) {
            float values[N];
            unpack(packed[v], values, T{});
            scale_and_shift(values, mean, factor, weight + channel, bias + channel);
            store(y + start + channel, values);
        }
    }
}

// ---- A row of any width ---------------------------------------------------------------------------------------------

template <typename T, int N>
__device__ inline void layer_norm_any(LayerNormShared& shared, T* y, const T* x, const float* weight, const float* bias,
                                      const LayerNormParams& p) {
    const uint64_t start = static_cast<uint64_t>(blockIdx.x) * p.channels;
    float sum = 0.0f, squares = 0.0f;
    for (uint32_t channel = threadIdx.x * N; channel < p.channels; channel += ANY_THREADS * N) {
        float values[N];
        load(x + start + channel, values);
#pragma unroll
        for (int i = 0; i < N; ++i) sum += values[i];
    }
    const float mean = block_sum(sum, shared.sums) / p.channels;
    for (uint32_t channel = threadIdx.x * N; channel < p.channels; channel += ANY_THREADS * N) {
        float values[N];
        load(x + start + channel, values);
#pragma unroll
        for (int i = 0; i < N; ++i) squares = fmaf(values[i] - mean, values[i] - mean, squares);
    }
    const float factor = rsqrt_approx(block_sum(squares, shared.squares) / p.channels + p.eps);
    for (uint32_t channel = threadIdx.x * N; channel < p.channels; channel += ANY_THREADS * N) {
        float values[N];
        load(x + start + channel, values);
        scale_and_shift(values, mean, factor, weight + channel, bias + channel);
        store(y + start + channel, values);
    }
}

#define LAYER_NORM(SUFFIX, T)                                                                                          \
    extern "C" __global__ void __launch_bounds__(ROWS* WARP)                                                           \
        layer_norm_forward_##SUFFIX(T* y, const T* x, const float* weight, const float* bias, LayerNormParams p) {     \
        layer_norm(y, x, weight, bias, p);                                                                             \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(ANY_THREADS)                                                          \
        layer_norm_forward_any_##SUFFIX(T* y, const T* x, const float* weight, const float* bias, LayerNormParams p) { \
        __shared__ LayerNormShared shared;                                                                             \
        if (p.channels % LANES<T> == 0 && aligned_to_vectors(y, x, weight, bias)) {                                    \
            layer_norm_any<T, LANES<T>>(shared, y, x, weight, bias, p);                                                \
        } else {                                                                                                       \
            layer_norm_any<T, 1>(shared, y, x, weight, bias, p);                                                       \
        }                                                                                                              \
    }

LAYER_NORM(f16, f16)
LAYER_NORM(bf16, bf16)
