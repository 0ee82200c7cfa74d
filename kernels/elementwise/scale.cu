// Products with constants. Reference: src/ops/elementwise (`scale`, `guidance`); Ho & Salimans 2022 for guidance.
//
//   scale       y = a x             x, y [count]
//   guidance    y = u + a (c - u)   u, c, y [count]; u the unconditional half of a batch [2, count], c the conditional one
// f16 or bf16; products and sums are f32, with the product of guidance fused into the sum, rounded once. y may be an input.
//
// Entries, 256 threads, any grid in x, no shared memory: {scale,guidance}_forward_{f16,bf16}.
//
// Moves 2 or 3 elements for at most 3 FLOP: memory binds. Predicted: 0.9 of the copy bandwidth. Measured: not yet.
#include "map.cuh"

struct ScaleParams {
    uint64_t count;
    float a;
    uint32_t unused;
};
PARAMS_LAYOUT(ScaleParams, count, a, unused)

#define SCALE(T)                                                                                                   \
    extern "C" __global__ void __launch_bounds__(MAP_THREADS) scale_forward_##T(T* y, const T* x, ScaleParams p) { \
        map<T, 1>(p.count, y, {x}, [a = p.a](float x) { return a * x; });                                          \
    }                                                                                                              \
    extern "C" __global__ void __launch_bounds__(MAP_THREADS)                                                      \
        guidance_forward_##T(T* y, const T* u, const T* c, ScaleParams p) {                                        \
        map<T, 2>(p.count, y, {u, c}, [a = p.a](float u, float c) { return fmaf(a, c - u, u); });                  \
    }

SCALE(f16)
SCALE(bf16)
