// Several tiles under way at once: a stage is read behind the wait for its own group, and refilled behind a barrier after
// its last read.
#include "asm.cuh"

// Sums eight tiles of 64 elements element by element (each thread reads what its mirror image copied), two stages.
// run: grid=2 block=64 args=buf:f32:128:undef,buf:f32:1024:rand
extern "C" __global__ void two_stages(float* out, const float* in) {
    __shared__ float stage[2][64];
    unsigned t = threadIdx.x;
    const float* tiles = in + blockIdx.x * 512;
    float sum = 0.0f;
    COPY_ASYNC(&stage[0][t], tiles + t, 4);
    COPY_COMMIT();
    for (unsigned k = 0; k < 8; ++k) {
        if (k + 1 < 8) COPY_ASYNC(&stage[(k + 1) % 2][t], tiles + (k + 1) * 64 + t, 4);
        COPY_COMMIT();
        COPY_WAIT(1);
        __syncthreads();
        sum += stage[k % 2][63 - t];
        __syncthreads();
    }
    out[blockIdx.x * 64 + t] = sum;
}

// run: twin=two_stages grid=2 block=64 args=buf:f32:128:undef,buf:f32:1024:rand
extern "C" __global__ void two_stages_refilled_early(float* out, const float* in) {
    __shared__ float stage[2][64];
    unsigned t = threadIdx.x;
    const float* tiles = in + blockIdx.x * 512;
    float sum = 0.0f;
    COPY_ASYNC(&stage[0][t], tiles + t, 4);
    COPY_COMMIT();
    for (unsigned k = 0; k < 8; ++k) {
        if (k + 1 < 8) COPY_ASYNC(&stage[(k + 1) % 2][t], tiles + (k + 1) * 64 + t, 4);  // fault: shared-race a
        COPY_COMMIT();
        COPY_WAIT(1);
        __syncthreads();
        sum += stage[k % 2][63 - t];  // fault: shared-race b
    }
    out[blockIdx.x * 64 + t] = sum;
}

// run: twin=two_stages grid=2 block=64 args=buf:f32:128:undef,buf:f32:1024:rand
extern "C" __global__ void two_stages_read_early(float* out, const float* in) {
    __shared__ float stage[2][64];
    unsigned t = threadIdx.x;
    const float* tiles = in + blockIdx.x * 512;
    float sum = 0.0f;
    COPY_ASYNC(&stage[0][t], tiles + t, 4);  // fault: unwaited-copy b
    COPY_COMMIT();
    for (unsigned k = 0; k < 8; ++k) {
        if (k + 1 < 8) COPY_ASYNC(&stage[(k + 1) % 2][t], tiles + (k + 1) * 64 + t, 4);  // fault: unwaited-copy b
        COPY_COMMIT();
        COPY_WAIT(2);
        __syncthreads();
        sum += stage[k % 2][63 - t];  // fault: unwaited-copy a
        __syncthreads();
    }
    out[blockIdx.x * 64 + t] = sum;
}

// Three stages, one barrier a step: the stage refilled in a step was read in the step before.
// The 498 elements of a block end in the middle of a 16-byte copy; copies past them bring zeros.
// run: grid=2 block=16 args=buf:f32:128:undef,buf:f32:1000:rand,u32:498
extern "C" __global__ void three_stages(float* out, const float* in, unsigned n) {
    __shared__ __align__(16) float stage[3][64];
    unsigned t = threadIdx.x * 4;
    const float* tiles = in + blockIdx.x * 500;
    float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
    for (unsigned k = 0; k < 2; ++k) {
        unsigned i = k * 64 + t;
        COPY_ASYNC16_FIRST(&stage[k][t], tiles + i, min(n - i, 4) * 4);
        COPY_COMMIT();
    }
    for (unsigned k = 0; k < 8; ++k) {
        COPY_WAIT(1);
        __syncthreads();
        if (k + 2 < 8) {
            unsigned i = (k + 2) * 64 + t;
            unsigned count = i < n ? min(n - i, 4) * 4 : 0;
            COPY_ASYNC16_FIRST(&stage[(k + 2) % 3][t], count ? tiles + i : tiles, count);
        }
        COPY_COMMIT();
        float4 four = *reinterpret_cast<const float4*>(&stage[k % 3][60 - t]);
        sum.x += four.w, sum.y += four.z, sum.z += four.y, sum.w += four.x;
    }
    *reinterpret_cast<float4*>(out + blockIdx.x * 64 + t) = sum;
}

