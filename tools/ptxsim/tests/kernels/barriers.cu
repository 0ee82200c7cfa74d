// Block barriers: what must stand between a write of shared memory and another thread's read, and between a read and the
// next write. How entries are described: tests/suite.rs.

// run: grid=4 block=128 args=buf:f32:4:undef,buf:f32:512:rand
extern "C" __global__ void tree_sum(float* out, const float* in) {
    __shared__ float partial[128];
    unsigned t = threadIdx.x;
    partial[t] = in[blockIdx.x * 128 + t];
    __syncthreads();
    for (unsigned half = 64; half > 0; half /= 2) {
        if (t < half) partial[t] += partial[t + half];
        __syncthreads();
    }
    if (t == 0) out[blockIdx.x] = partial[0];
}

// run: twin=tree_sum grid=4 block=128 args=buf:f32:4:undef,buf:f32:512:rand
extern "C" __global__ void tree_sum_unsynchronised_steps(float* out, const float* in) {
    __shared__ float partial[128];
    unsigned t = threadIdx.x;
    partial[t] = in[blockIdx.x * 128 + t];
    __syncthreads();
    for (unsigned half = 64; half > 0; half /= 2) {
        if (t < half) partial[t] += partial[t + half];  // fault: shared-race a b
    }
    if (t == 0) out[blockIdx.x] = partial[0];
}

// run: twin=tree_sum grid=4 block=128 args=buf:f32:4:undef,buf:f32:512:rand
extern "C" __global__ void tree_sum_unsynchronised_load(float* out, const float* in) {
    __shared__ float partial[128];
    unsigned t = threadIdx.x;
    partial[t] = in[blockIdx.x * 128 + t];  // fault: shared-race a
    for (unsigned half = 64; half > 0; half /= 2) {
        if (t < half) partial[t] += partial[t + half];  // fault: shared-race b
        __syncthreads();
    }
    if (t == 0) out[blockIdx.x] = partial[0];
}

// run: twin=tree_sum grid=4 block=128 args=buf:f32:512:undef,buf:f32:512:rand
extern "C" __global__ void tree_sum_unsynchronised_result(float* out, const float* in) {
    __shared__ float partial[128];
    unsigned t = threadIdx.x;
    partial[t] = in[blockIdx.x * 128 + t];
    for (unsigned half = 64; half > 0; half /= 2) {
        __syncthreads();
        if (t < half) partial[t] += partial[t + half];  // fault: shared-race a
    }
    out[blockIdx.x * 128 + t] = partial[0];  // fault: shared-race b
}

// Four tiles of 32x32 down a column of tiles, 32x8 threads, rows padded to 33.
// run: grid=2 block=32,8 args=buf:f32:8192:undef,buf:f32:8192:rand
extern "C" __global__ void transpose(float* out, const float* in) {
    __shared__ float tile[32][33];
    unsigned x = threadIdx.x, y = threadIdx.y, column = blockIdx.x * 32;
    for (unsigned row = 0; row < 128; row += 32) {
        for (unsigned i = y; i < 32; i += 8) tile[i][x] = in[(row + i) * 64 + column + x];
        __syncthreads();
        for (unsigned i = y; i < 32; i += 8) out[(column + i) * 128 + row + x] = tile[x][i];
        __syncthreads();
    }
}

// run: twin=transpose grid=2 block=32,8 args=buf:f32:8192:undef,buf:f32:8192:rand
extern "C" __global__ void transpose_overwritten(float* out, const float* in) {
    __shared__ float tile[32][33];
    unsigned x = threadIdx.x, y = threadIdx.y, column = blockIdx.x * 32;
    for (unsigned row = 0; row < 128; row += 32) {
        for (unsigned i = y; i < 32; i += 8) tile[i][x] = in[(row + i) * 64 + column + x];  // fault: shared-race a
        __syncthreads();
        for (unsigned i = y; i < 32; i += 8) out[(column + i) * 128 + row + x] = tile[x][i];  // fault: shared-race b
    }
}

// run: twin=transpose grid=2 block=32,8 args=buf:f32:8192:undef,buf:f32:8192:rand
extern "C" __global__ void transpose_barrier_before_write(float* out, const float* in) {
    __shared__ float tile[32][33];
    unsigned x = threadIdx.x, y = threadIdx.y, column = blockIdx.x * 32;
    for (unsigned row = 0; row < 128; row += 32) {
        __syncthreads();
        for (unsigned i = y; i < 32; i += 8) tile[i][x] = in[(row + i) * 64 + column + x];  // fault: shared-race a
        for (unsigned i = y; i < 32; i += 8) {
            out[(column + i) * 128 + row + x] = tile[x][i];  // fault: shared-race b
        }
        __syncthreads();
    }
}

