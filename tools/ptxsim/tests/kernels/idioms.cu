// Clean kernels of other common idioms: no report may come of these.
#include <cuda_fp16.h>

#include "asm.cuh"

// One 16x16x8 tile product on the tensor cores, from tiles in shared memory.
// run: grid=1 block=32 args=buf:f32:128:undef,buf:f16:256:rand,buf:f16:128:rand
extern "C" __global__ void tile_product(float* out, const half* a, const half* b) {
    __shared__ __align__(16) half a_tile[16][24], b_tile[16][8];
    unsigned t = threadIdx.x;
    for (unsigned i = t; i < 256; i += 32) a_tile[i / 16][i % 16] = a[i];
    for (unsigned i = t; i < 128; i += 32) b_tile[i / 8][i % 8] = b[i];
    __syncwarp();
    unsigned a_part[4], b_part[2];
    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    LDMATRIX_X4(a_part, &a_tile[t % 16][t / 16 * 8]);
    LDMATRIX_X2_TRANSPOSED(b_part, &b_tile[t % 16][0]);
    MMA_16816(sums, a_part, b_part);
    unsigned row = t / 4, column = t % 4 * 2;
    for (unsigned i = 0; i < 4; ++i) out[(row + i / 2 * 8) * 8 + column + i % 2] = sums[i];
}

// A pointer that is to shared memory for some lanes and to global memory for others.
// run: grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand,u32:48
extern "C" __global__ void either_memory(float* out, const float* in, unsigned n) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    slot[t] = in[i] * 2.0f;
    __syncthreads();
    const float* from = (t + n) % 3 ? slot + 63 - t : in + i;
    out[i] = *from;
}

// run: grid=1 block=32 args=buf:f32:32:undef,buf:f32:512:rand,u32:16
extern "C" __global__ void sorted_locally(float* out, const float* in, unsigned n) {
    float own[16];
    for (unsigned i = 0; i < n; ++i) {
        float value = in[threadIdx.x * 16 + i];
        unsigned k = i;
        for (; k > 0 && own[k - 1] > value; --k) own[k] = own[k - 1];
        own[k] = value;
    }
    out[threadIdx.x] = own[n / 2];
}

// Neighbouring bytes, and neighbouring halves, of one word belong to different threads.
// run: grid=2 block=64 args=buf:u8:128:undef,buf:f16:128:undef
extern "C" __global__ void neighbouring_bytes(unsigned char* bytes, half* halves) {
    __shared__ unsigned char slot[64];
    unsigned t = threadIdx.x, i = blockIdx.x * 64 + t;
    slot[t] = static_cast<unsigned char>(t * 3);
    halves[i] = __float2half(static_cast<float>(t));
    __syncthreads();
    bytes[i] = slot[63 - t];
}

// run: grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void read_by_all(float* out, const float* in) {
    __shared__ float first;
    unsigned i = blockIdx.x * 64 + threadIdx.x;
    if (threadIdx.x == 0) first = in[0];
    __syncthreads();
    out[i] = in[i] - first + in[127];
}

// run: grid=2 block=32 args=buf:f32:512:undef,buf:f32:512:rand,buf:f16:512:rand
extern "C" __global__ void wide_loads(float* out, const float* in, const half* scale) {
    unsigned i = (blockIdx.x * 32 + threadIdx.x) * 8;
    float4 low = *reinterpret_cast<const float4*>(in + i), high = *reinterpret_cast<const float4*>(in + i + 4);
    uint4 packed = *reinterpret_cast<const uint4*>(scale + i);
    const half2* pairs = reinterpret_cast<const half2*>(&packed);
    float2 s0 = __half22float2(pairs[0]), s1 = __half22float2(pairs[1]);
    float2 s2 = __half22float2(pairs[2]), s3 = __half22float2(pairs[3]);
    *reinterpret_cast<float4*>(out + i) = make_float4(low.x * s0.x, low.y * s0.y, low.z * s1.x, low.w * s1.y);
    *reinterpret_cast<float4*>(out + i + 4) = make_float4(high.x * s2.x, high.y * s2.y, high.z * s3.x, high.w * s3.y);
}

