// Instructions that CUDA C++ has no name for, one macro each. Macros and not functions: the line of an inlined function
// is the function's own, and the suite compares reports with the line of use.
#pragma once

#define SHARED(pointer) static_cast<unsigned>(__cvta_generic_to_shared(pointer))
#define GLOBAL(pointer) __cvta_generic_to_global(pointer)

// cp.async: `bytes` is 4, 8 or 16.
#define COPY_ASYNC(to, from, bytes) \
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(SHARED(to)), "l"(GLOBAL(from)), "n"(bytes) : "memory")
// 16 bytes past the first-level cache.
#define COPY_ASYNC16(to, from) \
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(SHARED(to)), "l"(GLOBAL(from)) : "memory")
// The first `count` of 16 bytes; the rest become zero.
#define COPY_ASYNC16_FIRST(to, from, count) \
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(SHARED(to)), "l"(GLOBAL(from)), "r"(count) : "memory")
#define COPY_COMMIT() asm volatile("cp.async.commit_group;" ::: "memory")
#define COPY_WAIT(groups_left) asm volatile("cp.async.wait_group %0;" ::"n"(groups_left) : "memory")
#define COPY_WAIT_ALL() asm volatile("cp.async.wait_all;" ::: "memory")

// Barrier `id` of `count` threads; an arrival does not wait.
#define BARRIER_SYNC(id, count) asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(count) : "memory")
#define BARRIER_ARRIVE(id, count) asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(count) : "memory")

// atomicAdd without a result, on unsigned numbers of global memory.
#define ATOMIC_ADD(to, value) asm volatile("red.global.add.u32 [%0], %1;" ::"l"(GLOBAL(to)), "r"(value) : "memory")

// Four 8x8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8.
#define LDMATRIX_X4(r, row)                                                                 \
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"          \
                 : "=r"((r)[0]), "=r"((r)[1]), "=r"((r)[2]), "=r"((r)[3])                   \
                 : "r"(SHARED(row))                                                         \
                 : "memory")
#define LDMATRIX_X2_TRANSPOSED(r, row)                                                      \
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"            \
                 : "=r"((r)[0]), "=r"((r)[1])                                               \
                 : "r"(SHARED(row))                                                         \
                 : "memory")
// d += a b: a 16xK, b Kx8, d 16x8, f32 sums.
#define MMA(shape_and_types, d, a, b)                                                                       \
    asm volatile("mma.sync.aligned." shape_and_types " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "       \
                 "{%0, %1, %2, %3};"                                                                        \
                 : "+f"((d)[0]), "+f"((d)[1]), "+f"((d)[2]), "+f"((d)[3])                                   \
                 : "r"((a)[0]), "r"((a)[1]), "r"((a)[2]), "r"((a)[3]), "r"((b)[0]), "r"((b)[1]))
// K = 16.
#define MMA_16816(d, a, b) MMA("m16n8k16.row.col.f32.f16.f16.f32", d, a, b)
// K = 8.
#define MMA_1688_TF32(d, a, b) MMA("m16n8k8.row.col.f32.tf32.tf32.f32", d, a, b)
