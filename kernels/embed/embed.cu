// Rows of tables. Reference: src/ops/embed; `select_positions` of src/ops/elementwise.
//
//   embed    y[i] = tokens[ids[i]] + positions[i % length]    ids [rows] u32, tokens [V, width], positions [>= length, width]
//   select   y[b] = x[b, at[b]]                               at [rows] u32, x [rows, length, width]
//   y [rows, width]; all but the indices f16 or bf16, sums f32. The host checks that ids are below V and at below length.
//
// Entries, 256 threads, any grid in x, no shared memory: {embed,select}_forward_{f16,bf16}. Vectors where width is a multiple of
// 8 and all pointers but that of the indices are multiples of 16 bytes.
//
// Moves 6 (4) bytes an element: memory binds, and for a text of 77 tokens the launch. Predicted: 0.7 of the copy bandwidth for
// 10,000 rows and more. Measured: not yet.
#include "../elementwise/map.cuh"

struct EmbedParams {
    uint32_t rows;
    uint32_t length;  // of a text in `embed`, of a sample in `select`
    uint32_t width;   // below 2^31
};
PARAMS_LAYOUT(EmbedParams, rows, length, width)

template <typename T, int N>
__device__ inline void embed(T* y, const uint32_t* ids, const T* tokens, const T* positions, const EmbedParams& p) {
    for (RowWalk at(p.width / N); at.row < p.rows; at.advance()) {
        const uint64_t token = ids[at.row], position = static_cast<uint32_t>(at.row) % p.length;
        float values[N], added[N];
        load(tokens + token * p.width + at.column * N, values);
        load(positions + position * p.width + at.column * N, added);
#pragma unroll
        for (int i = 0; i < N; ++i) values[i] += added[i];
        store(y + at.row * p.width + at.column * N, values);
    }
}

template <typename T, int N>
__device__ inline void select(T* y, const uint32_t* positions, const T* x, const EmbedParams& p) {
    for (RowWalk at(p.width / N); at.row < p.rows; at.advance()) {
        float values[N];
        load(x + (at.row * p.length + positions[at.row]) * p.width + at.column * N, values);
        store(y + at.row * p.width + at.column * N, values);
    }
}

#define EMBED(T)                                                                                           \
    extern "C" __global__ void __launch_bounds__(MAP_THREADS)                                              \
        embed_forward_##T(T* y, const uint32_t* ids, const T* tokens, const T* positions, EmbedParams p) { \
        if (p.width % LANES<T> == 0 && aligned_to_vectors(y, tokens, positions)) {                         \
            embed<T, LANES<T>>(y, ids, tokens, positions, p);                                              \
        } else {                                                                                           \
            embed<T, 1>(y, ids, tokens, positions, p);                                                     \
        }                                                                                                  \
    }                                                                                                      \
    extern "C" __global__ void __launch_bounds__(MAP_THREADS)                                              \
        select_forward_##T(T* y, const uint32_t* positions, const T* x, EmbedParams p) {                   \
        if (p.width % LANES<T> == 0 && aligned_to_vectors(y, x)) {                                         \
            select<T, LANES<T>>(y, positions, x, p);                                                       \
        } else {                                                                                           \
            select<T, 1>(y, positions, x, p);                                                              \
        }                                                                                                  \
    }

EMBED(f16)
EMBED(bf16)
