// Two threads at the same bytes of global memory: of a block, and of blocks that nothing orders.

// run: grid=4 block=64 args=buf:f32:256:undef,buf:f32:256:undef,buf:f32:256:rand
extern "C" __global__ void neighbours(float* own, float* out, const float* in) {
    unsigned i = blockIdx.x * 64 + threadIdx.x;
    own[i] = in[i] * in[i];
    out[i] = in[(i + 64) % 256] * in[(i + 64) % 256];
}

// run: twin=neighbours grid=4 block=64 args=buf:f32:256:zero,buf:f32:256:undef,buf:f32:256:rand
extern "C" __global__ void neighbours_exchange(float* own, float* out, const float* in) {
    unsigned i = blockIdx.x * 64 + threadIdx.x;
    own[i] = in[i] * in[i];           // fault: global-race a
    out[i] = own[(i + 64) % 256];  // fault: global-race b
}

// run: grid=4 block=64 args=buf:u32:256:undef
extern "C" __global__ void block_ids(unsigned* out) {
    out[blockIdx.x * 64 + threadIdx.x] = blockIdx.x;
}

// run: twin=block_ids grid=4 block=64 args=buf:u32:64:undef
extern "C" __global__ void block_ids_in_one_place(unsigned* out) {
    out[threadIdx.x] = blockIdx.x;  // fault: global-race a b
}

// run: grid=4 block=64 args=buf:u32:1:zero
extern "C" __global__ void counter(unsigned* count) {
    atomicAdd(count, 1u);
}

// run: twin=counter grid=4 block=64 args=buf:u32:1:zero
extern "C" __global__ void counter_without_atomic(unsigned* count) {
    *count += 1;  // fault: global-race a b
}

// run: twin=counter grid=4 block=64 args=buf:u32:1:zero
extern "C" __global__ void counter_of_block_scope(unsigned* count) {
    atomicAdd_block(count, 1u);  // fault: global-race a b
}

// run: twin=counter grid=4 block=64 args=buf:u32:1:zero,buf:u32:256:undef
extern "C" __global__ void counter_read_plainly(unsigned* count, unsigned* seen) {
    atomicAdd(count, 1u);                             // fault: global-race a
    __syncthreads();
    seen[blockIdx.x * 64 + threadIdx.x] = *count;  // fault: global-race b
}

// run: grid=2 block=128 args=buf:f32:256:undef,buf:f32:256:undef,buf:f32:256:rand
extern "C" __global__ void warps_through_global(float* scratch, float* out, const float* in) {
    unsigned t = threadIdx.x, first = blockIdx.x * 128;
    scratch[first + t] = in[first + t];
    __syncthreads();
    out[first + t] = scratch[first + 127 - t];
}

// run: twin=warps_through_global grid=2 block=128 args=buf:f32:256:zero,buf:f32:256:undef,buf:f32:256:rand
extern "C" __global__ void warps_through_global_unsynchronised(float* scratch, float* out, const float* in) {
    unsigned t = threadIdx.x, first = blockIdx.x * 128;
    scratch[first + t] = in[first + t];         // fault: global-race a
    out[first + t] = scratch[first + 127 - t];  // fault: global-race b
}

// run: grid=2 block=64 args=buf:f32:128:undef,buf:f32:128:rand
extern "C" __global__ void added_to_next(float* out, const float* in) {
    unsigned i = blockIdx.x * 64 + threadIdx.x;
    out[i] = in[i] + in[(i + 1) % 128];
}

// run: twin=added_to_next grid=2 block=64 args=buf:f32:128:rand
extern "C" __global__ void added_to_next_in_place(float* values) {
    unsigned i = blockIdx.x * 64 + threadIdx.x;
    values[i] = values[i] + values[(i + 1) % 128];  // fault: global-race a b
}

// run: grid=1 block=32 args=buf:u32:32:undef
extern "C" __global__ void scattered(unsigned* out) {
    out[(threadIdx.x * 7) % 32] = threadIdx.x;
}

// Two lanes of one store write different values to one element.
// run: twin=scattered grid=1 block=32 args=buf:u32:32:undef
extern "C" __global__ void scattered_in_pairs(unsigned* out) {
    out[threadIdx.x / 2] = threadIdx.x;  // fault: global-race a b
}

