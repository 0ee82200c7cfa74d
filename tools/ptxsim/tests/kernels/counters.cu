// What the counters must say, counted by hand. tests/counters.rs launches each entry (one block of 32 threads, or as `// launch:`
// says; two buffers of 32 KiB) and compares the sums over the instructions of a line with the comment that ends it.
//
// Shared memory has 32 banks of 4 bytes, 128 bytes a pass (wavefront). Lanes at one word share a pass; lanes at different words
// of one bank need one each. Accesses of 8 bytes go by half warps, of 16 bytes by quarters. `ideal` is what the same bytes need
// without conflicts. Global memory moves in sectors of 32 bytes: as many as the addresses of a warp touch.
// flops are those of a full warp: two for each multiply-add of 32 lanes; 2 M N K of a matrix product.
#include <cuda_fp16.h>

#include "asm.cuh"

// ---- shared memory ----

extern "C" __global__ void shared_stride_1(float* out, const float* in) {
    __shared__ float tile[32];
    unsigned t = threadIdx.x;
    tile[t] = 1.0f;  // count: wavefronts=1 ideal=1 bytes=128 lanes=32
    __syncthreads();
    float value = tile[t];  // count: wavefronts=1 ideal=1 bytes=128 lanes=32
    out[t] = value;         // count: sectors=4 bytes=128
}

extern "C" __global__ void shared_reversed(float* out, const float* in) {
    __shared__ float tile[32];
    unsigned t = threadIdx.x;
    tile[t] = 1.0f;
    __syncthreads();
    float value = tile[31 - t];  // count: wavefronts=1 ideal=1
    out[t] = value;
}

// Lanes t and t + 16 share a bank.
extern "C" __global__ void shared_stride_2(float* out, const float* in) {
    __shared__ float tile[64];
    unsigned t = threadIdx.x;
    tile[t] = 1.0f;
    tile[t + 32] = 1.0f;
    __syncthreads();
    float value = tile[t * 2];  // count: wavefronts=2 ideal=1
    out[t] = value;
}

// 3 and 32 have no common factor.
extern "C" __global__ void shared_stride_3(float* out, const float* in) {
    __shared__ float tile[96];
    unsigned t = threadIdx.x;
    tile[t] = 1.0f, tile[t + 32] = 1.0f, tile[t + 64] = 1.0f;
    __syncthreads();
    float value = tile[t * 3];  // count: wavefronts=1 ideal=1
    out[t] = value;
}

// A column of a 32x32 tile: all lanes in one bank.
extern "C" __global__ void shared_stride_32(float* out, const float* in) {
    __shared__ float tile[32][32];
    unsigned t = threadIdx.x;
    tile[t][0] = 1.0f;  // count: wavefronts=32 ideal=1 bytes=128
    __syncthreads();
    float value = tile[31 - t][0];  // count: wavefronts=32 ideal=1 bytes=128
    out[t] = value;
}

extern "C" __global__ void shared_stride_33(float* out, const float* in) {
    __shared__ float tile[32][33];
    unsigned t = threadIdx.x;
    tile[t][0] = 1.0f;  // count: wavefronts=1 ideal=1 bytes=128
    __syncthreads();
    float value = tile[31 - t][0];  // count: wavefronts=1 ideal=1 bytes=128
    out[t] = value;
}

extern "C" __global__ void shared_broadcast(float* out, const float* in) {
    __shared__ float tile[32];
    unsigned t = threadIdx.x;
    tile[t] = 1.0f;
    __syncthreads();
    float value = tile[*in == 0.0f ? 7 : 5];  // count: wavefronts=1 ideal=1
    out[t] = value;
}

// Four words, each wanted by eight lanes.
extern "C" __global__ void shared_four_words(float* out, const float* in) {
    __shared__ float tile[32];
    unsigned t = threadIdx.x;
    tile[t] = 1.0f;
    __syncthreads();
    float value = tile[t / 8];  // count: wavefronts=1 ideal=1
    out[t] = value;
}

// Half the lanes, two words apart: sixteen different banks.
extern "C" __global__ void shared_half_of_the_lanes(float* out, const float* in) {
    __shared__ float tile[32];
    unsigned t = threadIdx.x;
    tile[t] = 1.0f;
    __syncthreads();
    if (t < 16) {
        float value = tile[t * 2];  // count: wavefronts=1 ideal=1 bytes=64 lanes=16
        out[t] = value;             // count: sectors=2 bytes=64 lanes=16
    }
}

// 16 bytes a lane: eight lanes a pass.
extern "C" __global__ void shared_fours(float* out, const float* in) {
    __shared__ float4 tile[32];
    unsigned t = threadIdx.x;
    tile[t] = make_float4(1.0f, 2.0f, 3.0f, 4.0f);  // count: wavefronts=4 ideal=4 bytes=512
    __syncthreads();
    float4 value = tile[31 - t];  // count: wavefronts=4 ideal=4 bytes=512
    out[t] = value.x + value.y + value.z + value.w;
}

