// The only inline PTX: one wrapper per instruction, with the title of its section in the PTX ISA manual (numbers move from
// release to release) and, where lanes share data, its lane map: lane `l` of the warp has place `q = l % 4` in quad `g = l / 4`.
//
// `volatile` and "memory" stand only where the order against other memory accesses matters.
#pragma once
#include <cstdint>

// No instruction: x, of which the compiler no longer knows where it comes from. What follows from it is computed where it stands and
// not ahead of a loop, where it would hold registers.
__device__ inline uint32_t hidden(uint32_t x) {
    asm volatile("" : "+r"(x));
    return x;
}

// ---- "Data Movement and Conversion Instructions: cvt" ---------------------------------------------------------------

__device__ inline float f16_to_float(uint16_t x) {
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
    return y;
}

// Round to nearest, ties to even; too large gives infinity.
__device__ inline uint16_t float_to_f16(float x) {
    uint16_t y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}

__device__ inline uint16_t float_to_bf16(float x) {
    uint16_t y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
    return y;
}

// Two at once, `low` into bits 0-15.
__device__ inline uint32_t floats_to_f16x2(float low, float high) {
    uint32_t y;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}

__device__ inline uint32_t floats_to_bf16x2(float low, float high) {
    uint32_t y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}

// ---- "Floating Point Instructions" ----------------------------------------------------------------------------------

// "ex2": 2^x, relative error at most 2^-22; subnormal results are 0, 2^-inf = 0, NaN stays.
__device__ inline float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// "rcp.approx.ftz": 1/x, relative error at most 2^-23; 1/inf = 0, and so is a subnormal result.
__device__ inline float reciprocal_approx(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// "rsqrt": 1/sqrt(x), relative error at most 2^-22.9.
__device__ inline float rsqrt_approx(float x) {
    float y;
    asm("rsqrt.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// "max", "min": NaN if either is NaN, unlike fmaxf and fminf.
__device__ inline float max_nan(float x, float y) {
    float z;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
    return z;
}

__device__ inline float min_nan(float x, float y) {
    float z;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(z) : "f"(x), "f"(y));
    return z;
}

// ---- "Data Movement and Conversion Instructions: Non-bulk copy" -----------------------------------------------------

// Address in the shared window, which the instructions below take.
__device__ inline uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// "cp.async": 16 bytes from global to shared memory, past L1. Of them `bytes` (0 to 16) are read, the rest is zero. Both
// addresses are multiples of 16. The bytes land some time before a wait for their group returns.
__device__ inline void copy_async_16(uint32_t shared, const void* global, uint32_t bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(__cvta_generic_to_global(global)), "r"(bytes)
                 : "memory");
}

// "cp.async.commit_group": closes a group (possibly empty) of the copies that this thread has issued since the last one.
__device__ inline void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// "cp.async.wait_group": returns when at most the PENDING youngest groups of this thread are unfinished. Other threads
// see the bytes after a barrier.
template <int PENDING>
__device__ inline void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// ---- "Warp-Level Matrix Instructions" -------------------------------------------------------------------------------

// "Warp-level matrix load instruction: ldmatrix": four 8 x 8 matrices of 16-bit elements. Lanes 8i to 8i+7 give the addresses of
// the rows of matrix i, 16 bytes each, multiples of 16. Lane l receives in r[i] elements 2q and 2q+1 of row g of matrix i, the
// first in bits 0-15.
__device__ inline void load_matrices(uint32_t (&r)[4], uint32_t shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared)
                 : "memory");
}

// The same for two matrices: lanes 0 to 15 give the addresses of rows, and those of the others are not read.
__device__ inline void load_two_matrices(uint32_t (&r)[2], uint32_t shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(shared) : "memory");
}

// "ldmatrix" with ".trans": addresses as without, but lane l receives in r[i] elements [2q][g] and [2q+1][g] of matrix i, the
// first in bits 0-15: a row-major [k][n] in shared memory becomes the operand B of the products below.
__device__ inline void load_matrices_transposed(uint32_t (&r)[4], uint32_t shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared)
                 : "memory");
}

__device__ inline void load_two_matrices_transposed(uint32_t (&r)[2], uint32_t shared) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared)
                 : "memory");
}

// "Matrix Fragments for mma.m16n8k16 with floating point type": row-major A times column-major B, added to c in f32. Lane l
// holds, two elements a register, the lower index in bits 0-15:
//   a[0] A[g][2q, 2q+1]   a[1] A[g+8][2q, 2q+1]   a[2] A[g][2q+8, 2q+9]   a[3] A[g+8][2q+8, 2q+9]
//   b0 B[2q, 2q+1][g]     b1 B[2q+8, 2q+9][g]
//   c[0], c[1] C[g][2q, 2q+1]   c[2], c[3] C[g+8][2q, 2q+1]
__device__ inline void multiply_add_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline void multiply_add_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// "Matrix Fragments for mma.m16n8k8": the first half of k, a[0], a[1] and b0 as above.
__device__ inline void multiply_add_half_f16(float (&c)[4], const uint32_t (&a)[2], uint32_t b0) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(b0));
}

__device__ inline void multiply_add_half_bf16(float (&c)[4], const uint32_t (&a)[2], uint32_t b0) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(b0));
}