// run: grid=3,2 block=64 args=buf:f32:1000:undef,buf:f32:1000:rand,u32:1000
extern "C" __global__ void grid_of_two_dimensions(float* out, const float* in, unsigned n) {
    unsigned blocks = gridDim.x * gridDim.y, block = blockIdx.y * gridDim.x + blockIdx.x;
    for (unsigned i = block * blockDim.x + threadIdx.x; i < n; i += blocks * blockDim.x) out[i] = fmaxf(in[i], 0.0f);
}

// Mean and deviation of rows, a warp a row, and two values that pass between warps through shared memory.
// run: grid=4 block=128 args=buf:f32:512:undef,buf:f32:512:rand
extern "C" __global__ void normalised(float* out, const float* in) {
    __shared__ float sums[2][4];
    unsigned t = threadIdx.x, i = blockIdx.x * 128 + t;
    float value = in[i], sum = value, squares = value * value;
    for (int offset = 16; offset > 0; offset /= 2) {
        sum += __shfl_xor_sync(0xffffffff, sum, offset);
        squares += __shfl_xor_sync(0xffffffff, squares, offset);
    }
    if (t % 32 == 0) sums[0][t / 32] = sum, sums[1][t / 32] = squares;
    __syncthreads();
    sum = sums[0][0] + sums[0][1] + sums[0][2] + sums[0][3];
    squares = sums[1][0] + sums[1][1] + sums[1][2] + sums[1][3];
    float mean = sum / 128.0f;
    out[i] = (value - mean) * rsqrtf(squares / 128.0f - mean * mean + 1e-5f);
}

// A function that is not inlined, and a table in constant memory.
__constant__ float weights[4] = {0.1f, 0.2f, 0.3f, 0.4f};

__device__ __noinline__ float weighted(const float* values, unsigned count) {
    float sum = 0.0f;
    for (unsigned i = 0; i < count; ++i) sum += weights[i] * values[i];
    return sum;
}

// run: grid=2 block=32 args=buf:f32:64:undef,buf:f32:67:rand
extern "C" __global__ void convolved(float* out, const float* in) {
    unsigned i = blockIdx.x * 32 + threadIdx.x;
    out[i] = weighted(in + i, i % 2 ? 4 : 3);
}

// Lanes leave a loop one after another, and a switch parts them four ways.
// run: grid=1 block=64 args=buf:u32:64:undef,u32:7
extern "C" __global__ void uneven_work(unsigned* out, unsigned seed) {
    unsigned t = threadIdx.x, state = seed + t * 2654435761u, steps = 0;
    while (state % 16 != 3 && steps < 100) {
        switch (state % 5) {
            case 0: state = state * 3 + 1; break;
            case 1: state = state ^ state >> 5; break;
            case 2: state += t; break;
            case 3:
                if (t % 2) {
                    state += 7;
                    continue;
                }
            default: state = state * 1664525u + 1013904223u;
        }
        ++steps;
        if (steps > 50 && t % 3 == 0) break;
    }
    out[t] = steps;
}

// Conditions told to all threads by the barrier itself.
// run: grid=2 block=64 args=buf:u32:6:undef,buf:f32:128:rand
extern "C" __global__ void counted_by_barrier(unsigned* out, const float* in) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x;
    slot[t] = in[blockIdx.x * 64 + t];
    int high = __syncthreads_count(slot[t] > 0.25f);
    int any = __syncthreads_or(slot[63 - t] > 0.9f), all = __syncthreads_and(slot[t ^ 32] > -2.0f);
    if (t == 0) out[blockIdx.x * 3] = high, out[blockIdx.x * 3 + 1] = any, out[blockIdx.x * 3 + 2] = all;
}

// A flag in shared memory hands a value from one warp to another without a barrier.
// run: grid=2 block=64 args=buf:f32:64:undef,buf:f32:64:rand
extern "C" __global__ void flag_between_warps(float* out, const float* in) {
    __shared__ float slot[32];
    __shared__ unsigned flag;
    unsigned t = threadIdx.x;
    if (t == 0) flag = 0;
    __syncthreads();
    if (t < 32) {
        slot[t] = in[blockIdx.x * 32 + t];
        __syncwarp();
        if (t == 0) {
            __threadfence_block();
            atomicExch(&flag, 1u);
        }
    } else {
        if (t == 32) {
            while (atomicAdd(&flag, 0u) == 0) {
            }
            __threadfence_block();
        }
        __syncwarp();
        out[blockIdx.x * 32 + t - 32] = slot[63 - t];
    }
}

