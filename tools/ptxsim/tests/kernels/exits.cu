// Lanes that exit: what waits for them alone goes on.

// The upper half may come to its exit before the lower half shuffles, or after.
// run: grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void half_shuffles(float* out, const float* in) {
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    float value = in[i];
    if (t % 32 >= 16) {
        out[i] = 2.0f * value;
        return;
    }
    if (value < 2.0f) {
        out[i] = value + __shfl_xor_sync(0xFFFFFFFFu, value, 1);
        return;
    }
    out[i] = 0.0f;
}

// run: twin=half_shuffles grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void half_shuffles_with_the_exited(float* out, const float* in) {
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    float value = in[i];
    if (t % 32 >= 16) {
        out[i] = 2.0f * value;
        return;
    }
    if (value < 2.0f) {
        out[i] = value + __shfl_xor_sync(0xFFFFFFFFu, value, 16);  // fault: divergent-barrier
        return;
    }
    out[i] = 0.0f;
}

// Each vote waits for fewer lanes than the one before.
// run: grid=2 block=64 args=buf:u32:128:undef,buf:f32:128:rand
extern "C" __global__ void lanes_drop_out(unsigned* out, const float* in) {
    unsigned t = threadIdx.x, lane = t % 32, i = blockIdx.x * 64 + t;
    float value = in[i];
    unsigned votes = 0;
    for (unsigned round = 0; round < 32; ++round) {
        if (lane < round) {
            out[i] = votes;
            return;
        }
        if (value > -2.0f) {
            votes += __popc(__ballot_sync(0xFFFFFFFFu, value < 2.0f));
            if (votes == 0) break;
        }
    }
    out[i] = votes;
}

// run: grid=1 block=32 args=buf:u32:64:undef,buf:u32:32:iota
extern "C" __global__ void half_synchronises(unsigned* out, const unsigned* in) {
    __shared__ unsigned slot[32];
    unsigned t = threadIdx.x;
    unsigned value = in[t];
    slot[t] = value;
    if (value >= 16) {
        out[t + 32] = 2 * value;
        return;
    }
    if (value < 100) {
        __syncwarp();
        out[t] = slot[value ^ 1];
    }
}

// run: twin=half_synchronises grid=1 block=32 args=buf:u32:64:undef,buf:u32:32:iota
extern "C" __global__ void half_forgets_to_synchronise(unsigned* out, const unsigned* in) {
    __shared__ unsigned slot[32];
    unsigned t = threadIdx.x;
    unsigned value = in[t];
    slot[t] = value;  // fault: shared-race a
    if (value >= 16) {
        out[t + 32] = 2 * value;
        return;
    }
    if (value < 100) {
        out[t] = slot[value ^ 1];  // fault: shared-race b
    }
}

// Lanes leave something behind and exit: a barrier of those that stay does not wait for it.
// run: grid=1 block=32 args=buf:u32:16:undef
extern "C" __global__ void left_behind_a_barrier(unsigned* out) {
    __shared__ unsigned values[16];
    unsigned t = threadIdx.x;
    if (t < 16) values[t] = 5 * t;
    __syncwarp();
    if (t < 16) return;
    out[t - 16] = values[31 - t];
}

// run: twin=left_behind_a_barrier grid=1 block=32 args=buf:u32:16:undef
extern "C" __global__ void left_by_lanes_that_exit(unsigned* out) {
    __shared__ unsigned values[16];
    unsigned t = threadIdx.x;
    if (t < 16) {
        values[t] = 5 * t;  // fault: shared-race a
        return;
    }
    __syncwarp(0xFFFF0000u);
    out[t - 16] = values[31 - t];  // fault: shared-race b
}
