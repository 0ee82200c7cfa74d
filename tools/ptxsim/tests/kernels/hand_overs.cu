// Flags in the hands of single lanes. What a lane fences, and what it learns from a flag, is its own until a barrier spreads it.

// Lane 0 speaks for its warp, listens for it.
// run: grid=3 block=32 args=buf:f32:96:undef,buf:f32:32:undef,buf:u32:1:zero,buf:f32:32:rand
extern "C" __global__ void spoken_for(float* out, float* message, unsigned* flag, const float* in) {
    unsigned t = threadIdx.x;
    if (blockIdx.x == 0) {
        message[t] = in[t];
        __syncwarp();
        if (t == 0) {
            __threadfence();
            *reinterpret_cast<volatile unsigned*>(flag) = 1;
        }
        out[t] = in[t];
    } else {
        if (t == 0) {
            while (*reinterpret_cast<volatile unsigned*>(flag) == 0) {
            }
            __threadfence();
        }
        __syncwarp();
        out[blockIdx.x * 32 + t] = message[31 - t];
    }
}

// run: twin=spoken_for grid=3 block=32 args=buf:f32:96:undef,buf:f32:32:undef,buf:u32:1:zero,buf:f32:32:rand
extern "C" __global__ void spoken_too_soon(float* out, float* message, unsigned* flag, const float* in) {
    unsigned t = threadIdx.x;
    if (blockIdx.x == 0) {
        message[t] = in[t];  // fault: global-race a
        if (t == 0) {
            __threadfence();
            *reinterpret_cast<volatile unsigned*>(flag) = 1;
        }
        out[t] = in[t];
    } else {
        if (t == 0) {
            while (*reinterpret_cast<volatile unsigned*>(flag) == 0) {
            }
            __threadfence();
        }
        __syncwarp();
        out[blockIdx.x * 32 + t] = message[31 - t];  // fault: global-race b
    }
}

// run: twin=spoken_for grid=3 block=32 args=buf:f32:96:undef,buf:f32:32:undef,buf:u32:1:zero,buf:f32:32:rand
extern "C" __global__ void heard_by_one_lane(float* out, float* message, unsigned* flag, const float* in) {
    unsigned t = threadIdx.x;
    if (blockIdx.x == 0) {
        message[t] = in[t];  // fault: global-race a
        __syncwarp();
        if (t == 0) {
            __threadfence();
            *reinterpret_cast<volatile unsigned*>(flag) = 1;
        }
        out[t] = in[t];
    } else {
        if (t == 0) {
            while (*reinterpret_cast<volatile unsigned*>(flag) == 0) {
            }
            __threadfence();
        }
        out[blockIdx.x * 32 + t] = message[31 - t];  // fault: global-race b
    }
}

// Every lane waits for the flag itself: no barrier is needed behind it.
// run: grid=3 block=32 args=buf:f32:96:undef,buf:f32:32:undef,buf:u32:1:zero,buf:f32:32:rand
extern "C" __global__ void heard_by_all_lanes(float* out, float* message, unsigned* flag, const float* in) {
    unsigned t = threadIdx.x;
    if (blockIdx.x == 0) {
        message[t] = in[t];
        __syncwarp();
        if (t == 0) {
            __threadfence();
            *reinterpret_cast<volatile unsigned*>(flag) = 1;
        }
        out[t] = in[t];
    } else {
        while (*reinterpret_cast<volatile unsigned*>(flag) == 0) {
        }
        __threadfence();
        out[blockIdx.x * 32 + t] = message[31 - t];
    }
}

// The same within a block, in shared memory.
// run: grid=1 block=64 args=buf:u32:32:undef
extern "C" __global__ void heard_in_shared(unsigned* out) {
    __shared__ unsigned values[32];
    __shared__ volatile unsigned flag;
    unsigned t = threadIdx.x;
    if (t == 0) flag = 0;
    __syncthreads();
    if (t >= 32) {
        values[t - 32] = 3 * t;
        __threadfence_block();
        __syncwarp();
        if (t == 32) flag = 1;
    } else {
        if (t == 0) {
            while (flag == 0) {
            }
        }
        __threadfence_block();
        __syncwarp();
        out[t] = values[t];
    }
}

// run: twin=heard_in_shared grid=1 block=64 args=buf:u32:32:undef
extern "C" __global__ void heard_in_shared_by_one_lane(unsigned* out) {
    __shared__ unsigned values[32];
    __shared__ volatile unsigned flag;
    unsigned t = threadIdx.x;
    if (t == 0) flag = 0;
    __syncthreads();
    if (t >= 32) {
        values[t - 32] = 3 * t;  // fault: shared-race a
        __threadfence_block();
        __syncwarp();
        if (t == 32) flag = 1;
    } else {
        if (t == 0) {
            while (flag == 0) {
            }
        }
        __threadfence_block();
        out[t] = values[t];  // fault: shared-race b
    }
}

