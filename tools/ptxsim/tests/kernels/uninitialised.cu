// Reads of global and shared memory that nobody has written.
#include <cuda_fp16.h>

#include "asm.cuh"

// run: grid=2 block=128 args=buf:f32:256:undef,buf:f32:256:rand,u32:100
extern "C" __global__ void filled_with_zeros(float* out, const float* in, unsigned n) {
    __shared__ float slot[128];
    unsigned t = threadIdx.x, first = blockIdx.x * 128;
    slot[t] = t < n ? in[first + t] : 0.0f;
    __syncthreads();
    out[first + t] = slot[127 - t];
}

// run: twin=filled_with_zeros grid=2 block=128 args=buf:f32:256:undef,buf:f32:256:rand,u32:100
extern "C" __global__ void filled_in_part(float* out, const float* in, unsigned n) {
    __shared__ float slot[128];
    unsigned t = threadIdx.x, first = blockIdx.x * 128;
    if (t < n) slot[t] = in[first + t];
    __syncthreads();
    out[first + t] = slot[127 - t];  // fault: uninitialised
}

// run: grid=2 block=64 args=buf:f32:128:undef,buf:f32:512:rand
extern "C" __global__ void accumulated(float* out, const float* in) {
    unsigned i = blockIdx.x * 64 + threadIdx.x;
    out[i] = 0.0f;
    for (unsigned k = 0; k < 4; ++k) out[i] += in[k * 128 + i];
}

// run: twin=accumulated grid=2 block=64 args=buf:f32:128:undef,buf:f32:512:rand
extern "C" __global__ void accumulated_onto_nothing(float* out, const float* in) {
    unsigned i = blockIdx.x * 64 + threadIdx.x;
    for (unsigned k = 0; k < 4; ++k) out[i] += in[k * 128 + i];  // fault: uninitialised
}

// Sums of the rows of a 32x32 tile padded to 33.
// run: grid=1 block=32 args=buf:f32:32:undef,buf:f32:1024:rand
extern "C" __global__ void row_sums(float* out, const float* in) {
    __shared__ float tile[32][33];
    unsigned t = threadIdx.x;
    for (unsigned row = 0; row < 32; ++row) tile[row][t] = in[row * 32 + t];
    __syncthreads();
    float sum = 0.0f;
    for (unsigned column = 0; column < 32; ++column) sum += tile[t][column];
    out[t] = sum;
}

// run: twin=row_sums grid=1 block=32 args=buf:f32:32:undef,buf:f32:1024:rand
extern "C" __global__ void row_sums_with_padding(float* out, const float* in) {
    __shared__ float tile[32][33];
    unsigned t = threadIdx.x;
    for (unsigned row = 0; row < 32; ++row) tile[row][t] = in[row * 32 + t];
    __syncthreads();
    float sum = 0.0f;
    for (unsigned column = 0; column < 33; ++column) sum += tile[t][column];  // fault: uninitialised
    out[t] = sum;
}

// run: grid=1 block=64 args=buf:u32:32:undef,buf:u32:256:rand
extern "C" __global__ void counted(unsigned* out, const unsigned* in) {
    __shared__ unsigned bins[32];
    unsigned t = threadIdx.x;
    if (t < 32) bins[t] = 0;
    __syncthreads();
    for (unsigned i = t; i < 256; i += 64) atomicAdd(&bins[in[i] % 32], 1u);
    __syncthreads();
    if (t < 32) out[t] = bins[t];
}

// run: twin=counted grid=1 block=64 args=buf:u32:32:zero,buf:u32:256:iota
extern "C" __global__ void counted_onto_nothing(unsigned* out, const unsigned* in) {
    __shared__ unsigned bins[32];
    unsigned t = threadIdx.x;
    for (unsigned i = t; i < 256; i += 64) atomicAdd(&bins[in[i] % 32], 1u);  // fault: uninitialised
    __syncthreads();
    if (t < 32) out[t] = bins[t];
}

// run: grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void smoothed(float* out, const float* in) {
    __shared__ float line[66];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    line[t + 1] = in[i];
    if (t == 0) line[0] = blockIdx.x > 0 ? in[i - 1] : 0.0f;
    if (t == 63) line[65] = blockIdx.x + 1 < gridDim.x ? in[i + 1] : 0.0f;
    __syncthreads();
    out[i] = line[t] + 2.0f * line[t + 1] + line[t + 2];
}

// Nobody fills the halo at the two ends of the grid.
// run: twin=smoothed grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void smoothed_past_the_ends(float* out, const float* in) {
    __shared__ float line[66];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    line[t + 1] = in[i];
    if (t == 0 && blockIdx.x > 0) line[0] = in[i - 1];
    if (t == 63 && blockIdx.x + 1 < gridDim.x) line[65] = in[i + 1];
    __syncthreads();
    out[i] = line[t] + 2.0f * line[t + 1] + line[t + 2];  // fault: uninitialised
}

// run: grid=1 block=32 args=buf:u32:128:undef,buf:f16:128:rand,u32:8
extern "C" __global__ void half_a_matrix(unsigned* out, const half* in, unsigned rows) {
    __shared__ __align__(16) half tile[16][24];
    unsigned t = threadIdx.x;
    for (unsigned i = t; i < 256; i += 32) tile[i / 16][i % 16] = i / 16 < rows ? in[i] : __float2half(0.0f);
    __syncthreads();
    unsigned r[4];
    LDMATRIX_X4(r, &tile[t % 16][t / 16 * 8]);
    for (int i = 0; i < 4; ++i) out[i * 32 + t] = r[i];
}

// run: twin=half_a_matrix grid=1 block=32 args=buf:u32:128:undef,buf:f16:128:rand,u32:8
extern "C" __global__ void half_a_matrix_unfilled(unsigned* out, const half* in, unsigned rows) {
    __shared__ __align__(16) half tile[16][24];
    unsigned t = threadIdx.x;
    for (unsigned i = t; i < rows * 16; i += 32) tile[i / 16][i % 16] = in[i];
    __syncthreads();
    unsigned r[4];
    LDMATRIX_X4(r, &tile[t % 16][t / 16 * 8]);  // fault: uninitialised
    for (int i = 0; i < 4; ++i) out[i * 32 + t] = r[i];
}

// run: grid=1 block=64 args=buf:f32:256:undef,buf:f32:64:undef,buf:f32:192:rand
extern "C" __global__ void coordinates(float* points, float* lengths, const float* in) {
    unsigned t = threadIdx.x;
    for (unsigned axis = 0; axis < 3; ++axis) points[t * 4 + axis] = in[t * 3 + axis];
    points[t * 4 + 3] = 1.0f;
    __syncthreads();
    float4 p = reinterpret_cast<const float4*>(points)[63 - t];
    lengths[t] = p.x * p.x + p.y * p.y + p.z * p.z;
}

// Three of the four elements that are read together are written.
// run: twin=coordinates grid=1 block=64 args=buf:f32:256:undef,buf:f32:64:undef,buf:f32:192:rand
extern "C" __global__ void coordinates_without_fourth(float* points, float* lengths, const float* in) {
    unsigned t = threadIdx.x;
    for (unsigned axis = 0; axis < 3; ++axis) points[t * 4 + axis] = in[t * 3 + axis];
    __syncthreads();
    float4 p = reinterpret_cast<const float4*>(points)[63 - t];  // fault: uninitialised
    lengths[t] = p.x * p.x + p.y * p.y + p.z * p.w;
}
