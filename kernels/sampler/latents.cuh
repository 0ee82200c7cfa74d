// What the kernels of a sampler share: the numbering of latents, and where a sample's noise comes from.
#pragma once
#include "philox.cuh"

constexpr int LATENT_THREADS = 256;

// Of one sample, in device memory. Its key is its seed, low half first; `given` is not zero if its initial latents are not drawn.
struct SampleSource {
    uint32_t key0, key1, given, unused;
};

// Calls `body(i, at)` for the elements of sample blockIdx.y: i of its own, at of the batch. Any grid in x will do.
template <typename F>
__device__ inline void for_each_latent(uint32_t length, F body) {
    const uint64_t start = static_cast<uint64_t>(blockIdx.y) * length;
    const uint32_t step = gridDim.x * LATENT_THREADS;  // length + step is below 2^32
    for (uint32_t i = blockIdx.x * LATENT_THREADS + threadIdx.x; i < length; i += step) body(i, start + i);
}

// Noise of element i, channels last, of a sample. Elements are drawn in the order of [C, h, w].
__device__ inline float latent_noise(const SampleSource& source, uint32_t stream, uint32_t i, uint32_t positions, uint32_t channels) {
    const uint32_t position = i / channels, channel = i % channels;
    return normal(source.key0, source.key1, stream, static_cast<uint64_t>(channel) * positions + position);
}