// A relay: block 1 passes on to block 2 what it has from block 0.
// run: grid=3 block=32 args=buf:f32:1:undef,buf:f32:1:undef,buf:u32:2:zero,buf:f32:1:rand
extern "C" __global__ void relayed(float* out, float* message, volatile unsigned* flag, const float* in) {
    if (threadIdx.x != 0) return;
    if (blockIdx.x == 0) {
        *message = *in;
        __threadfence();
        *flag = 1;
    } else if (blockIdx.x == 1) {
        while (*flag != 1) {
        }
        __threadfence();
        *flag = 2;
        flag[1] = 1;
    } else {
        while (flag[1] == 0) {  // it never sees the first value
        }
        while (*flag != 2) {
        }
        __threadfence();
        *out = *message;
    }
}

// A store begins anew: without a fence its value stands for nothing, whatever the value before stood for.
// run: twin=relayed grid=3 block=32 args=buf:f32:1:undef,buf:f32:1:undef,buf:u32:2:zero,buf:f32:1:rand
extern "C" __global__ void relayed_without_fence(float* out, float* message, volatile unsigned* flag, const float* in) {
    if (threadIdx.x != 0) return;
    if (blockIdx.x == 0) {
        *message = *in;  // fault: global-race a
        __threadfence();
        *flag = 1;
    } else if (blockIdx.x == 1) {
        while (*flag != 1) {
        }
        *flag = 2;
        flag[1] = 1;
    } else {
        while (flag[1] == 0) {  // it never sees the first value
        }
        while (*flag != 2) {
        }
        __threadfence();
        *out = *message;  // fault: global-race b
    }
}

// Many blocks read what the last one then overwrites.
// run: grid=24 block=32 args=buf:u32:1:iota,buf:u32:1:zero,buf:u32:23:undef
extern "C" __global__ void overwritten_last(unsigned* value, unsigned* readers, unsigned* out) {
    if (threadIdx.x != 0) return;
    unsigned last = gridDim.x - 1;
    if (blockIdx.x < last) {
        out[blockIdx.x] = *value + blockIdx.x;
        __threadfence();
        atomicAdd(readers, 1u);
    } else {
        while (*reinterpret_cast<volatile unsigned*>(readers) != last) {
        }
        __threadfence();
        *value = 5;
    }
}

// run: twin=overwritten_last grid=24 block=32 args=buf:u32:1:iota,buf:u32:1:zero,buf:u32:23:undef
extern "C" __global__ void overwritten_while_one_reads(unsigned* value, unsigned* readers, unsigned* out) {
    if (threadIdx.x != 0) return;
    unsigned last = gridDim.x - 1;
    if (blockIdx.x < last) {
        out[blockIdx.x] = *value + blockIdx.x;  // fault: global-race a
        if (blockIdx.x != 13) __threadfence();
        atomicAdd(readers, 1u);
    } else {
        while (*reinterpret_cast<volatile unsigned*>(readers) != last) {
        }
        __threadfence();
        *value = 5;  // fault: global-race b
    }
}

// A barrier of the whole grid, twice, with many blocks.
// run: grid=48 block=32 args=buf:u32:1:zero,buf:u32:1536:undef,buf:u32:1536:undef
extern "C" __global__ void grid_meets(unsigned* arrived, unsigned* a, unsigned* b) {
    unsigned i = blockIdx.x * 32 + threadIdx.x, n = gridDim.x;
    a[i] = i;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(arrived, 1u);
        while (*reinterpret_cast<volatile unsigned*>(arrived) < n) {
        }
        __threadfence();
    }
    __syncthreads();
    b[i] = a[i * 7 % (32 * n)];
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(arrived, 1u);
        while (*reinterpret_cast<volatile unsigned*>(arrived) < 2 * n) {
        }
        __threadfence();
    }
    __syncthreads();
    a[i] = b[i * 5 % (32 * n)];
}

// Only the first time.
// run: twin=grid_meets grid=48 block=32 args=buf:u32:1:zero,buf:u32:1536:undef,buf:u32:1536:undef
extern "C" __global__ void grid_meets_once(unsigned* arrived, unsigned* a, unsigned* b) {
    unsigned i = blockIdx.x * 32 + threadIdx.x, n = gridDim.x;
    a[i] = i;
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(arrived, 1u);
        while (*reinterpret_cast<volatile unsigned*>(arrived) < n) {
        }
        __threadfence();
    }
    __syncthreads();
    b[i] = a[i * 7 % (32 * n)];  // fault: global-race a
    __syncthreads();
    a[i] = b[i * 5 % (32 * n)];  // fault: global-race b
}

