// A barrier that only some lanes of a warp reach, while the others wait further on. A lane that has returned takes no part
// in later barriers.

// run: grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void barrier_behind_branch(float* out, const float* in) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    slot[t] = 0.0f;
    if (t % 32 < 16) slot[t] = in[i];
    __syncthreads();
    out[i] = slot[63 - t];
}

// run: twin=barrier_behind_branch grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void barrier_in_branch(float* out, const float* in) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    slot[t] = 0.0f;
    if (t % 32 < 16) {
        slot[t] = in[i];
        __syncthreads();  // fault: divergent-barrier
        slot[t] += 1.0f;
    }
    __syncthreads();
    out[i] = slot[t];
}

// All threads of a block take the same branch.
// run: grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void barrier_in_both_uniform_branches(float* out, const float* in) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    if (blockIdx.x % 2 == 0) {
        slot[t] = in[i];
        __syncthreads();
        out[i] = slot[63 - t];
    } else {
        slot[63 - t] = -in[i];
        __syncthreads();
        out[i] = slot[t] * 2.0f;
    }
}

// run: twin=barrier_in_both_uniform_branches grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void barrier_in_both_branches(float* out, const float* in) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    if (t % 2 == 0) {
        slot[t] = in[i];
        __syncthreads();  // fault: either divergent-barrier
        out[i] = slot[t];
    } else {
        slot[t] = -in[i];
        __syncthreads();  // fault: either divergent-barrier
        out[i] = slot[t] * 2.0f;
    }
}

// Whole warps, but not the whole block: __syncthreads may stand in a branch only if all threads take it.
// run: twin=barrier_in_both_uniform_branches grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void barrier_in_branches_by_warp(float* out, const float* in) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    if (t < 32) {
        slot[t] = in[i];
        __syncthreads();  // fault: divergent-barrier
        out[i] = slot[63 - t];
    } else {
        slot[t] = -in[i];
        __syncthreads();  // fault: divergent-barrier
        out[i] = slot[63 - t] * 2.0f;
    }
}

// run: grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void barrier_in_uniform_loop(float* out, const float* in) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    float value = in[i];
    slot[t] = 0.0f;
    for (unsigned step = 0; step < 4; ++step) {
        if (step <= t % 4) slot[t] = value;
        __syncthreads();
        if (step <= t % 4) value += slot[t ^ 5];
        __syncthreads();
    }
    out[i] = value;
}

// run: twin=barrier_in_uniform_loop grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void barrier_in_uneven_loop(float* out, const float* in) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    float value = in[i];
    for (unsigned step = 0; step <= t % 4; ++step) {
        slot[t] = value;
        __syncthreads();  // fault: divergent-barrier
        value += slot[t];
    }
    __syncthreads();
    out[i] = value + slot[t];
}

// run: grid=2 block=64 args=buf:f32:128:zero,buf:f32:128:rand,u32:40
extern "C" __global__ void early_return(float* out, const float* in, unsigned n) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    if (t >= n) return;
    slot[t] = in[i];
    __syncthreads();
    out[i] = slot[n - 1 - t];
}

// A whole warp may pass by a barrier that counts only the others.
// run: grid=2 block=96 args=buf:f32:192:undef,buf:f32:192:rand
extern "C" __global__ void uniform_warps_part(float* out, const float* in) {
    __shared__ float slot[96];
    unsigned t = threadIdx.x, i = blockIdx.x * 96 + t;
    float value = in[i];
    slot[t] = value;
    if (t >= 32) {
        asm volatile("bar.sync 1, 64;" ::: "memory");
        value += slot[127 - t];
    }
    __syncthreads();
    out[i] = value + slot[95 - t];
}

// run: twin=uniform_warps_part grid=2 block=96 args=buf:f32:192:undef,buf:f32:192:rand
extern "C" __global__ void warps_part_in_the_middle(float* out, const float* in) {
    __shared__ float slot[96];
    unsigned t = threadIdx.x, i = blockIdx.x * 96 + t;
    slot[t] = in[i];
    if (t >= 16) {
        asm volatile("bar.sync 1, 64;" ::: "memory");  // fault: divergent-barrier
        slot[t] += 1.0f;
    }
    __syncthreads();
    out[i] = slot[95 - t];
}

// A loop that some lanes might leave by a return, which none takes: they meet again at the barrier.
// run: grid=1 block=64 args=buf:f32:64:undef,buf:f32:128:rand,u32:5
extern "C" __global__ void return_in_a_loop(float* out, const float* in, unsigned rounds) {
    __shared__ float s[64];
    unsigned t = threadIdx.x;
    float v = in[t];
    for (unsigned j = 0; j < t % rounds + 1; ++j) {
        v += in[j + t];
        if (v > 1e6f) return;
    }
    s[t] = v;
    __syncthreads();
    out[t] = s[63 - t];
}

// Threads that come to a barrier one by one, as cooperative groups let them.
// run: grid=1 block=64 args=buf:f32:64:undef,buf:f32:64:rand
extern "C" __global__ void halves_at_a_barrier(float* out, const float* in) {
    __shared__ float s[64];
    unsigned t = threadIdx.x;
    s[t] = in[t];
    if (t & 1) {
        asm volatile("barrier.sync 0;" ::: "memory");
    } else {
        asm volatile("barrier.sync 0;" ::: "memory");
    }
    out[t] = s[t ^ 1];
}
