// One step of any scheduler, with guidance, and the next input of the network. Reference: src/diffusion/schedulers/plan.rs
// (`StepPlan`, which has the formula); Ho & Salimans 2022 for guidance; src/ops/sampler (`step`).
//
//   m       = u + guidance (c - u), fused; u and c the halves of a prediction [2, B, ..]; the prediction itself without guidance
//   h[slot] = keep.sample x + keep.output m + keep.previous h[slot]                       if keep_slot is a slot
//   b       = base.sample x + base.output m + (base.base b + sum_k base.history[k] h[k])   if set_base
//   x       = update.sample x + update.output m + (update.base b + sum_k update.history[k] h[k]) + noise z
//   input   = input_scale x
//   x, base [B, positions, channels], history [4, B, positions, channels] f32, replaced; input [B, ..] and prediction f16 or bf16;
//   weights one StepWeights, in memory and not a parameter, so that a captured launch serves every step;
//   samples [B], of whose seeds z is stream `weights->stream`; or z [B, positions, channels] f32 if `drawn` is not null.
// All is f32, each product and sum rounded by itself in the order of the reference, guidance apart.
//
// Entries: step_forward_{f16,bf16}, 256 threads, grid any number of blocks in x by B in y, no shared memory.
//
// Moves up to 46 bytes an element with 100 FLOP, and 200 instructions more where noise is drawn: of SD 1.5, 3 MB a sample, which the
// second-level cache holds. The launch binds up to 16 samples. Measured: not yet.
#include "latents.cuh"

constexpr uint32_t HISTORY = 4;

struct Blend {
    float sample, output, base, history[HISTORY];
};

struct StepWeights {
    uint32_t keep_slot;  // HISTORY or more: nothing is kept
    float keep_sample, keep_output, keep_previous;
    uint32_t set_base;
    Blend base, update;
    float noise;  // 0 draws none
    uint32_t stream;
    float input_scale;
};
PARAMS_LAYOUT(StepWeights, keep_slot, keep_sample, keep_output, keep_previous, set_base, base, update, noise, stream, input_scale)

struct StepParams {
    uint32_t positions;
    uint32_t channels;
    uint32_t guided;
    float guidance;
};
PARAMS_LAYOUT(StepParams, positions, channels, guided, guidance)

__device__ inline Exact blend(const Blend& w, Exact x, Exact m, Exact b, const float (&h)[HISTORY]) {
    const auto kept = [&](int k) { return Exact{w.history[k]} * Exact{h[k]}; };
    const Exact own = Exact{w.sample} * x + Exact{w.output} * m;
    return own + (Exact{w.base} * b + ((kept(0) + kept(1)) + (kept(2) + kept(3))));
}

template <typename T>
__device__ inline float guided_prediction(const T* prediction, uint64_t at, uint64_t count, const StepParams& p) {
    const float u = to_float(prediction[at]);
    if (p.guided == 0) return u;
    return __fmaf_rn(p.guidance, __fsub_rn(to_float(prediction[count + at]), u), u);
}

template <typename T>
__device__ inline void step(float* x, float* base, float* history, T* input, const T* prediction, const StepWeights* weights,
                            const SampleSource* samples, const float* drawn, const StepParams& p) {
    const StepWeights w = *weights;
    const uint32_t length = p.positions * p.channels;
    const uint64_t count = static_cast<uint64_t>(gridDim.y) * length;
    for_each_latent(length, [&](uint32_t i, uint64_t at) {
        const Exact sample{x[at]}, m{guided_prediction(prediction, at, count, p)};
        float h[HISTORY];
#pragma unroll
        for (uint32_t k = 0; k < HISTORY; ++k) {
            h[k] = history[k * count + at];
            if (k == w.keep_slot) {
                h[k] = (Exact{w.keep_sample} * sample + Exact{w.keep_output} * m + Exact{w.keep_previous} * Exact{h[k]}).value;
                history[k * count + at] = h[k];
            }
        }
        Exact b{base[at]};
        if (w.set_base != 0) {
            b = blend(w.base, sample, m, b, h);
            base[at] = b.value;
        }
        Exact next = blend(w.update, sample, m, b, h);
        if (w.noise != 0.0f) {
            const Exact z{drawn != nullptr ? drawn[at]
                                           : latent_noise(samples[blockIdx.y], w.stream, i, p.positions, p.channels)};
            next = next + Exact{w.noise} * z;
        }
        x[at] = next.value;
        input[at] = from_float<T>((next * Exact{w.input_scale}).value);
    });
}

#define STEP(T)                                                                                                        \
    extern "C" __global__ void __launch_bounds__(LATENT_THREADS)                                                       \
        step_forward_##T(float* x, float* base, float* history, T* input, const T* prediction, const StepWeights* weights, \
                         const SampleSource* samples, const float* drawn, StepParams p) {                              \
        step(x, base, history, input, prediction, weights, samples, drawn, p);                                         \
    }

STEP(f16)
STEP(bf16)