// Rows of 128 bytes, the first 16 of each: the eight lanes of a quarter in the same four banks.
extern "C" __global__ void shared_fours_down_a_column(float* out, const float* in) {
    __shared__ float4 tile[32][8];
    unsigned t = threadIdx.x;
    tile[t][0] = make_float4(1.0f, 2.0f, 3.0f, 4.0f);  // count: wavefronts=32 ideal=4
    __syncthreads();
    float4 value = tile[31 - t][0];  // count: wavefronts=32 ideal=4
    out[t] = value.x + value.y + value.z + value.w;
}

// The same column with its place in the row swapped by the row's number.
extern "C" __global__ void shared_fours_swizzled(float* out, const float* in) {
    __shared__ float4 tile[32][8];
    unsigned t = threadIdx.x;
    tile[t][t % 8] = make_float4(1.0f, 2.0f, 3.0f, 4.0f);  // count: wavefronts=4 ideal=4
    __syncthreads();
    float4 value = tile[31 - t][(31 - t) % 8];  // count: wavefronts=4 ideal=4
    out[t] = value.x + value.y + value.z + value.w;
}

// 8 bytes a lane: sixteen lanes a pass; every other pair: two passes for each half of the warp.
extern "C" __global__ void shared_pairs(float* out, const float* in) {
    __shared__ float2 tile[64];
    unsigned t = threadIdx.x;
    tile[t] = make_float2(1.0f, 2.0f);       // count: wavefronts=2 ideal=2 bytes=256
    tile[t + 32] = make_float2(1.0f, 2.0f);  // count: wavefronts=2 ideal=2 bytes=256
    __syncthreads();
    float2 near = tile[63 - t];  // count: wavefronts=2 ideal=2
    float2 far = tile[t * 2];    // count: wavefronts=4 ideal=2
    out[t] = near.x + near.y + far.x + far.y;
}

// Two lanes in one word; 64 bytes in all.
extern "C" __global__ void shared_halves(half* out, const half* in) {
    __shared__ half tile[32];
    unsigned t = threadIdx.x;
    tile[t] = __float2half(1.0f);  // count: wavefronts=1 ideal=1 bytes=64
    __syncthreads();
    half value = tile[31 - t];  // count: wavefronts=1 ideal=1 bytes=64
    out[t] = value;             // count: sectors=2 bytes=64
}

// ---- ldmatrix: a pass for each 8x8 matrix, if its eight rows of 16 bytes lie in different banks ----

// Rows 128 bytes apart: all in the same banks.
extern "C" __global__ void ldmatrix_rows_of_128(unsigned* out, const float* in) {
    __shared__ __align__(128) uint4 tile[32][8];
    unsigned t = threadIdx.x, r[4];
    for (unsigned k = 0; k < 8; ++k) tile[k * 4 + t / 8][t % 8] = make_uint4(1, 2, 3, 4);
    __syncthreads();
    LDMATRIX_X4(r, &tile[t][0]);  // count: wavefronts=32 ideal=4 bytes=512
    out[t] = r[0] + r[1] + r[2] + r[3];
}

// The same with 16-byte places swapped by the row's number.
extern "C" __global__ void ldmatrix_swizzled(unsigned* out, const float* in) {
    __shared__ __align__(128) uint4 tile[32][8];
    unsigned t = threadIdx.x, r[4];
    for (unsigned k = 0; k < 8; ++k) tile[k * 4 + t / 8][t % 8] = make_uint4(1, 2, 3, 4);
    __syncthreads();
    LDMATRIX_X4(r, &tile[t][t % 8]);  // count: wavefronts=4 ideal=4 bytes=512
    out[t] = r[0] + r[1] + r[2] + r[3];
}

// Rows 64 bytes apart: every other row in the same banks.
extern "C" __global__ void ldmatrix_rows_of_64(unsigned* out, const float* in) {
    __shared__ __align__(128) uint4 tile[32][4];
    unsigned t = threadIdx.x, r[4];
    for (unsigned k = 0; k < 4; ++k) tile[k * 8 + t / 4][t % 4] = make_uint4(1, 2, 3, 4);
    __syncthreads();
    LDMATRIX_X4(r, &tile[t][0]);  // count: wavefronts=16 ideal=4
    out[t] = r[0] + r[1] + r[2] + r[3];
}

// Rows 48 bytes apart start at banks 0, 12, 24, 4, 16, 28, 8, 20.
extern "C" __global__ void ldmatrix_rows_of_48(unsigned* out, const float* in) {
    __shared__ __align__(128) uint4 tile[32][3];
    unsigned t = threadIdx.x, r[4], pair[2];
    for (unsigned k = 0; k < 3; ++k) tile[t][k] = make_uint4(1, 2, 3, 4);
    __syncthreads();
    LDMATRIX_X4(r, &tile[t][0]);                   // count: wavefronts=4 ideal=4
    LDMATRIX_X2_TRANSPOSED(pair, &tile[t % 16][1]);  // count: wavefronts=2 ideal=2 bytes=256
    out[t] = r[0] + r[1] + r[2] + r[3] + pair[0] + pair[1];
}

// ---- global memory ----

