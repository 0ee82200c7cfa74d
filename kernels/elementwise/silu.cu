// y = x / (1 + e^-x). Reference: src/ops/elementwise (`silu`).
//
//   x, y [count]   f16 or bf16; y may be x
// Entries: silu_forward_{f16,bf16}, 256 threads, any grid in x, no shared memory. The other activations follow
// products, in their epilogue.
//
// Moves 4 bytes an element for 4 FLOP and 2 of the 16 special functions that an SM does in a cycle: memory binds. Predicted: 0.9
// of the copy bandwidth. Measured: not yet.
#include "activation.cuh"
#include "map.cuh"

struct SiluParams {
    uint64_t count;
};
PARAMS_LAYOUT(SiluParams, count)

#define SILU(T)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(MAP_THREADS) silu_forward_##T(T* y, const T* x, SiluParams p) { \
        map<T, 1>(p.count, y, {x}, [](float x) { return swish(x, 1.0f); });                                      \
    }

SILU(f16)
SILU(bf16)
