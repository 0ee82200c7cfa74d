// Lanes of one warp: exchange through shared memory, shuffles, votes. Lanes do not run in step of their own accord.

// run: grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void lanes_exchange(float* out, const float* in) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    slot[t] = 0.0f;
    __syncthreads();
    slot[t] = in[i];
    __syncwarp();
    out[i] = slot[t ^ 1];
}

// run: twin=lanes_exchange grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void lanes_exchange_unsynchronised(float* out, const float* in) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    slot[t] = 0.0f;
    __syncthreads();
    slot[t] = in[i];       // fault: shared-race a
    out[i] = slot[t ^ 1];  // fault: shared-race b
}

// __syncwarp orders the lanes of one warp only.
// run: twin=lanes_exchange grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void lanes_exchange_across_warps(float* out, const float* in) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    slot[t] = 0.0f;
    __syncthreads();
    slot[t] = in[i];  // fault: shared-race a
    __syncwarp();
    out[i] = slot[t ^ 32];  // fault: shared-race b
}

// run: grid=2 block=32 args=buf:f32:2:undef,buf:f32:64:rand
extern "C" __global__ void warp_sum(float* out, const float* in) {
    __shared__ float partial[64];
    unsigned t = threadIdx.x;
    partial[t] = in[blockIdx.x * 32 + t];
    partial[t + 32] = 0.0f;
    __syncwarp();
    for (unsigned half = 16; half > 0; half /= 2) {
        float sum = partial[t] + partial[t + half];
        __syncwarp();
        partial[t] = sum;
        __syncwarp();
    }
    if (t == 0) out[blockIdx.x] = partial[0];
}

// What was written for warps that run in step.
// run: twin=warp_sum grid=2 block=32 args=buf:f32:2:undef,buf:f32:64:rand
extern "C" __global__ void warp_sum_in_step(float* out, const float* in) {
    __shared__ float partial[64];
    unsigned t = threadIdx.x;
    partial[t] = in[blockIdx.x * 32 + t];
    partial[t + 32] = 0.0f;
    __syncwarp();
    partial[t] += partial[t + 16];  // fault: shared-race a b
    asm volatile("" ::: "memory");
    partial[t] += partial[t + 8];   // fault: shared-race a b
    asm volatile("" ::: "memory");
    partial[t] += partial[t + 4];   // fault: shared-race a b
    asm volatile("" ::: "memory");
    partial[t] += partial[t + 2];   // fault: shared-race a b
    asm volatile("" ::: "memory");
    partial[t] += partial[t + 1];   // fault: shared-race a b
    if (t == 0) out[blockIdx.x] = partial[0];
}

// volatile keeps the compiler from holding values back, and orders nothing.
// run: twin=warp_sum grid=2 block=32 args=buf:f32:2:undef,buf:f32:64:rand
extern "C" __global__ void warp_sum_volatile(float* out, const float* in) {
    __shared__ volatile float partial[64];
    unsigned t = threadIdx.x;
    partial[t] = in[blockIdx.x * 32 + t];
    partial[t + 32] = 0.0f;
    __syncwarp();
    partial[t] = partial[t] + partial[t + 16];  // fault: shared-race a b
    partial[t] = partial[t] + partial[t + 8];   // fault: shared-race a b
    partial[t] = partial[t] + partial[t + 4];   // fault: shared-race a b
    partial[t] = partial[t] + partial[t + 2];   // fault: shared-race a b
    partial[t] = partial[t] + partial[t + 1];   // fault: shared-race a b
    if (t == 0) out[blockIdx.x] = partial[0];
}

// run: grid=2 block=64 args=buf:f32:4:undef,buf:f32:128:rand
extern "C" __global__ void shuffle_sum(float* out, const float* in) {
    unsigned i = blockIdx.x * 64 + threadIdx.x;
    float sum = in[i];
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffff, sum, offset);
    if (i % 32 == 0) out[i / 32] = sum;
}

// run: grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void shuffle_in_half(float* out, const float* in) {
    unsigned i = blockIdx.x * 64 + threadIdx.x;
    float value = in[i];
    if (i % 32 < 16) value += __shfl_xor_sync(0x0000ffff, value, 1);
    __syncthreads();
    out[i] = value;
}

// run: twin=shuffle_in_half grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void shuffle_names_absent_lanes(float* out, const float* in) {
    unsigned i = blockIdx.x * 64 + threadIdx.x;
    float value = in[i];
    if (i % 32 < 16) value += __shfl_xor_sync(0xffffffff, value, 1);  // fault: divergent-barrier
    __syncthreads();
    out[i] = value;
}

