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
// run: grid=3 block=32 args=buf:f32:1:undef,buf:f32:1:undef,buf:u32:1:zero,buf:f32:1:rand
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
    } else {
        while (*flag != 2) {
        }
        __threadfence();
        *out = *message;
    }
}

// A store begins anew: without a fence its value stands for nothing, whatever the value before stood for.
// run: twin=relayed grid=3 block=32 args=buf:f32:1:undef,buf:f32:1:undef,buf:u32:1:zero,buf:f32:1:rand
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
    } else {
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

// A barrier of the whole grid, twice, with as many blocks as a device has multiprocessors.
// run: grid=132 block=32 args=buf:u32:1:zero,buf:u32:4224:undef,buf:u32:4224:undef
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
// run: twin=grid_meets grid=132 block=32 args=buf:u32:1:zero,buf:u32:4224:undef,buf:u32:4224:undef
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
