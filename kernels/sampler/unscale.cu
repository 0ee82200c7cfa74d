// Latents as the decoder takes them. Reference: src/ops/sampler (`unscale`).
//
//   y = x / factor   x [count] f32, y [count] f16 or bf16; the quotient is rounded to f32, then to its type
//
// Entries: unscale_forward_{f16,bf16}, 256 threads, any grid in x, no shared memory.
//
// Moves 6 bytes an element, 98 KB for an image of SD 1.5: the launch binds. Measured: not yet.
#include "latents.cuh"

struct UnscaleParams {
    uint32_t count;
    float factor;
};
PARAMS_LAYOUT(UnscaleParams, count, factor)

#define UNSCALE(T)                                                                                          \
    extern "C" __global__ void __launch_bounds__(LATENT_THREADS)                                            \
        unscale_forward_##T(T* y, const float* x, UnscaleParams p) {                                        \
        for_each_latent(p.count, [&](uint32_t i, uint64_t) { y[i] = from_float<T>(__fdiv_rn(x[i], p.factor)); }); \
    }

UNSCALE(f16)
UNSCALE(bf16)
