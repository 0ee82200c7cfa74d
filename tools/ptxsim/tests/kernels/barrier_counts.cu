// Barriers of all threads of the block, said in two ways.
#include "asm.cuh"

#define BARRIER_SYNC_ALL(id) asm volatile("bar.sync %0;" ::"r"(id) : "memory")

// run: grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void all_and_their_number(float* out, const float* in) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    slot[t] = in[i];
    if (t < 32) {
        BARRIER_SYNC_ALL(3);
    } else {
        BARRIER_SYNC(3, 64);
    }
    out[i] = slot[63 - t];
}

// The last warp counts as a whole one.
// run: grid=1 block=40 args=buf:f32:40:undef,buf:f32:40:rand
extern "C" __global__ void all_and_their_number_rounded(float* out, const float* in) {
    __shared__ float slot[40];
    unsigned t = threadIdx.x;
    slot[t] = in[t];
    if (t < 32) {
        BARRIER_SYNC_ALL(3);
    } else {
        BARRIER_SYNC(3, 64);
    }
    out[t] = slot[39 - t];
}

// run: twin=all_and_their_number grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void all_and_another_number(float* out, const float* in) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    slot[t] = in[i];
    if (t < 32) {
        BARRIER_SYNC_ALL(3);  // fault: either divergent-barrier
    } else {
        BARRIER_SYNC(3, 96);  // fault: either divergent-barrier
    }
    out[i] = slot[63 - t];
}
