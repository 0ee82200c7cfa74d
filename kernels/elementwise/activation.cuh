// Activations, alone and behind products and norms. The same functions as src/device/cpu/math.rs.
#pragma once
#include "../common.cuh"

enum Activation : uint32_t {
    ACTIVATION_NONE = 0,
    ACTIVATION_GELU = 1,
    ACTIVATION_QUICK_GELU = 2,
    ACTIVATION_SILU = 3,
};

// x / (1 + e^(-k x)): SiLU for k = 1, OpenAI CLIP's "quick GELU" for k = 1.702. Relative error about 2^-21 plus that of k x in
// the exponent, |k x| 2^-24: far below a rounding to f16 or bf16.
__device__ inline float swish(float x, float k) { return x * reciprocal_approx(1.0f + exp2_approx(x * (-k * LOG2_E))); }

// The exact GELU, x/2 (1 + erf(x / sqrt 2)) = max(x, 0) - |x| Q(|x|), where Q is the upper tail of the normal distribution:
// Q(a) = e^(-a^2/2) P(a) / D(a), a rational fit of 1e-8 on [0, 20]. No cancellation, so small results are accurate too.
__device__ inline float gelu(float x) {
    const float a = min_nan(fabsf(x), 20.0f);
    float p = 0.0044455654f;
    p = fmaf(p, a, 0.04281767f);
    p = fmaf(p, a, 0.18965645f);
    p = fmaf(p, a, 0.44686225f);
    p = fmaf(p, a, 0.5f);
    float d = 0.011143317f;
    d = fmaf(d, a, 0.10733195f);
    d = fmaf(d, a, 0.48643616f);
    d = fmaf(d, a, 1.2290146f);
    d = fmaf(d, a, 1.6916097f);
    d = fmaf(d, a, 1.0f);
    const float tail = p * exp2_approx(a * a * (-0.5f * LOG2_E)) * reciprocal_approx(d);
    return max_nan(x, 0.0f) - a * tail;
}

// `kind`, one of Activation, is the same for all threads of a block.
template <int N>
__device__ inline void activate(float (&x)[N], uint32_t kind) {
    if (kind == ACTIVATION_GELU) {
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] = gelu(x[i]);
    } else if (kind == ACTIVATION_QUICK_GELU) {
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] = swish(x[i], 1.702f);
    } else if (kind == ACTIVATION_SILU) {
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] = swish(x[i], 1.0f);
    }
}