// Three steps of a mean of neighbours in one buffer of shared memory.
// run: grid=4 block=128 args=buf:f32:512:undef,buf:f32:514:rand
extern "C" __global__ void stencil(float* out, const float* in) {
    __shared__ float line[130];
    unsigned t = threadIdx.x, first = blockIdx.x * 128;
    line[t + 1] = in[first + t + 1];
    if (t < 2) line[t * 129] = in[first + t * 129];
    __syncthreads();
    for (int step = 0; step < 3; ++step) {
        float mean = (line[t] + line[t + 1] + line[t + 2]) / 3.0f;
        __syncthreads();
        line[t + 1] = mean;
        __syncthreads();
    }
    out[first + t] = line[t + 1];
}

// run: twin=stencil grid=4 block=128 args=buf:f32:512:undef,buf:f32:514:rand
extern "C" __global__ void stencil_overwritten(float* out, const float* in) {
    __shared__ float line[130];
    unsigned t = threadIdx.x, first = blockIdx.x * 128;
    line[t + 1] = in[first + t + 1];
    if (t < 2) line[t * 129] = in[first + t * 129];
    __syncthreads();
    for (int step = 0; step < 3; ++step) {
        float mean = (line[t] + line[t + 1] + line[t + 2]) / 3.0f;  // fault: shared-race a
        line[t + 1] = mean;  // fault: shared-race b
        __syncthreads();
    }
    out[first + t] = line[t + 1];
}

// run: twin=stencil grid=4 block=128 args=buf:f32:512:undef,buf:f32:514:rand
extern "C" __global__ void stencil_barrier_before_write(float* out, const float* in) {
    __shared__ float line[130];
    unsigned t = threadIdx.x, first = blockIdx.x * 128;
    line[t + 1] = in[first + t + 1];
    if (t < 2) line[t * 129] = in[first + t * 129];
    __syncthreads();
    for (int step = 0; step < 3; ++step) {
        float mean = (line[t] + line[t + 1] + line[t + 2]) / 3.0f;  // fault: shared-race a
        __syncthreads();
        line[t + 1] = mean;  // fault: shared-race b
    }
    out[first + t] = line[t + 1];
}

// The halo is stored after the barrier that was meant for it.
// run: twin=stencil grid=4 block=128 args=buf:f32:512:undef,buf:f32:514:rand
extern "C" __global__ void stencil_late_halo(float* out, const float* in) {
    __shared__ float line[130];
    unsigned t = threadIdx.x, first = blockIdx.x * 128;
    line[t + 1] = in[first + t + 1];
    if (t < 2) line[t * 129] = 0.0f;
    __syncthreads();
    if (t == 64 || t == 65) line[(t - 64) * 129] = in[first + (t - 64) * 129];  // fault: shared-race a
    out[first + t] = (line[t] + line[t + 1] + line[t + 2]) / 3.0f;              // fault: shared-race b
}

// Inclusive sums, Hillis and Steele.
// run: grid=4 block=128 args=buf:f32:512:undef,buf:f32:512:rand
extern "C" __global__ void prefix_sum(float* out, const float* in) {
    __shared__ float sums[128];
    unsigned t = threadIdx.x, i = blockIdx.x * 128 + t;
    sums[t] = in[i];
    __syncthreads();
    for (unsigned step = 1; step < 128; step *= 2) {
        float before = t >= step ? sums[t - step] : 0.0f;
        __syncthreads();
        sums[t] += before;
        __syncthreads();
    }
    out[i] = sums[t];
}

// run: twin=prefix_sum grid=4 block=128 args=buf:f32:512:undef,buf:f32:512:rand
extern "C" __global__ void prefix_sum_in_place(float* out, const float* in) {
    __shared__ float sums[128];
    unsigned t = threadIdx.x, i = blockIdx.x * 128 + t;
    sums[t] = in[i];
    __syncthreads();
    for (unsigned step = 1; step < 128; step *= 2) {
        if (t >= step) sums[t] += sums[t - step];  // fault: shared-race a b
        __syncthreads();
    }
    out[i] = sums[t];
}

// Two buffers in turn need one barrier a step: a buffer is written again only behind the next step's barrier.
// run: grid=2 block=64 args=buf:f32:128:undef,buf:f32:1024:rand
extern "C" __global__ void double_buffer(float* out, const float* in) {
    __shared__ float tile[2][64];
    unsigned t = threadIdx.x;
    float sum = 0.0f;
    for (unsigned step = 0; step < 8; ++step) {
        tile[step % 2][t] = in[(blockIdx.x * 8 + step) * 64 + t];
        __syncthreads();
        sum += tile[step % 2][t ^ 32] * tile[step % 2][63 - t];
    }
    out[blockIdx.x * 64 + t] = sum;
}