// run: twin=three_stages grid=2 block=16 args=buf:f32:128:undef,buf:f32:1000:rand,u32:498
extern "C" __global__ void three_stages_read_early(float* out, const float* in, unsigned n) {
    __shared__ __align__(16) float stage[3][64];
    unsigned t = threadIdx.x * 4;
    const float* tiles = in + blockIdx.x * 500;
    float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
    for (unsigned k = 0; k < 2; ++k) {
        unsigned i = k * 64 + t;
        COPY_ASYNC16_FIRST(&stage[k][t], tiles + i, min(n - i, 4) * 4);  // fault: unwaited-copy b
        COPY_COMMIT();
    }
    for (unsigned k = 0; k < 8; ++k) {
        COPY_WAIT(2);
        __syncthreads();
        if (k + 2 < 8) {
            unsigned i = (k + 2) * 64 + t;
            unsigned count = i < n ? min(n - i, 4) * 4 : 0;
            COPY_ASYNC16_FIRST(&stage[(k + 2) % 3][t], count ? tiles + i : tiles, count);  // fault: unwaited-copy b
        }
        COPY_COMMIT();
        float4 four = *reinterpret_cast<const float4*>(&stage[k % 3][60 - t]);  // fault: unwaited-copy a
        sum.x += four.w, sum.y += four.z, sum.z += four.y, sum.w += four.x;
    }
    *reinterpret_cast<float4*>(out + blockIdx.x * 64 + t) = sum;
}

// Without empty groups in the last steps, the wait for all but one leaves the last tile under way.
// run: twin=three_stages grid=2 block=16 args=buf:f32:128:undef,buf:f32:1000:rand,u32:498
extern "C" __global__ void three_stages_without_empty_groups(float* out, const float* in, unsigned n) {
    __shared__ __align__(16) float stage[3][64];
    unsigned t = threadIdx.x * 4;
    const float* tiles = in + blockIdx.x * 500;
    float4 sum = {0.0f, 0.0f, 0.0f, 0.0f};
    for (unsigned k = 0; k < 2; ++k) {
        unsigned i = k * 64 + t;
        COPY_ASYNC16_FIRST(&stage[k][t], tiles + i, min(n - i, 4) * 4);
        COPY_COMMIT();
    }
    for (unsigned k = 0; k < 8; ++k) {
        COPY_WAIT(1);
        __syncthreads();
        if (k + 2 < 8) {
            unsigned i = (k + 2) * 64 + t;
            unsigned count = i < n ? min(n - i, 4) * 4 : 0;
            COPY_ASYNC16_FIRST(&stage[(k + 2) % 3][t], count ? tiles + i : tiles, count);  // fault: unwaited-copy b
            COPY_COMMIT();
        }
        float4 four = *reinterpret_cast<const float4*>(&stage[k % 3][60 - t]);  // fault: unwaited-copy a
        sum.x += four.w, sum.y += four.z, sum.z += four.y, sum.w += four.x;
    }
    *reinterpret_cast<float4*>(out + blockIdx.x * 64 + t) = sum;
}

// One stage too few for the distance of the copies: a step refills what it reads.
// run: twin=three_stages grid=2 block=64 args=buf:f32:128:undef,buf:f32:1024:rand
extern "C" __global__ void three_stages_in_two(float* out, const float* in) {
    __shared__ float stage[2][64];
    unsigned t = threadIdx.x;
    const float* tiles = in + blockIdx.x * 512;
    float sum = 0.0f;
    for (unsigned k = 0; k < 2; ++k) {
        COPY_ASYNC(&stage[k][t], tiles + k * 64 + t, 4);
        COPY_COMMIT();
    }
    for (unsigned k = 0; k < 8; ++k) {
        COPY_WAIT(1);
        __syncthreads();
        if (k + 2 < 8) COPY_ASYNC(&stage[k % 2][t], tiles + (k + 2) * 64 + t, 4);  // fault: shared-race a
        COPY_COMMIT();
        sum += stage[k % 2][63 - t];  // fault: shared-race b
    }
    out[blockIdx.x * 64 + t] = sum;
}

// Registers as the stage between: loads for the next tile are under way while this one is used.
// run: grid=2 block=64 args=buf:f32:128:undef,buf:f32:1024:rand
extern "C" __global__ void register_stage(float* out, const float* in) {
    __shared__ float tile[64];
    unsigned t = threadIdx.x;
    const float* tiles = in + blockIdx.x * 512;
    float sum = 0.0f, next = tiles[t];
    for (unsigned k = 0; k < 8; ++k) {
        tile[t] = next;
        __syncthreads();
        if (k + 1 < 8) next = tiles[(k + 1) * 64 + t];
        sum += tile[63 - t];
        __syncthreads();
    }
    out[blockIdx.x * 64 + t] = sum;
}

// run: twin=register_stage grid=2 block=64 args=buf:f32:128:undef,buf:f32:1024:rand
extern "C" __global__ void register_stage_overwritten(float* out, const float* in) {
    __shared__ float tile[64];
    unsigned t = threadIdx.x;
    const float* tiles = in + blockIdx.x * 512;
    float sum = 0.0f, next = tiles[t];
    for (unsigned k = 0; k < 8; ++k) {
        tile[t] = next;  // fault: shared-race a
        __syncthreads();
        if (k + 1 < 8) next = tiles[(k + 1) * 64 + t];
        sum += tile[63 - t];  // fault: shared-race b
    }
    out[blockIdx.x * 64 + t] = sum;
}

