// cp.async: a copy is done for its own thread behind a wait for its group, and for other threads behind a barrier after
// that. The tiles are zeroed first, as kernels do that leave their tails to the copies.
#include "asm.cuh"

// run: grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void copied(float* out, const float* in) {
    __shared__ float tile[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    tile[t] = 0.0f;
    __syncthreads();
    COPY_ASYNC(tile + t, in + i, 4);
    COPY_COMMIT();
    COPY_WAIT(0);
    __syncthreads();
    out[i] = tile[63 - t];
}

// run: twin=copied grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void copied_without_wait(float* out, const float* in) {
    __shared__ float tile[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    tile[t] = 0.0f;
    __syncthreads();
    COPY_ASYNC(tile + t, in + i, 4);  // fault: unwaited-copy b
    COPY_COMMIT();
    __syncthreads();
    out[i] = tile[63 - t];  // fault: unwaited-copy a
}

// run: twin=copied grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void copied_without_commit(float* out, const float* in) {
    __shared__ float tile[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    tile[t] = 0.0f;
    __syncthreads();
    COPY_ASYNC(tile + t, in + i, 4);  // fault: unwaited-copy b
    COPY_WAIT(0);
    __syncthreads();
    out[i] = tile[63 - t];  // fault: unwaited-copy a
}

// The wait covers the groups committed before it.
// run: twin=copied grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void copied_commit_after_wait(float* out, const float* in) {
    __shared__ float tile[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    tile[t] = 0.0f;
    __syncthreads();
    COPY_ASYNC(tile + t, in + i, 4);  // fault: unwaited-copy b
    COPY_WAIT(0);
    COPY_COMMIT();
    __syncthreads();
    out[i] = tile[63 - t];  // fault: unwaited-copy a
}

// run: twin=copied grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void copied_without_barrier(float* out, const float* in) {
    __shared__ float tile[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    tile[t] = 0.0f;
    __syncthreads();
    COPY_ASYNC(tile + t, in + i, 4);  // fault: shared-race a
    COPY_COMMIT();
    COPY_WAIT(0);
    out[i] = tile[63 - t];  // fault: shared-race b
}

// Each thread waits for its own copies only: behind this barrier those of the others may still be under way.
// run: twin=copied grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void copied_barrier_before_wait(float* out, const float* in) {
    __shared__ float tile[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    tile[t] = 0.0f;
    __syncthreads();
    COPY_ASYNC(tile + t, in + i, 4);  // fault: unwaited-copy b, shared-race a
    COPY_COMMIT();
    __syncthreads();
    COPY_WAIT(0);
    out[i] = tile[63 - t];  // fault: unwaited-copy a, shared-race b
}

// run: grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void copied_for_itself(float* out, const float* in) {
    __shared__ float tile[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    COPY_ASYNC(tile + t, in + i, 4);
    COPY_WAIT_ALL();
    out[i] = tile[t];
}

// run: twin=copied_for_itself grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void copied_for_itself_without_wait(float* out, const float* in) {
    __shared__ float tile[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    COPY_ASYNC(tile + t, in + i, 4);  // fault: unwaited-copy b
    COPY_COMMIT();
    out[i] = tile[t];  // fault: unwaited-copy a
}

// A tail of 54 elements: what lies past it is filled with zeros by the copy itself.
// run: grid=1 block=16 args=buf:f32:64:undef,buf:f32:56:rand,u32:54
extern "C" __global__ void copied_tail(float* out, const float* in, unsigned n) {
    __shared__ __align__(16) float tile[64];
    unsigned t = threadIdx.x, i = t * 4;
    unsigned left = i < n ? min(n - i, 4) * 4 : 0;
    COPY_ASYNC16_FIRST(tile + i, left ? in + i : in, left);
    COPY_COMMIT();
    COPY_WAIT(0);
    __syncthreads();
    for (unsigned k = t; k < 64; k += 16) out[k] = tile[63 - k];
}