// The block that finishes last adds up what all have left.
// run: grid=4 block=64 args=buf:f32:1:undef,buf:f32:4:zero,buf:u32:1:zero,buf:f32:256:rand
extern "C" __global__ void last_block_sums(float* out, float* partial, unsigned* finished, const float* in) {
    __shared__ float values[64];
    __shared__ bool last;
    unsigned t = threadIdx.x;
    values[t] = in[blockIdx.x * 64 + t];
    __syncthreads();
    if (t == 0) {
        float sum = 0.0f;
        for (int k = 0; k < 64; ++k) sum += values[k];
        partial[blockIdx.x] = sum;
        __threadfence();
        last = atomicAdd(finished, 1u) == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (last && t == 0) {
        float sum = 0.0f;
        for (unsigned k = 0; k < gridDim.x; ++k) sum += partial[k];
        *out = sum;
    }
}

// run: twin=last_block_sums grid=4 block=64 args=buf:f32:1:undef,buf:f32:4:zero,buf:u32:1:zero,buf:f32:256:rand
extern "C" __global__ void last_block_sums_without_fence(float* out, float* partial, unsigned* finished, const float* in) {
    __shared__ float values[64];
    __shared__ bool last;
    unsigned t = threadIdx.x;
    values[t] = in[blockIdx.x * 64 + t];
    __syncthreads();
    if (t == 0) {
        float sum = 0.0f;
        for (int k = 0; k < 64; ++k) sum += values[k];
        partial[blockIdx.x] = sum;  // fault: global-race a
        last = atomicAdd(finished, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (last && t == 0) {
        float sum = 0.0f;
        for (unsigned k = 0; k < gridDim.x; ++k) sum += partial[k];  // fault: global-race b
        *out = sum;
    }
}

// Block 0 writes, sets a flag; the others wait for the flag, read.
// run: grid=3 block=32 args=buf:f32:96:undef,buf:f32:32:zero,buf:u32:1:zero,buf:f32:32:rand
extern "C" __global__ void flagged(float* out, float* message, unsigned* flag, const float* in) {
    unsigned t = threadIdx.x;
    if (blockIdx.x == 0) {
        message[t] = in[t];
        __syncthreads();
        if (t == 0) {
            __threadfence();
            *reinterpret_cast<volatile unsigned*>(flag) = 1;
        }
    } else {
        if (t == 0) {
            while (*reinterpret_cast<volatile unsigned*>(flag) == 0) {
            }
            __threadfence();
        }
        __syncthreads();
        out[blockIdx.x * 32 + t] = message[31 - t];
    }
}

// run: twin=flagged grid=3 block=32 args=buf:f32:96:undef,buf:f32:32:zero,buf:u32:1:zero,buf:f32:32:rand
extern "C" __global__ void flagged_without_fences(float* out, float* message, unsigned* flag, const float* in) {
    unsigned t = threadIdx.x;
    if (blockIdx.x == 0) {
        message[t] = in[t];  // fault: global-race a
        __syncthreads();
        if (t == 0) *reinterpret_cast<volatile unsigned*>(flag) = 1;
    } else {
        if (t == 0) {
            while (*reinterpret_cast<volatile unsigned*>(flag) == 0) {
            }
        }
        __syncthreads();
        out[blockIdx.x * 32 + t] = message[31 - t];  // fault: global-race b
    }
}

// The fence of a block says nothing to another block.
// run: twin=flagged grid=3 block=32 args=buf:f32:96:undef,buf:f32:32:zero,buf:u32:1:zero,buf:f32:32:rand
extern "C" __global__ void flagged_with_block_fences(float* out, float* message, unsigned* flag, const float* in) {
    unsigned t = threadIdx.x;
    if (blockIdx.x == 0) {
        message[t] = in[t];  // fault: global-race a
        __syncthreads();
        if (t == 0) {
            __threadfence_block();
            *reinterpret_cast<volatile unsigned*>(flag) = 1;
        }
    } else {
        if (t == 0) {
            while (*reinterpret_cast<volatile unsigned*>(flag) == 0) {
            }
            __threadfence_block();
        }
        __syncthreads();
        out[blockIdx.x * 32 + t] = message[31 - t];  // fault: global-race b
    }
}

// run: twin=flagged grid=3 block=32 args=buf:f32:96:undef,buf:f32:32:zero,buf:u32:1:zero,buf:f32:32:rand
extern "C" __global__ void flagged_with_late_fence(float* out, float* message, unsigned* flag, const float* in) {
    unsigned t = threadIdx.x;
    if (blockIdx.x == 0) {
        message[t] = in[t];  // fault: global-race a
        __syncthreads();
        if (t == 0) *reinterpret_cast<volatile unsigned*>(flag) = 1;
        __threadfence();
    } else {
        if (t == 0) {
            while (*reinterpret_cast<volatile unsigned*>(flag) == 0) {
            }
            __threadfence();
        }
        __syncthreads();
        out[blockIdx.x * 32 + t] = message[31 - t];  // fault: global-race b
    }
}

// The same with an atomic for a flag. The fence of the thread that sets it covers what the barrier before has gathered.
// run: grid=3 block=64 args=buf:f32:192:undef,buf:f32:64:zero,buf:u32:1:zero,buf:f32:64:rand
extern "C" __global__ void flagged_by_atomic(float* out, float* message, unsigned* flag, const float* in) {
    unsigned t = threadIdx.x;
    if (blockIdx.x == 2) {
        message[t] = in[t];
        __syncthreads();
        if (t == 0) {
            __threadfence();
            atomicExch(flag, 1u);
        }
    } else {
        if (t == 0) {
            while (atomicAdd(flag, 0u) == 0) {
            }
            __threadfence();
        }
        __syncthreads();
        out[blockIdx.x * 64 + t] = message[63 - t];
    }
}

// Release and acquire in the instructions themselves.
// run: grid=2 block=32 args=buf:f32:32:undef,buf:f32:32:zero,buf:u32:1:zero,buf:f32:32:rand
extern "C" __global__ void flagged_by_release(float* out, float* message, unsigned* flag, const float* in) {
    unsigned t = threadIdx.x;
    if (blockIdx.x == 0) {
        message[t] = in[t];
        __syncthreads();
        if (t == 0) asm volatile("st.release.gpu.global.u32 [%0], 1;" ::"l"(__cvta_generic_to_global(flag)) : "memory");
    } else {
        if (t == 0) {
            unsigned set = 0;
            while (set == 0)
                asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(set) : "l"(__cvta_generic_to_global(flag)) : "memory");
        }
        __syncthreads();
        out[t] = message[31 - t];
    }
}

// run: twin=flagged_by_release grid=2 block=32 args=buf:f32:32:undef,buf:f32:32:zero,buf:u32:1:zero,buf:f32:32:rand
extern "C" __global__ void flagged_by_relaxed(float* out, float* message, unsigned* flag, const float* in) {
    unsigned t = threadIdx.x;
    if (blockIdx.x == 0) {
        message[t] = in[t];  // fault: global-race a
        __syncthreads();
        if (t == 0) asm volatile("st.relaxed.gpu.global.u32 [%0], 1;" ::"l"(__cvta_generic_to_global(flag)) : "memory");
    } else {
        if (t == 0) {
            unsigned set = 0;
            while (set == 0)
                asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(set) : "l"(__cvta_generic_to_global(flag)) : "memory");
        }
        __syncthreads();
        out[t] = message[31 - t];  // fault: global-race b
    }
}

// All blocks meet twice a round.
// run: grid=4 block=32 args=buf:f32:128:undef,buf:f32:128:zero,buf:u32:1:zero,buf:f32:128:rand
extern "C" __global__ void grid_barrier(float* out, float* places, unsigned* arrived, const float* in) {
    unsigned t = threadIdx.x, i = blockIdx.x * 32 + t;
    float value = in[i];
    for (unsigned round = 1; round <= 2; ++round) {
        places[i] = value;
        for (unsigned meeting = 1; meeting <= 2; ++meeting) {
            __syncthreads();
            if (t == 0) {
                __threadfence();
                atomicAdd(arrived, 1u);
                while (*reinterpret_cast<volatile unsigned*>(arrived) < ((round - 1) * 2 + meeting) * gridDim.x) {
                }
                __threadfence();
            }
            __syncthreads();
            if (meeting == 1) value += places[(i + 32) % 128];
        }
    }
    out[i] = value;
}

// The same meeting with release and acquire in place of fences.
// run: grid=4 block=32 args=buf:f32:128:undef,buf:f32:128:undef,buf:u32:1:zero,buf:f32:128:rand
extern "C" __global__ void grid_barrier_by_release(float* out, float* places, unsigned* arrived, const float* in) {
    unsigned t = threadIdx.x, i = blockIdx.x * 32 + t;
    places[i] = in[i];
    __syncthreads();
    if (t == 0) {
        unsigned seen;
        asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(__cvta_generic_to_global(arrived)) : "memory");
        do {
            asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(__cvta_generic_to_global(arrived)) : "memory");
        } while (seen < gridDim.x);
    }
    __syncthreads();
    out[i] = places[(i + 32) % 128];
}