// The same with a volatile flag: between warps it is as good as an atomic.
// run: grid=2 block=64 args=buf:f32:64:undef,buf:f32:64:rand
extern "C" __global__ void volatile_flag_between_warps(float* out, const float* in) {
    __shared__ float slot[32];
    __shared__ volatile unsigned flag;
    unsigned t = threadIdx.x;
    if (t == 0) flag = 0;
    __syncthreads();
    if (t < 32) {
        slot[t] = in[blockIdx.x * 32 + t];
        __syncwarp();
        if (t == 0) {
            __threadfence_block();
            flag = 1;
        }
    } else {
        if (t == 32) {
            while (flag == 0) {
            }
            __threadfence_block();
        }
        __syncwarp();
        out[blockIdx.x * 32 + t - 32] = slot[63 - t];
    }
}

// A tile of 16-byte places, swapped by the number of their row, brought in by asynchronous copies and read by columns.
// run: grid=2 block=64 args=buf:f32:2048:undef,buf:f32:2048:rand
extern "C" __global__ void swizzled_tile(float* out, const float* in) {
    __shared__ __align__(128) float4 tile[32][8];
    unsigned t = threadIdx.x, first = blockIdx.x * 1024;
    for (unsigned place = t; place < 256; place += 64) {
        unsigned row = place / 8, column = place % 8;
        COPY_ASYNC16(&tile[row][column ^ row % 8], in + first + place * 4);
    }
    COPY_COMMIT();
    COPY_WAIT(0);
    __syncthreads();
    for (unsigned place = t; place < 256; place += 64) {
        unsigned row = place % 32, column = place / 32;
        float4 four = tile[row][column ^ row % 8];
        float* to = out + first + column * 128 + row;
        to[0] = four.x, to[32] = four.y, to[64] = four.z, to[96] = four.w;
    }
}

// A sum over the warps of a block: one warp waits for the others at a barrier to which they only arrive.
// run: grid=2 block=128 args=buf:f32:2:undef,buf:f32:256:rand
extern "C" __global__ void gathered_by_one_warp(float* out, const float* in) {
    __shared__ float sums[4];
    unsigned t = threadIdx.x;
    float sum = in[blockIdx.x * 128 + t];
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(0xffffffff, sum, offset);
    if (t % 32 == 0) sums[t / 32] = sum;
    __syncwarp();
    if (t >= 32) {
        BARRIER_ARRIVE(7, 128);
        return;
    }
    BARRIER_SYNC(7, 128);
    if (t == 0) out[blockIdx.x] = sums[0] + sums[1] + sums[2] + sums[3];
}

// The highest value by compare-and-swap on its bits.
// run: grid=2 block=64 args=buf:f32:2:zero,buf:f32:128:rand
extern "C" __global__ void highest_by_exchange(float* out, const float* in) {
    __shared__ unsigned bits;
    unsigned t = threadIdx.x;
    if (t == 0) bits = __float_as_uint(-2.0f);
    __syncthreads();
    float value = in[blockIdx.x * 64 + t];
    unsigned seen = atomicAdd(&bits, 0u);
    while (__uint_as_float(seen) < value) {
        unsigned before = atomicCAS(&bits, seen, __float_as_uint(value));
        if (before == seen) break;
        seen = before;
    }
    __syncthreads();
    if (t == 0) out[blockIdx.x] = __uint_as_float(bits);
}

// Places in a list are handed out one atomic a warp.
// run: grid=2 block=64 args=buf:u32:1:zero,buf:u32:128:zero,buf:u32:128:rand
// order: the warp that comes first gets the first places
extern "C" __global__ void appended(unsigned* length, unsigned* list, const unsigned* in) {
    unsigned i = blockIdx.x * 64 + threadIdx.x, lane = threadIdx.x % 32, start = 0;
    bool chosen = in[i] % 3 == 0;
    unsigned ballot = __ballot_sync(0xffffffff, chosen);
    if (lane == 0) start = atomicAdd(length, __popc(ballot));
    start = __shfl_sync(0xffffffff, start, 0);
    if (chosen) list[start + __popc(ballot & ((1u << lane) - 1))] = in[i];
}

