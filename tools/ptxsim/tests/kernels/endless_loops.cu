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
    while (*flag == 0) {  // fault: either deadlock
        if (t & 1) {  // fault: either deadlock
            x ^= 5;  // fault: either deadlock
            out[t] = 7;  // fault: either deadlock
        } else {
            x ^= 3;  // fault: either deadlock
            out[t] = 9;  // fault: either deadlock
        }
    }
    out[t] = x;
}