// Half of the lanes execute a shuffle whose mask does not name them.
// run: twin=shuffle_in_half grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void shuffle_names_other_lanes(float* out, const float* in) {
    unsigned i = blockIdx.x * 64 + threadIdx.x;
    float value = in[i];
    value += __shfl_xor_sync(0x0000ffff, value, 1);  // fault: divergent-barrier
    out[i] = value;
}

// run: grid=2 block=32 args=buf:f32:64:zero,buf:f32:64:rand,u32:20
extern "C" __global__ void shuffle_before_return(float* out, const float* in, unsigned n) {
    unsigned t = threadIdx.x, i = blockIdx.x * 32 + t;
    float value = t < n ? in[i] : 0.0f;
    float next = __shfl_down_sync(0xffffffff, value, 1);
    if (t >= n) return;
    out[i] = value - next;
}

// Lane n-1 takes the value of a lane that has returned.
// run: twin=shuffle_before_return grid=2 block=32 args=buf:f32:64:zero,buf:f32:64:rand,u32:20
extern "C" __global__ void shuffle_after_return(float* out, const float* in, unsigned n) {
    unsigned t = threadIdx.x, i = blockIdx.x * 32 + t;
    if (t >= n) return;
    float value = in[i];
    float next = __shfl_down_sync(0xffffffff, value, 1);  // fault: divergent-barrier
    out[i] = value - next;
}

// run: grid=2 block=64 args=buf:u32:128:undef,buf:u32:128:rand
extern "C" __global__ void ballot_positions(unsigned* out, const unsigned* in) {
    unsigned i = blockIdx.x * 64 + threadIdx.x, lane = i % 32;
    bool odd = in[i] & 1;
    unsigned ballot = __ballot_sync(0xffffffff, odd);
    unsigned before = __popc(ballot & ((1u << lane) - 1));
    unsigned place = odd ? before : __popc(ballot) + lane - before;
    out[i - lane + place] = in[i];
}

// run: twin=ballot_positions grid=2 block=64 args=buf:u32:128:undef,buf:u32:128:iota
extern "C" __global__ void ballot_in_branch(unsigned* out, const unsigned* in) {
    unsigned i = blockIdx.x * 64 + threadIdx.x, ballot = 0;
    if (in[i] % 3 != 0) ballot = __ballot_sync(0xffffffff, in[i] & 1);  // fault: divergent-barrier
    __syncthreads();
    out[i] = ballot;
}

// Half a warp meets at each of two places: they name each other, so that is one meeting.
// run: grid=2 block=32 args=buf:f32:64:undef,buf:f32:64:rand
extern "C" __global__ void syncwarp_at_two_places(float* out, const float* in) {
    __shared__ float slot[32];
    unsigned t = threadIdx.x, i = blockIdx.x * 32 + t;
    if (t < 16) {
        slot[t] = in[i];
        __syncwarp();
        out[i] = slot[t + 16];
    } else {
        slot[t] = in[i] * 2.0f;
        __syncwarp();
        out[i] = slot[t - 16] - 1.0f;
    }
}

// run: twin=syncwarp_at_two_places grid=2 block=32 args=buf:f32:64:undef,buf:f32:64:rand
extern "C" __global__ void syncwarp_at_one_place(float* out, const float* in) {
    __shared__ float slot[32];
    unsigned t = threadIdx.x, i = blockIdx.x * 32 + t;
    slot[t] = in[i];
    if (t < 16) {
        slot[t] += 1.0f;
        __syncwarp();  // fault: divergent-barrier
        slot[t] += 2.0f;
    }
    __syncthreads();
    out[i] = slot[t];
}

// One addition for all lanes with the same key.
// run: grid=2 block=64 args=buf:u32:8:zero,buf:u32:128:rand
extern "C" __global__ void matched_counts(unsigned* out, const unsigned* in) {
    unsigned lane = threadIdx.x % 32, key = in[blockIdx.x * 64 + threadIdx.x] % 8;
    unsigned same = __match_any_sync(0xffffffff, key);
    if (__ffs(same) - 1 == lane) atomicAdd(&out[key], __popc(same));
}

// run: grid=2 block=64 args=buf:u32:16:undef,buf:u32:128:rand
extern "C" __global__ void reduced_in_hardware(unsigned* out, const unsigned* in) {
    unsigned i = blockIdx.x * 64 + threadIdx.x, value = in[i];
    unsigned sum = __reduce_add_sync(0xffffffff, value), high = __reduce_max_sync(0xffffffff, value);
    unsigned bits = __reduce_xor_sync(0xffffffff, value);
    bool any = __any_sync(0xffffffff, value > 100), all = __all_sync(0xffffffff, value > 100);
    if (i % 32 == 0) {
        out[i / 32 * 4] = sum;
        out[i / 32 * 4 + 1] = high;
        out[i / 32 * 4 + 2] = bits;
        out[i / 32 * 4 + 3] = any * 2 + all;
    }
}
