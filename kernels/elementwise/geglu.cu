// y = value gelu(gate), x rows of values, then gates (Shazeer 2020; diffusers' GEGLU). Reference: the GEGLU of src/ops/gemm.
//
//   x [rows, 2 width], y [rows, width]   f16 or bf16, row-major
// Entries, 256 threads, any grid in x, no shared memory: geglu_forward_{f16,bf16}. Vectors where width is a multiple of 8 and
// both pointers of 16 bytes. y may overlap nothing.
//
// Moves 6 bytes an element of y for 18 FLOP and 2 special functions: memory binds. Predicted: 0.9 of the copy bandwidth.
// Measured: not yet.
#include "activation.cuh"
#include "map.cuh"

struct GegluParams {
    uint32_t rows;
    uint32_t width;  // below 2^30
};
PARAMS_LAYOUT(GegluParams, rows, width)

template <typename T, int N>
__device__ inline void geglu(T* y, const T* x, const GegluParams& p) {
    for (RowWalk at(p.width / N); at.row < p.rows; at.advance()) {
        const T* from = x + at.row * 2 * p.width + at.column * N;
        float values[N], gates[N];
        load(from, values);
        load(from + p.width, gates);
#pragma unroll
        for (int i = 0; i < N; ++i) values[i] *= gelu(gates[i]);
        store(y + at.row * p.width + at.column * N, values);
    }
}

#define GEGLU(T)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(MAP_THREADS) geglu_forward_##T(T* y, const T* x, GegluParams p) { \
        if (p.width % LANES<T> == 0 && aligned_to_vectors(y, x)) {                                                 \
            geglu<T, LANES<T>>(y, x, p);                                                                           \
        } else {                                                                                                   \
            geglu<T, 1>(y, x, p);                                                                                  \
        }                                                                                                          \
    }

GEGLU(f16)
GEGLU(bf16)
