// Barriers with an id and a count of threads: groups of warps that wait for each other, and producers that only arrive.
#include "asm.cuh"

// Each half of the block keeps its own barrier.
// run: grid=2 block=128 args=buf:f32:256:undef,buf:f32:256:rand
extern "C" __global__ void halves(float* out, const float* in) {
    __shared__ float slot[128];
    unsigned t = threadIdx.x, half = t / 64, i = blockIdx.x * 128 + t;
    slot[t] = 0.0f;
    __syncthreads();
    float value = in[i];
    for (int step = 0; step < 3; ++step) {
        slot[t] = value;
        BARRIER_SYNC(1 + half, 64);
        value += slot[half * 64 + (t + 32) % 64];
        BARRIER_SYNC(1 + half, 64);
    }
    out[i] = value;
}

// run: twin=halves grid=2 block=128 args=buf:f32:256:undef,buf:f32:256:rand
extern "C" __global__ void halves_count_too_small(float* out, const float* in) {
    __shared__ float slot[128];
    unsigned t = threadIdx.x, half = t / 64, i = blockIdx.x * 128 + t;
    slot[t] = 0.0f;
    __syncthreads();
    float value = in[i];
    for (int step = 0; step < 3; ++step) {
        slot[t] = value;  // fault: shared-race a
        BARRIER_SYNC(1 + half, 32);
        value += slot[half * 64 + (t + 32) % 64];  // fault: shared-race b
        BARRIER_SYNC(1 + half, 32);
    }
    out[i] = value;
}

// run: twin=halves grid=2 block=128 args=buf:f32:256:undef,buf:f32:256:rand
extern "C" __global__ void halves_count_too_large(float* out, const float* in) {
    __shared__ float slot[128];
    unsigned t = threadIdx.x, half = t / 64, i = blockIdx.x * 128 + t;
    slot[t] = 0.0f;
    __syncthreads();
    float value = in[i];
    for (int step = 0; step < 3; ++step) {
        slot[t] = value;
        BARRIER_SYNC(1 + half, 96);  // fault: deadlock
        value += slot[half * 64 + (t + 32) % 64];
        BARRIER_SYNC(1 + half, 96);
    }
    out[i] = value;
}

// Two warps fill a slot, two empty it: 1 says full, 2 says empty.
// run: grid=2 block=128 args=buf:f32:512:undef,buf:f32:512:rand
extern "C" __global__ void producers_and_consumers(float* out, const float* in) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x % 64, first = blockIdx.x * 256;
    if (threadIdx.x < 64) {
        for (unsigned step = 0; step < 4; ++step) {
            BARRIER_SYNC(2, 128);
            slot[t] = in[first + step * 64 + t];
            BARRIER_ARRIVE(1, 128);
        }
    } else {
        BARRIER_ARRIVE(2, 128);
        for (unsigned step = 0; step < 4; ++step) {
            BARRIER_SYNC(1, 128);
            out[first + step * 64 + t] = slot[63 - t];
            if (step < 3) BARRIER_ARRIVE(2, 128);
        }
    }
}

// run: twin=producers_and_consumers grid=2 block=128 args=buf:f32:512:undef,buf:f32:512:rand
extern "C" __global__ void producers_never_arrive(float* out, const float* in) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x % 64, first = blockIdx.x * 256;
    if (threadIdx.x < 64) {
        for (unsigned step = 0; step < 4; ++step) {
            BARRIER_SYNC(2, 128);  // fault: deadlock
            slot[t] = in[first + step * 64 + t];
        }
    } else {
        BARRIER_ARRIVE(2, 128);
        for (unsigned step = 0; step < 4; ++step) {
            BARRIER_SYNC(1, 128);  // fault: deadlock
            out[first + step * 64 + t] = slot[63 - t];
            if (step < 3) BARRIER_ARRIVE(2, 128);
        }
    }
}

// run: twin=producers_and_consumers grid=2 block=128 args=buf:f32:512:undef,buf:f32:512:rand
extern "C" __global__ void producers_arrive_elsewhere(float* out, const float* in) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x % 64, first = blockIdx.x * 256;
    if (threadIdx.x < 64) {
        for (unsigned step = 0; step < 4; ++step) {
            BARRIER_SYNC(2, 128);  // fault: deadlock
            slot[t] = in[first + step * 64 + t];
            BARRIER_ARRIVE(3, 128);
        }
    } else {
        BARRIER_ARRIVE(2, 128);
        for (unsigned step = 0; step < 4; ++step) {
            BARRIER_SYNC(1, 128);  // fault: deadlock
            out[first + step * 64 + t] = slot[63 - t];
            if (step < 3) BARRIER_ARRIVE(2, 128);
        }
    }
}

// run: grid=2 block=128 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void hand_over(float* out, const float* in) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x % 64, first = blockIdx.x * 64;
    if (threadIdx.x < 64) slot[t] = 0.0f;
    __syncthreads();
    if (threadIdx.x < 64) {
        slot[t] = in[first + t];
        BARRIER_ARRIVE(1, 128);
    } else {
        BARRIER_SYNC(1, 128);
        out[first + t] = slot[63 - t];
    }
}

// run: twin=hand_over grid=2 block=128 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void hand_over_not_awaited(float* out, const float* in) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x % 64, first = blockIdx.x * 64;
    if (threadIdx.x < 64) slot[t] = 0.0f;
    __syncthreads();
    if (threadIdx.x < 64) {
        slot[t] = in[first + t];  // fault: shared-race a
        BARRIER_ARRIVE(1, 128);
    } else {
        out[first + t] = slot[63 - t];  // fault: shared-race b
    }
}

// An arrival says that what came before it is done; what comes after it is not covered.
// run: twin=hand_over grid=2 block=128 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void hand_over_too_early(float* out, const float* in) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x % 64, first = blockIdx.x * 64;
    if (threadIdx.x < 64) slot[t] = 0.0f;
    __syncthreads();
    if (threadIdx.x < 64) {
        BARRIER_ARRIVE(1, 128);
        slot[t] = in[first + t];  // fault: shared-race a
    } else {
        BARRIER_SYNC(1, 128);
        out[first + t] = slot[63 - t];  // fault: shared-race b
    }
}

// run: grid=2 block=128 args=buf:f32:256:undef,buf:f32:256:rand
extern "C" __global__ void two_rendezvous(float* out, const float* in) {
    __shared__ float slot[128];
    unsigned t = threadIdx.x, i = blockIdx.x * 128 + t;
    if (t < 64) {
        slot[t] = in[i];
        BARRIER_SYNC(1, 128);
        BARRIER_SYNC(2, 128);
    } else {
        BARRIER_SYNC(1, 128);
        slot[t] = slot[t - 64] + in[i];
        BARRIER_SYNC(2, 128);
    }
    out[i] = slot[127 - t];
}

// run: twin=two_rendezvous grid=2 block=128 args=buf:f32:256:undef,buf:f32:256:rand
extern "C" __global__ void two_rendezvous_crossed(float* out, const float* in) {
    __shared__ float slot[128];
    unsigned t = threadIdx.x, i = blockIdx.x * 128 + t;
    if (t < 64) {
        slot[t] = in[i];
        BARRIER_SYNC(1, 128);  // fault: deadlock
        BARRIER_SYNC(2, 128);
    } else {
        BARRIER_SYNC(2, 128);  // fault: deadlock
        slot[t] = slot[t - 64] + in[i];
        BARRIER_SYNC(1, 128);
    }
    out[i] = slot[127 - t];
}
