// Threads that wait for what cannot come.

// run: grid=1 block=32 args=buf:u32:1:zero,buf:u32:32:undef
extern "C" __global__ void lock_released(unsigned* lock, unsigned* turns) {
    while (atomicCAS(lock, 0u, 1u) != 0) {
    }
    turns[threadIdx.x] = threadIdx.x;
    atomicExch(lock, 0u);
}

// run: twin=lock_released grid=1 block=32 args=buf:u32:1:zero,buf:u32:32:undef
extern "C" __global__ void lock_never_released(unsigned* lock, unsigned* turns) {
    while (atomicCAS(lock, 0u, 1u) != 0) {  // fault: deadlock
    }
    turns[threadIdx.x] = threadIdx.x;
}

// run: grid=2 block=32 args=buf:u32:2:zero,buf:u32:32:undef
extern "C" __global__ void flag_set(unsigned* flags, unsigned* out) {
    if (blockIdx.x == 0) {
        while (*reinterpret_cast<volatile unsigned*>(flags) == 0) {
        }
        out[threadIdx.x] = threadIdx.x;
    } else if (threadIdx.x == 0) {
        *reinterpret_cast<volatile unsigned*>(flags) = 1;
    }
}

// run: twin=flag_set grid=2 block=32 args=buf:u32:2:zero,buf:u32:32:undef
extern "C" __global__ void flag_never_set(unsigned* flags, unsigned* out) {
    if (blockIdx.x == 0) {
        while (*reinterpret_cast<volatile unsigned*>(flags) == 0) {  // fault: deadlock
        }
        out[threadIdx.x] = threadIdx.x;
    } else if (threadIdx.x == 0) {
        *reinterpret_cast<volatile unsigned*>(flags + 1) = 1;
    }
}

// run: grid=2 block=32 args=buf:u32:2:zero
extern "C" __global__ void blocks_meet(unsigned* flags) {
    volatile unsigned* own = flags + blockIdx.x;
    volatile unsigned* other = flags + 1 - blockIdx.x;
    if (threadIdx.x == 0) {
        *own = 1;
        while (*other == 0) {
        }
    }
}

// run: twin=blocks_meet grid=2 block=32 args=buf:u32:2:zero
extern "C" __global__ void blocks_wait_for_each_other(unsigned* flags) {
    volatile unsigned* own = flags + blockIdx.x;
    volatile unsigned* other = flags + 1 - blockIdx.x;
    if (threadIdx.x == 0) {
        while (*other == 0) {  // fault: deadlock
        }
        *own = 1;
    }
}

// Warp 1 sets a flag in shared memory that warp 0 waits for.
// run: grid=1 block=64 args=buf:u32:64:undef
extern "C" __global__ void flag_before_barrier(unsigned* out) {
    __shared__ unsigned flag;
    if (threadIdx.x == 0) flag = 0;
    __syncthreads();
    if (threadIdx.x == 32) atomicExch(&flag, 1u);
    if (threadIdx.x < 32) {
        while (atomicAdd(&flag, 0u) == 0) {
        }
    }
    __syncthreads();
    out[threadIdx.x] = threadIdx.x;
}

// It sets the flag behind the barrier at which warp 0 is missing.
// run: twin=flag_before_barrier grid=1 block=64 args=buf:u32:64:undef
extern "C" __global__ void flag_behind_barrier(unsigned* out) {
    __shared__ unsigned flag;
    if (threadIdx.x == 0) flag = 0;
    __syncthreads();
    if (threadIdx.x < 32) {
        while (atomicAdd(&flag, 0u) == 0) {  // fault: deadlock
        }
    }
    __syncthreads();  // fault: deadlock
    if (threadIdx.x == 32) atomicExch(&flag, 1u);
    out[threadIdx.x] = threadIdx.x;
}

// run: grid=3 block=32 args=buf:u32:1:zero
extern "C" __global__ void all_arrive(unsigned* arrived) {
    if (threadIdx.x == 0) {
        atomicAdd(arrived, 1u);
        while (atomicAdd(arrived, 0u) < gridDim.x) {
        }
    }
    __syncthreads();
}

// run: twin=all_arrive grid=3 block=32 args=buf:u32:1:zero
extern "C" __global__ void one_too_few_arrive(unsigned* arrived) {
    if (threadIdx.x == 0) {
        atomicAdd(arrived, 1u);
        while (atomicAdd(arrived, 0u) <= gridDim.x) {  // fault: deadlock
        }
    }
    __syncthreads();  // fault: deadlock
}

// Every lane counts its tries for a lock that another lane of its warp holds.
// run: grid=1 block=8 args=buf:u32:1:zero,buf:u32:1:zero,buf:u32:8:undef
// order: how often a lane tries in vain is a matter of when the others had the lock
extern "C" __global__ void lock_with_tries(unsigned* lock, unsigned* sum, unsigned* tries) {
    unsigned n = 0;
    while (atomicCAS(lock, 0u, 1u) != 0) ++n;
    __threadfence();
    *sum += 1;
    __threadfence();
    atomicExch(lock, 0u);
    tries[threadIdx.x] = n;
}

// A fence in the loop is no progress.
// run: twin=flag_set grid=1 block=32 args=buf:u32:1:zero,buf:u32:1:undef
extern "C" __global__ void flag_never_set_and_fences(volatile unsigned* flag, unsigned* out) {
    // The fence or the branch behind it: where the loop is when it is given up.
    while (*flag == 0) {  // fault: either deadlock
        __threadfence();  // fault: either deadlock
    }
    if (threadIdx.x == 0) *out = 1;
}