// run: twin=double_buffer grid=2 block=64 args=buf:f32:128:undef,buf:f32:1024:rand
extern "C" __global__ void double_buffer_of_one(float* out, const float* in) {
    __shared__ float tile[2][64];
    unsigned t = threadIdx.x;
    float sum = 0.0f;
    for (unsigned step = 0; step < 8; ++step) {
        tile[step / 8][t] = in[(blockIdx.x * 8 + step) * 64 + t];  // fault: shared-race a
        __syncthreads();
        sum += tile[step / 8][t ^ 32] * tile[step / 8][63 - t];  // fault: shared-race b
    }
    out[blockIdx.x * 64 + t] = sum;
}

// Bins counted with atomics, zeroed and read by plain accesses behind barriers.
// run: grid=2 block=128 args=buf:u32:64:zero,buf:u32:1024:rand
extern "C" __global__ void histogram(unsigned* out, const unsigned* in) {
    __shared__ unsigned bins[64];
    unsigned t = threadIdx.x;
    if (t < 64) bins[t] = 0;
    __syncthreads();
    for (unsigned i = t; i < 512; i += 128) atomicAdd(&bins[in[blockIdx.x * 512 + i] % 64], 1u);
    __syncthreads();
    if (t < 64) atomicAdd(&out[t], bins[t]);
}

// run: twin=histogram grid=2 block=128 args=buf:u32:64:zero,buf:u32:1024:iota
extern "C" __global__ void histogram_read_early(unsigned* out, const unsigned* in) {
    __shared__ unsigned bins[64];
    unsigned t = threadIdx.x;
    if (t < 64) bins[t] = 0;
    __syncthreads();
    for (unsigned i = t; i < 512; i += 128) atomicAdd(&bins[in[blockIdx.x * 512 + i] % 64], 1u);  // fault: shared-race a
    if (t < 64) atomicAdd(&out[t], bins[t]);                                                      // fault: shared-race b
}

// run: twin=histogram grid=2 block=128 args=buf:u32:64:zero,buf:u32:1024:iota
extern "C" __global__ void histogram_plain_add(unsigned* out, const unsigned* in) {
    __shared__ unsigned bins[64];
    unsigned t = threadIdx.x;
    if (t < 64) bins[t] = 0;
    __syncthreads();
    for (unsigned i = t; i < 512; i += 128) bins[in[blockIdx.x * 512 + i] % 64] += 1;  // fault: shared-race a b
    __syncthreads();
    if (t < 64) atomicAdd(&out[t], bins[t]);
}

// The highest value and who has it, found by one thread and told to all.
// run: grid=2 block=96 args=buf:f32:192:undef,buf:f32:192:rand
extern "C" __global__ void leader_tells(float* out, const float* in) {
    __shared__ float values[96];
    __shared__ float highest;
    unsigned t = threadIdx.x, i = blockIdx.x * 96 + t;
    values[t] = in[i];
    __syncthreads();
    if (t == 0) {
        float best = values[0];
        for (int k = 1; k < 96; ++k) best = fmaxf(best, values[k]);
        highest = best;
    }
    __syncthreads();
    out[i] = values[t] - highest;
}

// run: twin=leader_tells grid=2 block=96 args=buf:f32:192:undef,buf:f32:192:rand
extern "C" __global__ void leader_tells_too_late(float* out, const float* in) {
    __shared__ float values[96];
    __shared__ float highest;
    unsigned t = threadIdx.x, i = blockIdx.x * 96 + t;
    values[t] = in[i];
    if (t == 0) highest = 0.0f;
    __syncthreads();
    if (t == 0) {
        float best = values[0];
        for (int k = 1; k < 96; ++k) best = fmaxf(best, values[k]);
        highest = best;  // fault: shared-race a
    }
    out[i] = values[t] - highest;  // fault: shared-race b
}

// A counter that one thread clears and every warp adds to.
// run: grid=1 block=64 args=buf:u32:1:undef
extern "C" __global__ void cleared_counter(unsigned* out) {
    __shared__ unsigned s;
    unsigned t = threadIdx.x;
    if (t == 0) s = 0;
    __syncthreads();
    if (t % 32 == 0) atomicAdd(&s, t);
    __syncthreads();
    if (t == 0) *out = s;
}

// run: twin=cleared_counter grid=1 block=64 args=buf:u32:1:undef
extern "C" __global__ void counter_cleared_meanwhile(unsigned* out) {
    __shared__ unsigned s;
    unsigned t = threadIdx.x;
    if (t == 0) s = 0;                  // fault: shared-race a
    if (t % 32 == 0) atomicAdd(&s, t);  // fault: shared-race b
    __syncthreads();
    if (t == 0) *out = s;
}
