// What the kernels of attention share: their parameters, tiles of rows in shared memory, one row's running softmax.
#pragma once
#include "../common.cuh"

struct AttentionParams {
    uint32_t queries;   // T, of a sample
    uint32_t keys;      // S, of a sample
    uint32_t head_dim;  // D; kernels for one D do not read it
    uint32_t q_stride;  // elements from a row to the next
    uint32_t k_stride;
    uint32_t v_stride;  // attention.cu takes it to be k_stride
    uint32_t causal;  // 1: query t sees keys 0 to t
    float scale;      // log2(e) / sqrt(D): from products to exponents of 2
};
PARAMS_LAYOUT(AttentionParams, queries, keys, head_dim, q_stride, k_stride, v_stride, causal, scale)

constexpr int MMA_M = 16, MMA_N = 8, MMA_K = 16;

// ---- Which rows -----------------------------------------------------------------------------------------------------

// The number of keys and values of a sample.
__device__ inline uint32_t pair_of(uint32_t sample, const uint32_t* kv_rows) {
    return kv_rows == nullptr ? sample : kv_rows[sample];
}

// The first row of a sample and head, from row `first` of the sample on; a sample has `rows`.
template <typename T>
__device__ inline T* rows_of(T* tensor, uint32_t sample, uint32_t rows, uint32_t first, uint32_t stride, uint32_t column) {
    return tensor + (static_cast<uint64_t>(sample) * rows + first) * stride + column;
}

// How many keys a query sees, at least one.
__device__ inline uint32_t seen_by(uint32_t query, const AttentionParams& p) {
    return p.causal != 0 ? min(p.keys, query + 1) : p.keys;
}

// ---- Rows in shared memory ------------------------------------------------------------------------------------------

// Position of a 16-byte chunk among rows of CHUNKS of them. ldmatrix reads a chunk of each of 8 rows: they lie in different banks
// if their positions differ modulo 8. Those of a column of rows of CHUNKS = G * odd chunks, G a power of two up to 8, repeat
// after 8 / G rows; from there on the lowest bits of the chunk are turned. Consecutive chunks of a row or of neighbouring rows,
// which a copy writes, are in different banks too, since groups of G stay together.
template <int CHUNKS>
constexpr int TURNED = (CHUNKS & -CHUNKS) < 8 ? (CHUNKS & -CHUNKS) : 8;

// What the chunks of a row are turned by.
template <int CHUNKS>
__device__ inline uint32_t turn_of(uint32_t row) {
    return row / (8 / TURNED<CHUNKS>) % TURNED<CHUNKS>;
}

template <int CHUNKS>
__device__ inline uint32_t position(uint32_t row, uint32_t chunk) {
    return row * CHUNKS + (chunk ^ turn_of<CHUNKS>(row));
}

// Starts copies of ROWS rows of CHUNKS chunks from each of MATRICES places, one after the other, by all threads of the block.
// Rows from `valid` on become zero.
template <int ROWS, int CHUNKS, int THREADS, typename T, int MATRICES>
__device__ inline void start_copies(uint32_t to, const T* const (&from)[MATRICES], uint32_t stride, uint32_t valid) {
    constexpr int ITEMS = ROWS * CHUNKS;
    // Not kept from tile to tile: that takes a dozen registers, and at D = 40 one block an SM.
    const uint32_t thread = hidden(threadIdx.x);
#pragma unroll
    for (int i = 0; i < ceil_div(ITEMS, THREADS); ++i) {
        const uint32_t item = thread + i * THREADS;
        if (ITEMS % THREADS != 0 && item >= ITEMS) break;
        const uint32_t row = item / CHUNKS, chunk = item % CHUNKS;
        const bool inside = row < valid;
        const uint32_t offset = inside ? row * stride + chunk * 8 : 0, place = to + position<CHUNKS>(row, chunk) * 16;
#pragma unroll
        for (int j = 0; j < MATRICES; ++j) copy_async_16(place + j * ITEMS * 16, from[j] + offset, inside ? 16 : 0);
    }
}

// ---- The running softmax of a row, spread over a quad ----------------------------------------------------------------

template <class OPERATION>
__device__ inline float quad_reduce(float x) {
    x = OPERATION::of(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return OPERATION::of(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

// The larger one; NaN only if both are: a NaN score makes its own exponential NaN, and so the sum.
struct Larger {
    __device__ static float of(float x, float y) { return fmaxf(x, y); }
};
