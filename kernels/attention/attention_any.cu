// attention.cu for every head width and every alignment: for what is rare and small, first of all the heads of 4, 8 or 16
// channels of test models. Formula, buffers and order of arguments are the same; sums and probabilities are f32 throughout.
//
// Entries                         threads  grid                               dynamic shared bytes
//   attention_any_{f16,bf16}        128    ceil(T / 4), heads, samples        4 * (8 D + 128)
//
// A warp takes one query. Of 32 keys at a time, each lane computes the score of one and then, channel after channel of its own,
// adds their values. Rows of keys are read element by element and 32 rows at once: some 2 D + D loads for 4 D FLOP, so the load
// units bind, far below the rate of the other kernels. Measured: not yet.
#include "attention.cuh"

constexpr int WARPS = 4;
constexpr int THREADS = WARPS * WARP;

// Of a warp, beside which lie the query and the sums of values, D floats each.
struct AttentionAnyShared {
    float probabilities[WARPS][WARP];
    float channels[];  // [WARPS][2][D]
};

extern __shared__ float attention_any_shared[];

template <typename T>
__device__ inline void attention_any(T* out, const T* q, const T* k, const T* v, const uint32_t* kv_rows,
                                     const AttentionParams& p) {
    const uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, d = p.head_dim;
    const uint32_t query = blockIdx.x * WARPS + warp, sample = blockIdx.z, column = blockIdx.y * d;
    if (query >= p.queries) return;
    auto& shared = *reinterpret_cast<AttentionAnyShared*>(attention_any_shared);
    float(&probabilities)[WARP] = shared.probabilities[warp];
    float *own_q = shared.channels + 2 * warp * d, *o = own_q + d;
    const uint32_t pair = pair_of(sample, kv_rows), seen = seen_by(query, p);
    q = rows_of(q, sample, p.queries, query, p.q_stride, column);
    k = rows_of(k, pair, p.keys, 0, p.k_stride, column);
    v = rows_of(v, pair, p.keys, 0, p.v_stride, column);
    for (uint32_t c = lane; c < d; c += WARP) own_q[c] = to_float(q[c]), o[c] = 0.0f;
    __syncwarp();  // the query is there

    float base = -INFINITY, sum = 0.0f;
    for (uint32_t first = 0; first < seen; first += WARP) {
        const uint32_t keys = min(seen - first, static_cast<uint32_t>(WARP));
        float score = -INFINITY;
        if (lane < keys) {
            const T* row = k + static_cast<uint64_t>(first + lane) * p.k_stride;
            score = 0.0f;
            for (uint32_t c = 0; c < d; ++c) score = fmaf(own_q[c], to_float(row[c]), score);
        }
        const float above = fmaxf(base, warp_reduce<Larger>(score) * p.scale), shrink = exp2_approx(base - above);
        const float probability = exp2_approx(fmaf(score, p.scale, -above));
        base = above;
        sum = fmaf(sum, shrink, probability);
        probabilities[lane] = probability;
        __syncwarp();  // the probabilities of these keys are there
        for (uint32_t c = lane; c < d; c += WARP) {
            float added = 0.0f;
            for (uint32_t i = 0; i < keys; ++i) {
                added = fmaf(probabilities[i], to_float(v[static_cast<uint64_t>(first + i) * p.v_stride + c]), added);
            }
            o[c] = fmaf(o[c], shrink, added);
        }
        __syncwarp();  // all lanes have read the probabilities, which are replaced next
    }
    const float factor = 1.0f / warp_reduce<Sum>(sum);
    const uint32_t stride = gridDim.y * d;
    out = rows_of(out, sample, p.queries, query, stride, column);
    for (uint32_t c = lane; c < d; c += WARP) out[c] = from_float<T>(o[c] * factor);
}

#define ATTENTION_ANY(T)                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS, 8) attention_any_##T(                           \
        T* out, const T* q, const T* k, const T* v, const uint32_t* kv_rows, AttentionParams p) {      \
        attention_any(out, q, k, v, kv_rows, p);                                                       \
    }

ATTENTION_ANY(f16)
ATTENTION_ANY(bf16)