// Blocks that wait for each other, then write to places of their own at the same moment.
// run: grid=8 block=32 args=buf:u32:256:undef,buf:u32:1:zero
extern "C" __global__ void written_together(unsigned* out, unsigned* arrived) {
    if (threadIdx.x == 0) {
        atomicAdd(arrived, 1u);
        while (*reinterpret_cast<volatile unsigned*>(arrived) < gridDim.x) {
        }
    }
    __syncwarp();
    out[blockIdx.x * 32 + threadIdx.x] = blockIdx.x;
}

// run: twin=written_together grid=8 block=32 args=buf:u32:256:undef,buf:u32:1:zero
extern "C" __global__ void written_together_to_one_place(unsigned* out, unsigned* arrived) {
    if (threadIdx.x == 0) {
        atomicAdd(arrived, 1u);
        while (*reinterpret_cast<volatile unsigned*>(arrived) < gridDim.x) {
        }
    }
    __syncwarp();
    out[threadIdx.x] = blockIdx.x;  // fault: global-race a b
}

// The last block of a reduction sets the counter back for the next launch. Its own atomic has seen all others.
// run: grid=6 block=32 args=buf:u32:1:undef,buf:u32:6:undef,buf:u32:1:zero
extern "C" __global__ void counter_set_back(unsigned* out, unsigned* part, unsigned* counter) {
    if (threadIdx.x != 0) return;
    part[blockIdx.x] = blockIdx.x;
    __threadfence();
    if (atomicAdd(counter, 1u) != gridDim.x - 1) return;
    unsigned sum = 0;
    for (unsigned k = 0; k < gridDim.x; ++k) sum += part[k];
    *out = sum;
    *counter = 0;
}

// One that does not wait for the others sets it back.
// run: twin=counter_set_back grid=6 block=32 args=buf:u32:6:undef,buf:u32:6:undef,buf:u32:1:zero
extern "C" __global__ void counter_set_back_by_all(unsigned* out, unsigned* part, unsigned* counter) {
    if (threadIdx.x != 0) return;
    part[blockIdx.x] = blockIdx.x;
    __threadfence();
    atomicAdd(counter, 1u);  // fault: either global-race a b
    out[blockIdx.x] = part[blockIdx.x];
    *counter = 0;  // fault: global-race a b
}

// A fence of the block makes nothing of what another block said.
// run: twin=spoken_for grid=3 block=32 args=buf:f32:96:undef,buf:f32:32:undef,buf:u32:1:zero,buf:f32:32:rand
extern "C" __global__ void heard_through_a_block_fence(float* out, float* message, unsigned* flag, const float* in) {
    unsigned t = threadIdx.x;
    if (blockIdx.x == 0) {
        message[t] = in[t];  // fault: global-race a
        __syncwarp();
        __threadfence();
        if (t == 0) *reinterpret_cast<volatile unsigned*>(flag) = 1;
        out[t] = in[t];
    } else {
        while (*reinterpret_cast<volatile unsigned*>(flag) == 0) {
        }
        __threadfence_block();
        out[blockIdx.x * 32 + t] = message[31 - t];  // fault: global-race b
    }
}

// A semaphore of CUTLASS: blocks add up in order, here the last one first, and all wait in barriers.
// run: grid=24 block=64 args=buf:u32:64:zero,buf:u32:1:zero
extern "C" __global__ void added_in_order(unsigned* sum, unsigned* turn) {
    unsigned wanted = gridDim.x - 1 - blockIdx.x, state = ~0u;
    while (__syncthreads_and(state != wanted)) {
        if (threadIdx.x == 0) asm volatile("ld.global.acquire.gpu.b32 %0, [%1];" : "=r"(state) : "l"(turn) : "memory");
    }
    sum[threadIdx.x] = 3 * sum[threadIdx.x] % 1009 + blockIdx.x;
    __syncthreads();
    if (threadIdx.x == 0) asm volatile("st.global.release.gpu.b32 [%0], %1;" ::"l"(turn), "r"(wanted + 1) : "memory");
}

// The turn is given on before the other threads are done.
// run: twin=added_in_order grid=24 block=64 args=buf:u32:64:zero,buf:u32:1:zero
extern "C" __global__ void added_while_others_add(unsigned* sum, unsigned* turn) {
    unsigned wanted = gridDim.x - 1 - blockIdx.x, state = ~0u;
    while (__syncthreads_and(state != wanted)) {
        if (threadIdx.x == 0) asm volatile("ld.global.acquire.gpu.b32 %0, [%1];" : "=r"(state) : "l"(turn) : "memory");
    }
    sum[threadIdx.x] = 3 * sum[threadIdx.x] % 1009 + blockIdx.x;  // fault: global-race a b
    if (threadIdx.x == 0) asm volatile("st.global.release.gpu.b32 [%0], %1;" ::"l"(turn), "r"(wanted + 1) : "memory");
}
