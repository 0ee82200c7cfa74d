// Loops that end, and loops that come back to where they were and never end.

// run: grid=2 block=32 args=buf:u32:8:zero,buf:u32:2:undef
extern "C" __global__ void flags_polled_in_turn(volatile unsigned* flags, unsigned* out) {
    if (threadIdx.x != 0) return;
    if (blockIdx.x == 0) {
        unsigned i = 0;
        while (flags[i & 7] == 0) i = (i + 1) & 7;
        out[0] = i;
    } else {
        unsigned wait = 0;
        for (unsigned i = 0; i < 20000; ++i) wait = wait * 1664525u + 1013904223u;
        flags[5] = wait | 1;
    }
}

// Seven other rounds lie between two at the same flag.
// run: twin=flags_polled_in_turn grid=2 block=32 args=buf:u32:8:zero,buf:u32:2:undef
extern "C" __global__ void flags_polled_for_ever(volatile unsigned* flags, unsigned* out) {
    if (threadIdx.x != 0) return;
    if (blockIdx.x == 0) {
        unsigned i = 0;
        while (flags[i & 7] == 0) i = (i + 1) & 7;  // fault: deadlock
        out[0] = i;
    }
}

// A period of a thousand rounds.
// run: twin=steps_end grid=1 block=64 args=buf:u32:1:zero,buf:u32:64:undef
extern "C" __global__ void steps_without_end(volatile unsigned* flag, unsigned* out) {
    unsigned i = 0;
    while (*flag == 0) i = i == 999 ? 0 : i + 1;  // fault: deadlock
    out[threadIdx.x] = i;
}

// Half a million rounds that change nothing but registers.
// run: grid=1 block=64 args=buf:u32:1:zero,buf:u32:64:undef
extern "C" __global__ void steps_end(volatile unsigned* flag, unsigned* out) {
    unsigned i = 0;
    while (*flag == 0 && i < 100000) ++i;
    out[threadIdx.x] = i;
}

// The lanes part and meet again in each round.
// run: twin=steps_end grid=1 block=32 args=buf:u32:1:zero,buf:u32:32:undef
extern "C" __global__ void lanes_part_in_an_endless_loop(volatile unsigned* flag, unsigned* out) {
    unsigned t = threadIdx.x;
    unsigned x = t;
    while (*flag == 0) {  // fault: deadlock
        if (t & 1) {  // fault: deadlock
            x ^= 5;  // fault: deadlock
            out[t] = 7;  // fault: deadlock
        } else {
            x ^= 3;  // fault: deadlock
            out[t] = 9;  // fault: deadlock
        }
    }
    out[t] = x;
}

// Lanes that wait for a lock change memory in each round; the one that holds it must get to its release all the same.
// run: grid=1 block=32 args=buf:u32:1:zero,buf:u32:1:zero,buf:u32:1:zero
extern "C" __global__ void tries_counted(unsigned* lock, unsigned* sum, unsigned* tries) {
    while (atomicCAS(lock, 0u, 1u) != 0) atomicAdd(tries, 1u);
    __threadfence();
    volatile unsigned* total = sum;
    *total = *total + 1;
    __threadfence();
    atomicExch(lock, 0u);
}

// run: twin=tries_counted grid=1 block=32 args=buf:u32:1:zero,buf:u32:1:zero,buf:u32:1:zero
extern "C" __global__ void tries_counted_weakly(unsigned* lock, unsigned* sum, unsigned* tries) {
    while (atomicCAS(lock, 0u, 1u) != 0) atomicAdd(tries, 1u);
    __threadfence();
    *sum = *sum + 1;  // fault: global-race a b
    atomicExch(lock, 0u);
}