// run: twin=copied_tail grid=1 block=16 args=buf:f32:64:undef,buf:f32:54:rand,u32:54
extern "C" __global__ void copied_tail_in_full(float* out, const float* in, unsigned n) {
    __shared__ __align__(16) float tile[64];
    unsigned t = threadIdx.x, i = t * 4;
    for (int k = 0; k < 4; ++k) tile[i + k] = 0.0f;
    if (i < n) COPY_ASYNC16(tile + i, in + i);  // fault: out-of-bounds
    COPY_COMMIT();
    COPY_WAIT(0);
    __syncthreads();
    for (unsigned k = t; k < 64; k += 16) out[k] = tile[63 - k];
}

// run: twin=copied_tail grid=1 block=16 args=buf:f32:64:undef,buf:f32:56:rand,u32:54
extern "C" __global__ void copied_tail_unfilled(float* out, const float* in, unsigned n) {
    __shared__ __align__(16) float tile[64];
    unsigned t = threadIdx.x, i = t * 4;
    if (i < n) COPY_ASYNC16(tile + i, in + i);
    COPY_COMMIT();
    COPY_WAIT(0);
    __syncthreads();
    for (unsigned k = t; k < 64; k += 16) out[k] = tile[63 - k];  // fault: uninitialised
}

// A plain store to where a copy of the same thread is under way.
// run: grid=1 block=32 args=buf:f32:32:undef,buf:f32:32:rand
extern "C" __global__ void copied_then_masked(float* out, const float* in) {
    __shared__ float tile[32];
    unsigned t = threadIdx.x;
    COPY_ASYNC(tile + t, in + t, 4);
    COPY_COMMIT();
    COPY_WAIT(0);
    if (t % 4 == 3) tile[t] = 0.0f;
    __syncthreads();
    out[t] = tile[31 - t];
}

// run: twin=copied_then_masked grid=1 block=32 args=buf:f32:32:undef,buf:f32:32:rand
extern "C" __global__ void copied_and_masked_at_once(float* out, const float* in) {
    __shared__ float tile[32];
    unsigned t = threadIdx.x;
    COPY_ASYNC(tile + t, in + t, 4);  // fault: unwaited-copy b
    COPY_COMMIT();
    if (t % 4 == 3) tile[t] = 0.0f;  // fault: unwaited-copy a
    COPY_WAIT(0);
    __syncthreads();
    out[t] = tile[31 - t];
}

// The source of a copy is its own again behind the wait.
// run: grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void source_used_again(float* out, float* in) {
    __shared__ float tile[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    in[i] += 1.0f;
    __syncthreads();
    COPY_ASYNC(tile + t, in + blockIdx.x * 64 + 63 - t, 4);
    COPY_COMMIT();
    COPY_WAIT(0);
    __syncthreads();
    in[i] = 0.0f;
    out[i] = tile[t];
}

// run: twin=source_used_again grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void source_used_again_by_its_thread(float* out, float* in) {
    __shared__ float tile[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    in[i] += 1.0f;
    COPY_ASYNC(tile + t, in + i, 4);  // fault: unwaited-copy b
    COPY_COMMIT();
    in[i] = 0.0f;  // fault: unwaited-copy a
    COPY_WAIT(0);
    __syncthreads();
    out[i] = tile[63 - t];
}

// The barrier orders the issue of the copy before the store, and not its reading.
// run: twin=source_used_again grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void source_used_again_behind_a_barrier(float* out, float* in) {
    __shared__ float tile[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    in[i] += 1.0f;
    __syncthreads();
    COPY_ASYNC(tile + t, in + blockIdx.x * 64 + 63 - t, 4);  // fault: unwaited-copy b
    COPY_COMMIT();
    __syncthreads();
    in[i] = 0.0f;  // fault: unwaited-copy a
    __syncthreads();
    COPY_WAIT(0);
    out[i] = tile[t];
}

// run: twin=source_used_again grid=1 block=32 args=buf:f32:128:undef,buf:f32:32:undef
extern "C" __global__ void source_written_in_a_loop_of_copies(float* out, float* staging) {
    __shared__ float tile[128];
    unsigned t = threadIdx.x;
#pragma unroll 1
    for (unsigned k = 0; k < 4; ++k) {
        staging[t] = k;                               // fault: unwaited-copy a
        COPY_ASYNC(tile + 32 * k + t, staging + t, 4);  // fault: unwaited-copy b
        COPY_COMMIT();
    }
    COPY_WAIT(0);
    for (unsigned k = 0; k < 4; ++k) out[32 * k + t] = tile[32 * k + t];
}