// Two warps copy, two warps add up: "full" barriers 1 and 2, "empty" barriers 3 and 4, one pair a stage.
// run: grid=2 block=128 args=buf:f32:128:undef,buf:f32:1024:rand
extern "C" __global__ void specialised_warps(float* out, const float* in) {
    __shared__ float stage[2][64];
    unsigned t = threadIdx.x % 64;
    const float* tiles = in + blockIdx.x * 512;
    if (threadIdx.x < 64) {
        for (unsigned k = 0; k < 8; ++k) {
            BARRIER_SYNC(3 + k % 2, 128);
            COPY_ASYNC(&stage[k % 2][t], tiles + k * 64 + t, 4);
            COPY_COMMIT();
            COPY_WAIT(0);
            BARRIER_ARRIVE(1 + k % 2, 128);
        }
    } else {
        float sum = 0.0f;
        BARRIER_ARRIVE(3, 128);
        BARRIER_ARRIVE(4, 128);
        for (unsigned k = 0; k < 8; ++k) {
            BARRIER_SYNC(1 + k % 2, 128);
            sum += stage[k % 2][63 - t];
            if (k + 2 < 8) BARRIER_ARRIVE(3 + k % 2, 128);
        }
        out[blockIdx.x * 64 + t] = sum;
    }
}

// run: twin=specialised_warps grid=2 block=128 args=buf:f32:128:undef,buf:f32:1024:rand
extern "C" __global__ void specialised_warps_announce_early(float* out, const float* in) {
    __shared__ float stage[2][64];
    unsigned t = threadIdx.x % 64;
    const float* tiles = in + blockIdx.x * 512;
    if (threadIdx.x < 64) {
        for (unsigned k = 0; k < 8; ++k) {
            BARRIER_SYNC(3 + k % 2, 128);
            COPY_ASYNC(&stage[k % 2][t], tiles + k * 64 + t, 4);  // fault: unwaited-copy b
            COPY_COMMIT();
            BARRIER_ARRIVE(1 + k % 2, 128);
        }
    } else {
        float sum = 0.0f;
        BARRIER_ARRIVE(3, 128);
        BARRIER_ARRIVE(4, 128);
        for (unsigned k = 0; k < 8; ++k) {
            BARRIER_SYNC(1 + k % 2, 128);
            sum += stage[k % 2][63 - t];  // fault: unwaited-copy a
            if (k + 2 < 8) BARRIER_ARRIVE(3 + k % 2, 128);
        }
        out[blockIdx.x * 64 + t] = sum;
    }
}

// The consumers free a stage before they have read it.
// run: twin=specialised_warps grid=2 block=128 args=buf:f32:128:undef,buf:f32:1024:rand
extern "C" __global__ void specialised_warps_free_early(float* out, const float* in) {
    __shared__ float stage[2][64];
    unsigned t = threadIdx.x % 64;
    const float* tiles = in + blockIdx.x * 512;
    if (threadIdx.x < 64) {
        for (unsigned k = 0; k < 8; ++k) {
            BARRIER_SYNC(3 + k % 2, 128);
            COPY_ASYNC(&stage[k % 2][t], tiles + k * 64 + t, 4);  // fault: shared-race a
            COPY_COMMIT();
            COPY_WAIT(0);
            BARRIER_ARRIVE(1 + k % 2, 128);
        }
    } else {
        float sum = 0.0f;
        BARRIER_ARRIVE(3, 128);
        BARRIER_ARRIVE(4, 128);
        for (unsigned k = 0; k < 8; ++k) {
            BARRIER_SYNC(1 + k % 2, 128);
            if (k + 2 < 8) BARRIER_ARRIVE(3 + k % 2, 128);
            sum += stage[k % 2][63 - t];  // fault: shared-race b
        }
        out[blockIdx.x * 64 + t] = sum;
    }
}

// The stage is never flipped: the next copy goes where the present one is read.
// run: twin=two_stages grid=1 block=64 args=buf:f32:64:undef,buf:f32:512:rand
extern "C" __global__ void stage_not_flipped(float* out, const float* in) {
    __shared__ float stage[2][64];
    unsigned t = threadIdx.x;
    float sum = 0.0f;
    COPY_ASYNC(&stage[0][t], in + t, 4);
    COPY_COMMIT();
    for (unsigned k = 0; k < 4; ++k) {
        COPY_ASYNC(&stage[0][t], in + (k + 1) * 64 + t, 4);  // fault: unwaited-copy b
        COPY_COMMIT();
        COPY_WAIT(1);
        __syncthreads();
        sum += stage[0][63 - t];  // fault: unwaited-copy a
        __syncthreads();
    }
    COPY_WAIT(0);
    out[t] = sum;
}
