// Initial latents, and the first input of the network. Reference: src/rng/philox.rs and src/ops/sampler (`start`).
//
//   x[b, p, c] = sigma z[b][c positions + p], z stream 0 of the sample's seed; given samples keep what x holds
//   input = input_scale x
//   x [B, positions, channels] f32, replaced; input the same shape, f16 or bf16; samples [B]
// Each product is rounded to f32, input then once more to its type.
//
// Entries: start_forward_{f16,bf16}, 256 threads, grid any number of blocks in x by B in y, no shared memory.
//
// Moves 6 bytes an element. Each thread draws the four normals of a block of the generator and keeps one: 200 instructions an element,
// 1 microsecond for 16 samples of SD 1.5 on an A100, where the launch takes longer. Measured: not yet.
#include "latents.cuh"

struct StartParams {
    uint32_t positions;
    uint32_t channels;
    float sigma;
    float input_scale;
};
PARAMS_LAYOUT(StartParams, positions, channels, sigma, input_scale)

template <typename T>
__device__ inline void start(float* x, T* input, const SampleSource* samples, const StartParams& p) {
    const SampleSource source = samples[blockIdx.y];
    for_each_latent(p.positions * p.channels, [&](uint32_t i, uint64_t at) {
        if (source.given == 0) x[at] = __fmul_rn(latent_noise(source, 0, i, p.positions, p.channels), p.sigma);
        input[at] = from_float<T>(__fmul_rn(x[at], p.input_scale));
    });
}

#define START(T)                                                                     \
    extern "C" __global__ void __launch_bounds__(LATENT_THREADS)                     \
        start_forward_##T(float* x, T* input, const SampleSource* samples, StartParams p) { \
        start(x, input, samples, p);                                                 \
    }

START(f16)
START(bf16)