extern "C" __global__ void global_coalesced(float* out, const float* in) {
    unsigned t = threadIdx.x;
    float value = in[t];  // count: sectors=4 bytes=128 lanes=32
    out[t] = value;       // count: sectors=4 bytes=128 lanes=32
}

extern "C" __global__ void global_reversed(float* out, const float* in) {
    unsigned t = threadIdx.x;
    float value = in[31 - t];  // count: sectors=4
    out[t ^ 5] = value;        // count: sectors=4
}

extern "C" __global__ void global_from_one(float* out, const float* in) {
    unsigned t = threadIdx.x;
    float value = in[t + 1];  // count: sectors=5 bytes=128
    out[t + 7] = value;       // count: sectors=5 bytes=128
}

extern "C" __global__ void global_strided(float* out, const float* in) {
    unsigned t = threadIdx.x;
    float by_2 = in[t * 2];    // count: sectors=8 bytes=128
    float by_8 = in[t * 8];    // count: sectors=32 bytes=128
    float by_32 = in[t * 32];  // count: sectors=32 bytes=128
    out[t * 4] = by_2;         // count: sectors=16
    out[t * 4 + 1] = by_8;
    out[t * 4 + 2] = by_32;
}

extern "C" __global__ void global_fours(float4* out, const float4* in) {
    unsigned t = threadIdx.x;
    float4 value = in[t];  // count: sectors=16 bytes=512
    value.x += 1.0f;
    out[t] = value;  // count: sectors=16 bytes=512
}

extern "C" __global__ void global_broadcast(float* out, const float* in) {
    unsigned t = threadIdx.x;
    float value = in[blockIdx.x];  // count: sectors=1 bytes=128
    out[t] = value;
}

extern "C" __global__ void global_narrow(unsigned char* out, const unsigned short* in) {
    unsigned t = threadIdx.x;
    unsigned short value = in[t];                 // count: sectors=2 bytes=64
    out[t] = static_cast<unsigned char>(value);  // count: sectors=1 bytes=32
}

extern "C" __global__ void global_doubles(double* out, const double* in) {
    unsigned t = threadIdx.x;
    double value = in[t];  // count: sectors=8 bytes=256
    out[t] = value;        // count: sectors=8 bytes=256
}

extern "C" __global__ void global_some_lanes(float* out, const float* in) {
    unsigned t = threadIdx.x;
    if (t % 4 == 0) {
        float value = in[t];  // count: sectors=4 bytes=32 lanes=8
        out[t / 4] = value;   // count: sectors=1 bytes=32 lanes=8
    }
}

extern "C" __global__ void global_atomics(unsigned* out, const float* in) {
    ATOMIC_ADD(out + threadIdx.x, 1u);  // count: sectors=4 bytes=128 lanes=32
}

extern "C" __global__ void global_copies(float* out, const float* in) {
    __shared__ __align__(16) float tile[160];
    unsigned t = threadIdx.x;
    COPY_ASYNC16(tile + t * 4, in + t * 4);      // count: sectors=16 bytes=512 lanes=32
    COPY_ASYNC(tile + 128 + t, in + 128 + t, 4);  // count: sectors=4 bytes=128 lanes=32
    COPY_WAIT_ALL();
    out[t] = tile[t * 4] + tile[128 + t];
}

// Eight warps; each block reads the same 256 bytes: 8 sectors' worth from memory, 4 blocks' worth of requests.
// launch: grid=4 block=64
extern "C" __global__ void read_by_every_block(float* out, const float* in) {
    unsigned t = threadIdx.x;
    float value = in[t];             // count: sectors=32 bytes=1024 lanes=256
    out[blockIdx.x * 64 + t] = value;  // count: sectors=32 bytes=1024 lanes=256
}

// ---- arithmetic ----

extern "C" __global__ void float_arithmetic(float* out, const float* in) {
    unsigned t = threadIdx.x;
    float a = in[t], b = in[t + 32];
    float product = fmaf(a, b, 1.0f);  // count: flops=64
    float sum = product + b;           // count: flops=32
    out[t] = sum;
}

// 2 x 16 x 8 x 16.
extern "C" __global__ void tensor_f16(float* out, const unsigned* in) {
    unsigned t = threadIdx.x;
    unsigned a[4] = {in[t], in[t + 32], in[t + 64], in[t + 96]}, b[2] = {in[t + 128], in[t + 160]};
    float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    MMA_16816(d, a, b);  // count: flops=4096
    out[t] = d[0] + d[1] + d[2] + d[3];
}

// 2 x 16 x 8 x 8, by six warps.
// launch: grid=3 block=64
extern "C" __global__ void tensor_tf32(float* out, const unsigned* in) {
    unsigned t = threadIdx.x;
    unsigned a[4] = {in[t], in[t + 32], in[t + 64], in[t + 96]}, b[2] = {in[t + 128], in[t + 160]};
    float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    MMA_1688_TF32(d, a, b);  // count: flops=12288
    out[blockIdx.x * 64 + t] = d[0] + d[1] + d[2] + d[3];
}
