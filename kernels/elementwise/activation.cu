// y = act(x), GELU (exact), quick GELU or SiLU. Reference: src/ops/elementwise; formulas in activation.cuh.
//
//   x, y [count]   f16 or bf16; y may be x
// Entries: activation_forward_{f16,bf16}, 256 threads, any grid in x, no shared memory.
//
// Moves 4 bytes an element for 4 (SiLU) to 17 (GELU) FLOP and 1 or 2 of the 16 special functions an SM does in a cycle: memory
// binds.
// Predicted: 0.9 of the copy bandwidth. Measured: not yet.
#include "activation.cuh"
#include "map.cuh"

struct ActivationParams {
    uint64_t count;
    uint32_t activation;  // enum Activation
    uint32_t unused;
};
PARAMS_LAYOUT(ActivationParams, count, activation, unused)

template <typename T>
__device__ inline void activation(T* y, const T* const x, const ActivationParams& p) {
    const auto apply = [&](auto function) { map<T, 1>(p.count, y, {x}, function); };
    switch (p.activation) {
        case ACTIVATION_GELU: return apply([](float x) { return gelu(x); });
        case ACTIVATION_QUICK_GELU: return apply([](float x) { return swish(x, 1.702f); });
        case ACTIVATION_SILU: return apply([](float x) { return swish(x, 1.0f); });
        default: return apply([](float x) { return x; });
    }
}

#define ACTIVATION(T)                                                                                                        \
    extern "C" __global__ void __launch_bounds__(MAP_THREADS) activation_forward_##T(T* y, const T* x, ActivationParams p) { \
        activation(y, x, p);                                                                                                 \
    }

ACTIVATION(f16)
ACTIVATION(bf16)