// Blocks add to one tile in the order of their numbers, so that the sums repeat bit for bit.
// run: grid=4 block=32 args=buf:f32:32:zero,buf:u32:1:zero,buf:f32:128:rand
extern "C" __global__ void ordered_sum(float* sums, unsigned* turn, const float* in) {
    unsigned t = threadIdx.x;
    if (t == 0) {
        while (*reinterpret_cast<volatile unsigned*>(turn) != blockIdx.x) {
        }
        __threadfence();
    }
    __syncthreads();
    sums[t] += in[blockIdx.x * 32 + t];
    __syncthreads();
    if (t == 0) {
        __threadfence();
        *reinterpret_cast<volatile unsigned*>(turn) = blockIdx.x + 1;
    }
}

// run: twin=ordered_sum grid=4 block=32 args=buf:f32:32:zero,buf:u32:1:zero,buf:f32:128:rand
extern "C" __global__ void ordered_sum_without_fences(float* sums, unsigned* turn, const float* in) {
    unsigned t = threadIdx.x;
    if (t == 0) {
        while (*reinterpret_cast<volatile unsigned*>(turn) != blockIdx.x) {
        }
    }
    __syncthreads();
    sums[t] += in[blockIdx.x * 32 + t];  // fault: global-race a b
    __syncthreads();
    if (t == 0) *reinterpret_cast<volatile unsigned*>(turn) = blockIdx.x + 1;
}

