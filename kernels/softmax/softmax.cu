// y = softmax(scale x) over each row: e^(scale x - m) / sum of e^(scale x - m), m the largest scale x of the row.
//
//   x, y [rows, width]   f16 or bf16, row-major; y may be x
// The running maximum and sum of Milakov & Gimelshein 2018, so that x is read twice and not three times. A row of which all is
// -inf, or that holds NaN or (scaled) +inf, gives NaN, as PyTorch's does; single -inf give 0. The order of sums depends on the
// width and on whether pointers are multiples of 16 bytes.
//
// Entries                           threads   grid   shared bytes
//   softmax_forward_{f16,bf16}        256     rows   64    every width; vectors where rows start at multiples of 16 bytes
//
// Moves an element in and out of memory and reads it once more, from L1 for rows up to some 20,000 bytes, else from L2, for two
// exponentials: memory binds, since 3.9e12 of them a second on H100 (16 a cycle and SM) go with 7.8e12 bytes of f16. Predicted:
// 0.8 of the copy bandwidth for rows of 1,000 and more; shorter rows leave threads idle. Measured: not yet.
#include "../common.cuh"

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / WARP;

struct SoftmaxParams {
    uint32_t rows;
    uint32_t width;
    float scale;
};
PARAMS_LAYOUT(SoftmaxParams, rows, width, scale)

struct SoftmaxShared {
    float maxima[WARPS];
    float sums[WARPS];
};

// What exponents are relative to, so that the difference is rounded and not the product: the maximum, but 0 while all is -inf,
// since -inf + inf is NaN.
__device__ inline float exponent_origin(float max) { return max == -INFINITY ? 0.0f : max; }

template <typename T, int N>
__device__ inline void softmax(SoftmaxShared& shared, T* y, const T* x, const SoftmaxParams& p) {
    const uint64_t start = static_cast<uint64_t>(blockIdx.x) * p.width;
    const float scale = p.scale * LOG2_E;  // e^(scale x) = 2^(scale log2(e) x)
    float max = -INFINITY, sum = 0.0f;
    for (uint32_t column = threadIdx.x * N; column < p.width; column += THREADS * N) {
        float values[N];
        load(x + start + column, values);
        float largest = max;
#pragma unroll
        for (int i = 0; i < N; ++i) largest = max_nan(largest, values[i] * scale);
        const float origin = exponent_origin(largest);
        sum *= exp2_approx(max - origin);
#pragma unroll
        for (int i = 0; i < N; ++i) sum += exp2_approx(fmaf(values[i], scale, -origin));
        max = largest;
    }
    const float origin = exponent_origin(block_reduce<Max>(max, shared.maxima));
    const float factor = 1.0f / block_reduce<Sum>(sum * exp2_approx(max - origin), shared.sums);
    for (uint32_t column = threadIdx.x * N; column < p.width; column += THREADS * N) {
        float values[N];
        load(x + start + column, values);
#pragma unroll
        for (int i = 0; i < N; ++i) values[i] = exp2_approx(fmaf(values[i], scale, -origin)) * factor;
        store(y + start + column, values);
    }
}

#define SOFTMAX(T)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(THREADS) softmax_forward_##T(T* y, const T* x, SoftmaxParams p) { \
        __shared__ SoftmaxShared shared;                                                                           \
        if (p.width % LANES<T> == 0 && aligned_to_vectors(y, x)) {                                                 \
            softmax<T, LANES<T>>(shared, y, x, p);                                                                 \
        } else {                                                                                                   \
            softmax<T, 1>(shared, y, x, p);                                                                        \
        }                                                                                                          \
    }

SOFTMAX(f16)
SOFTMAX(bf16)
