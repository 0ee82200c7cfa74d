// An access of N bytes stands at a multiple of N; rows of ldmatrix and 16-byte copies stand at multiples of 16.
#include <cuda_fp16.h>

#include "asm.cuh"

// run: grid=1 block=64 args=buf:f32:256:undef,buf:f32:260:rand
extern "C" __global__ void fours(float* out, const float* in) {
    unsigned i = threadIdx.x * 4;
    *reinterpret_cast<float4*>(out + i) = *reinterpret_cast<const float4*>(in + i + 4);
}

// run: twin=fours grid=1 block=64 args=buf:f32:256:undef,buf:f32:260:rand
extern "C" __global__ void fours_from_one(float* out, const float* in) {
    unsigned i = threadIdx.x * 4;
    *reinterpret_cast<float4*>(out + i) = *reinterpret_cast<const float4*>(in + i + 1);  // fault: misaligned
}

// run: twin=fours grid=1 block=64 args=buf:f32:260:undef,buf:f32:256:rand
extern "C" __global__ void fours_to_two(float* out, const float* in) {
    unsigned i = threadIdx.x * 4;
    *reinterpret_cast<float4*>(out + i + 2) = *reinterpret_cast<const float4*>(in + i);  // fault: misaligned
}

// run: grid=1 block=32 args=buf:u32:64:undef,buf:u32:66:rand
extern "C" __global__ void shared_pairs(unsigned* out, const unsigned* in) {
    __shared__ __align__(16) unsigned words[66];
    unsigned t = threadIdx.x;
    for (unsigned i = t; i < 66; i += 32) words[i] = in[i];
    __syncthreads();
    uint2 pair = *reinterpret_cast<const uint2*>(words + t * 2 + 2);
    out[t * 2] = pair.y;
    out[t * 2 + 1] = pair.x;
}

// run: twin=shared_pairs grid=1 block=32 args=buf:u32:64:zero,buf:u32:66:rand
extern "C" __global__ void shared_pairs_from_one(unsigned* out, const unsigned* in) {
    __shared__ __align__(16) unsigned words[66];
    unsigned t = threadIdx.x;
    for (unsigned i = t; i < 66; i += 32) words[i] = in[i];
    __syncthreads();
    uint2 pair = *reinterpret_cast<const uint2*>(words + t * 2 + 1);  // fault: misaligned
    out[t * 2] = pair.y;
    out[t * 2 + 1] = pair.x;
}

// A 16x16 tile, rows 24 halves apart.
// run: grid=1 block=32 args=buf:u32:128:undef,buf:f16:256:rand
extern "C" __global__ void matrix_rows(unsigned* out, const half* in) {
    __shared__ __align__(16) half tile[16][24];
    unsigned t = threadIdx.x;
    for (unsigned i = t; i < 256; i += 32) tile[i / 16][i % 16] = in[i];
    __syncthreads();
    unsigned r[4];
    LDMATRIX_X4(r, &tile[t % 16][t / 16 * 8]);
    for (int i = 0; i < 4; ++i) out[i * 32 + t] = r[i];
}

// Rows 20 halves apart: every other one starts in the middle of 16 bytes.
// run: twin=matrix_rows grid=1 block=32 args=buf:u32:128:zero,buf:f16:256:rand
extern "C" __global__ void matrix_rows_at_eights(unsigned* out, const half* in) {
    __shared__ __align__(16) half tile[16][20];
    unsigned t = threadIdx.x;
    for (unsigned i = t; i < 256; i += 32) tile[i / 16][i % 16] = in[i];
    __syncthreads();
    unsigned r[4];
    LDMATRIX_X4(r, &tile[t % 16][t / 16 * 8]);  // fault: misaligned
    for (int i = 0; i < 4; ++i) out[i * 32 + t] = r[i];
}

// run: grid=1 block=32 args=buf:f32:128:undef,buf:f32:132:rand
extern "C" __global__ void copied_sixteen(float* out, const float* in) {
    __shared__ __align__(16) float tile[132];
    unsigned t = threadIdx.x;
    COPY_ASYNC16(tile + t * 4 + 4, in + t * 4 + 4);
    COPY_COMMIT();
    COPY_WAIT(0);
    for (int i = 0; i < 4; ++i) out[t * 4 + i] = tile[t * 4 + 4 + i];
}

// run: twin=copied_sixteen grid=1 block=32 args=buf:f32:128:zero,buf:f32:132:rand
extern "C" __global__ void copied_sixteen_from_one(float* out, const float* in) {
    __shared__ __align__(16) float tile[132];
    unsigned t = threadIdx.x;
    for (int i = 0; i < 4; ++i) tile[t * 4 + 4 + i] = 0.0f;
    COPY_ASYNC16(tile + t * 4 + 4, in + t * 4 + 1);  // fault: misaligned
    COPY_COMMIT();
    COPY_WAIT(0);
    for (int i = 0; i < 4; ++i) out[t * 4 + i] = tile[t * 4 + 4 + i];
}

// run: twin=copied_sixteen grid=1 block=32 args=buf:f32:128:zero,buf:f32:132:rand
extern "C" __global__ void copied_sixteen_to_one(float* out, const float* in) {
    __shared__ __align__(16) float tile[132];
    unsigned t = threadIdx.x;
    for (int i = 0; i < 4; ++i) tile[t * 4 + 1 + i] = 0.0f;
    COPY_ASYNC16(tile + t * 4 + 1, in + t * 4 + 4);  // fault: misaligned
    COPY_COMMIT();
    COPY_WAIT(0);
    for (int i = 0; i < 4; ++i) out[t * 4 + i] = tile[t * 4 + 1 + i];
}

// run: grid=1 block=32 args=buf:u64:34:zero
extern "C" __global__ void long_counter(unsigned long long* counts) {
    atomicAdd(counts + threadIdx.x + 1, 3ull);
}

// run: twin=long_counter grid=1 block=32 args=buf:u64:34:zero
extern "C" __global__ void long_counter_on_a_half(unsigned long long* counts) {
    char* place = reinterpret_cast<char*>(counts) + 4;
    atomicAdd(reinterpret_cast<unsigned long long*>(place) + threadIdx.x + 1, 3ull);  // fault: misaligned
}

// run: grid=1 block=32 args=buf:f16:66:rand
extern "C" __global__ void doubled_half_pairs(half* values) {
    half2* pair = reinterpret_cast<half2*>(values + threadIdx.x * 2 + 2);
    half2 value = *pair;
    *pair = __hadd2(value, value);
}

// run: twin=doubled_half_pairs grid=1 block=32 args=buf:f16:66:rand
extern "C" __global__ void doubled_half_pairs_from_one(half* values) {
    half2* pair = reinterpret_cast<half2*>(values + threadIdx.x * 2 + 1);
    half2 value = *pair;             // fault: misaligned
    *pair = __hadd2(value, value);  // fault: misaligned
}