// The turn is handed on before all warps of the block are done.
// run: twin=ordered_sum grid=4 block=64 args=buf:f32:64:zero,buf:u32:1:zero,buf:f32:256:rand
extern "C" __global__ void ordered_sum_handed_on_early(float* sums, unsigned* turn, const float* in) {
    unsigned t = threadIdx.x;
    if (t == 0) {
        while (*reinterpret_cast<volatile unsigned*>(turn) != blockIdx.x) {
        }
        __threadfence();
    }
    __syncthreads();
    sums[t] += in[blockIdx.x * 64 + t];  // fault: global-race a b
    if (t == 0) {
        __threadfence();
        *reinterpret_cast<volatile unsigned*>(turn) = blockIdx.x + 1;
    }
}

// A sum behind a lock: 4 lanes of each of 4 warps take their turns.
// run: grid=2 block=64 args=buf:f32:1:zero,buf:u32:1:zero,buf:f32:128:rand
extern "C" __global__ void locked_sum(float* sum, unsigned* lock, const float* in) {
    unsigned i = blockIdx.x * 64 + threadIdx.x;
    if (i % 8 != 1) return;
    while (atomicCAS(lock, 0u, 1u) != 0) {
    }
    __threadfence();
    *sum += in[i];
    __threadfence();
    atomicExch(lock, 0u);
}

// run: twin=locked_sum grid=2 block=64 args=buf:f32:1:zero,buf:u32:1:zero,buf:f32:128:rand
extern "C" __global__ void locked_sum_without_fences(float* sum, unsigned* lock, const float* in) {
    unsigned i = blockIdx.x * 64 + threadIdx.x;
    if (i % 8 != 1) return;
    while (atomicCAS(lock, 0u, 1u) != 0) {
    }
    *sum += in[i];  // fault: global-race a b
    atomicExch(lock, 0u);
}

// The lock taken inside a branch of a loop that ends when the work is done.
// run: grid=2 block=64 args=buf:f32:1:zero,buf:u32:1:zero,buf:f32:128:rand
extern "C" __global__ void tried_sum(float* sum, unsigned* lock, const float* in) {
    unsigned i = blockIdx.x * 64 + threadIdx.x;
    bool done = false;
    while (!done) {
        if (atomicCAS(lock, 0u, 1u) == 0) {
            __threadfence();
            *sum += in[i];
            __threadfence();
            atomicExch(lock, 0u);
            done = true;
        }
    }
}