// Blocks draw their tiles from a common counter until none are left.
// run: grid=3 block=32 args=buf:f32:320:undef,buf:u32:1:zero,buf:f32:320:rand
extern "C" __global__ void drawn_tiles(float* out, unsigned* drawn, const float* in) {
    __shared__ unsigned tile;
    for (;;) {
        if (threadIdx.x == 0) tile = atomicAdd(drawn, 1u);
        __syncthreads();
        unsigned own = tile;
        __syncthreads();
        if (own >= 10) return;
        out[own * 32 + threadIdx.x] = in[own * 32 + threadIdx.x] * 0.5f;
    }
}

// Two arrays of different types cut from dynamic shared memory, and the first used again as the other type.
// run: grid=1 block=64 shared=384 args=buf:u32:64:undef,buf:f32:64:rand
extern "C" __global__ void cut_and_used_again(unsigned* out, const float* in) {
    extern __shared__ __align__(16) unsigned char room[];
    float* values = reinterpret_cast<float*>(room);
    unsigned short* ranks = reinterpret_cast<unsigned short*>(room + 256);
    unsigned t = threadIdx.x, rank = 0;
    values[t] = in[t];
    __syncthreads();
    for (unsigned k = 0; k < 64; ++k) rank += values[k] < values[t] || (values[k] == values[t] && k < t);
    ranks[t] = rank;
    __syncthreads();
    unsigned* order = reinterpret_cast<unsigned*>(room);
    order[ranks[63 - t]] = 63 - t;
    __syncthreads();
    out[t] = order[t];
}

// Copies of 4, 8 and 16 bytes, committed in one group.
// run: grid=1 block=32 args=buf:f32:128:undef,buf:f32:224:rand
extern "C" __global__ void copies_of_all_sizes(float* out, const float* in) {
    __shared__ __align__(16) float tile[224];
    unsigned t = threadIdx.x;
    COPY_ASYNC(tile + t, in + t, 4);
    COPY_ASYNC(tile + 32 + t * 2, in + 32 + t * 2, 8);
    COPY_ASYNC(tile + 96 + t * 4, in + 96 + t * 4, 16);
    COPY_COMMIT();
    COPY_WAIT(0);
    __syncthreads();
    for (int k = 0; k < 4; ++k) out[t * 4 + k] = tile[31 - t] + tile[95 - t] + tile[223 - t * 4 - k];
}

// Segments of eight lanes, and a block whose last warp is not full.
// run: grid=2 block=72 args=buf:f32:144:undef,buf:f32:144:rand
extern "C" __global__ void segments_of_eight(float* out, const float* in) {
    unsigned i = blockIdx.x * 72 + threadIdx.x;
    unsigned present = threadIdx.x < 64 ? 0xffffffff : 0xff;
    float value = in[i];
    for (unsigned step = 1; step < 8; step *= 2) {
        float before = __shfl_up_sync(present, value, step, 8);
        if (threadIdx.x % 8 >= step) value += before;
    }
    out[i] = value;
}

// Loads past the coherent caches, and sums in double precision.
// run: grid=2 block=64 args=buf:f64:1:zero,buf:f32:1000:rand,u32:1000
extern "C" __global__ void summed_in_double(double* __restrict__ out, const float* __restrict__ in, unsigned n) {
    double sum = 0.0;
    for (unsigned i = blockIdx.x * 64 + threadIdx.x; i < n; i += 128) sum += in[i];
    for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(0xffffffff, sum, offset);
    if (threadIdx.x % 32 == 0) atomicAdd(out, sum);
}

// An exchange through shared memory in which every reader is its own writer: no barrier is due.
// run: grid=2 block=64 args=buf:f32:512:undef,buf:f32:512:rand
extern "C" __global__ void own_column(float* out, const float* in) {
    __shared__ float column[4][64];
    unsigned t = threadIdx.x, first = blockIdx.x * 256 + t;
    for (unsigned k = 0; k < 4; ++k) column[k][t] = in[first + k * 64];
    for (unsigned k = 0; k < 4; ++k) out[first + k * 64] = column[3 - k][t];
}

// A branch on the index of the warp, and a barrier for those who took it.
// run: grid=1 block=128 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void barrier_for_some_warps(float* out, const float* in) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x;
    float value = in[t];
    if (t < 64) {
        slot[t] = value;
        BARRIER_SYNC(5, 64);
        value = slot[63 - t];
    }
    out[t] = value;
}
