// y = (x - mean) / sqrt(variance + eps) weight + bias, mean and variance over each row (Ba et al. 2016). Reference: src/ops/norm.
//
//   x, y [rows, C]     f16 or bf16, row-major; y may be x
//   weight, bias [C]   f32
// `statistics` writes the mean of each row, and the sum of squares about it, [rows, 1, 2] f32, for a linear layer that has the norm in
// its weights (../gemm/gemm_nt.cu), where the product that made x left none.
// Statistics in two passes, mean first, in an order that depends on C and on whether pointers are multiples of 16 bytes.
//
// Entries                            threads   grid              shared bytes
//   layer_norm_forward_{f16,bf16}      128     ceil(rows / 4)    0     C a multiple of 8, at most 2048; pointers of 16 bytes
//   layer_norm_forward_any_{f16,bf16}  256     rows              64    every C
//   layer_norm_statistics_{f16,bf16} and layer_norm_statistics_any_{f16,bf16}: as these
// The first gives a warp a row and keeps it in registers. The second gives a block a row and reads it three times, out of L1 but
// for the first (62 and 32 registers; 62 and 40 on sm_89); it uses vectors where C is a multiple of 8 and all pointers of 16 bytes.
//
// Moves 4 bytes an element (`statistics` 2) for about 7 FLOP: memory binds. Predicted: 0.85 of the copy bandwidth from 2,000 rows on. Measured:
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

// What is summed over a row, one after the other.
enum Statistic { MEAN, VARIANCE, STATISTICS };

// Of `any`.
struct LayerNormShared {
    float sums[STATISTICS][ANY_WARPS];  // by warp
};

// ---- Where a row is -------------------------------------------------------------------------------------------------

// In the registers of a warp.
template <typename T>
struct WarpRow {
    static constexpr int N = LANES<T>;
    uint4 packed[ROW_VECTORS];
    uint32_t channels;

    __device__ WarpRow(const T* x, uint32_t channels) : channels(channels) {
#pragma unroll
        for (int v = 0; v < ROW_VECTORS; ++v) {
            if (channel(v) < channels) packed[v] = read<T, N>(x + channel(v));
        }
    }

    // Calls work(values [N], first channel) for each vector of this thread.
    template <typename F>
    __device__ void for_each(F work) const {
#pragma unroll
        for (int v = 0; v < ROW_VECTORS; ++v) {
            if (channel(v) < channels) {
                float values[N];
                unpack(packed[v], values, T{});
                work(values, channel(v));
            }
        }
    }

    __device__ bool is_first() const { return threadIdx.x % WARP == 0; }

    // Over the threads of the row.
    __device__ float sum(float x, Statistic) const { return warp_reduce<Sum>(x); }

private:
    __device__ static uint32_t channel(int v) { return threadIdx.x % WARP * N + v * WARP * N; }
};

// In memory, read by a block in each pass.
template <typename T, int N_>
struct BlockRow {
    static constexpr int N = N_;
    const T* x;
    uint32_t channels;
    LayerNormShared& shared;

    template <typename F>
    __device__ void for_each(F work) const {
        for (uint32_t channel = threadIdx.x * N; channel < channels; channel += ANY_THREADS * N) {
            float values[N];
            load(x + channel, values);
            work(values, channel);
        }
    }

    __device__ bool is_first() const { return threadIdx.x == 0; }

    __device__ float sum(float x, Statistic of) const { return block_reduce<Sum>(x, shared.sums[of]); }
};

// ---- The formula ----------------------------------------------------------------------------------------------------

// Mean, and sum of squares about it.
template <class ROW>
__device__ inline float2 statistics(const ROW& row, const LayerNormParams& p) {
    constexpr int N = ROW::N;
    float sum = 0.0f, squares = 0.0f;
    row.for_each([&](const float(&x)[N], uint32_t) {
#pragma unroll
        for (int i = 0; i < N; ++i) sum += x[i];
    });
    const float mean = row.sum(sum, MEAN) / p.channels;
    row.for_each([&](const float(&x)[N], uint32_t) {
#pragma unroll
        for (int i = 0; i < N; ++i) squares = fmaf(x[i] - mean, x[i] - mean, squares);
    });
    return {mean, row.sum(squares, VARIANCE)};
}

template <typename T>
struct Forward {
    T* y;
    const float *weight, *bias;

    template <class ROW>
    __device__ void operator()(const ROW& row, uint64_t start, const LayerNormParams& p) const {
        constexpr int N = ROW::N;
        const float2 of = statistics(row, p);
        const float factor = rsqrt_approx(of.y / p.channels + p.eps);
        row.for_each([&](float(&x)[N], uint32_t channel) {
            float w[N], b[N];
            load(weight + channel, w);
            load(bias + channel, b);
#pragma unroll
            for (int i = 0; i < N; ++i) x[i] = fmaf((x[i] - of.x) * factor, w[i], b[i]);
            store(y + start + channel, x);
        });
    }
};

struct Take {
    float2* parts;

    template <class ROW>
    __device__ void operator()(const ROW& row, uint64_t start, const LayerNormParams& p) const {
        const float2 of = statistics(row, p);
        if (row.is_first()) parts[start / p.channels] = of;
    }
};

// A warp for each row.
template <typename T, class F>
__device__ inline void by_warps(const T* x, const LayerNormParams& p, F work) {
    const uint32_t row = blockIdx.x * ROWS + threadIdx.x / WARP;
    if (row >= p.rows) return;
    const uint64_t start = static_cast<uint64_t>(row) * p.channels;
    work(WarpRow<T>(x + start, p.channels), start, p);
}

// A block for each row.
template <typename T, class F>
__device__ inline void by_blocks(const T* x, const LayerNormParams& p, bool vectors, F work) {
    __shared__ LayerNormShared shared;
    const uint64_t start = static_cast<uint64_t>(blockIdx.x) * p.channels;
    if (vectors && p.channels % LANES<T> == 0) {
        work(BlockRow<T, LANES<T>>{x + start, p.channels, shared}, start, p);
    } else {
        work(BlockRow<T, 1>{x + start, p.channels, shared}, start, p);
    }
}

#define LAYER_NORM(T)                                                                                             \
    extern "C" __global__ void __launch_bounds__(ROWS* WARP)                                                      \
        layer_norm_forward_##T(T* y, const T* x, const float* weight, const float* bias, LayerNormParams p) {     \
        by_warps(x, p, Forward<T>{y, weight, bias});                                                              \
    }                                                                                                             \
    extern "C" __global__ void __launch_bounds__(ANY_THREADS)                                                     \
        layer_norm_forward_any_##T(T* y, const T* x, const float* weight, const float* bias, LayerNormParams p) { \
        by_blocks(x, p, aligned_to_vectors(y, x, weight, bias), Forward<T>{y, weight, bias});                     \
    }                                                                                                             \
    extern "C" __global__ void __launch_bounds__(ROWS* WARP)                                                      \
        layer_norm_statistics_##T(float2* statistics, const T* x, LayerNormParams p) {                            \
        by_warps(x, p, Take{statistics});                                                                         \
    }                                                                                                             \
    extern "C" __global__ void __launch_bounds__(ANY_THREADS)                                                     \
        layer_norm_statistics_any_##T(float2* statistics, const T* x, LayerNormParams p) {                        \
        by_blocks(x, p, aligned_to_vectors(x), Take{statistics});                                                 \
    }

LAYER_NORM(f16)
LAYER_NORM(bf16)
