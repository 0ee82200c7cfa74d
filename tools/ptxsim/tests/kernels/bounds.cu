// Accesses outside an allocation: of global memory, of a block's shared memory, of a thread's local memory.

// run: grid=4 block=128 args=buf:f32:512:zero,buf:f32:512:rand,u32:512
extern "C" __global__ void shift(float* out, const float* in, unsigned n) {
    unsigned i = blockIdx.x * 128 + threadIdx.x;
    if (i + 1 < n) out[i + 1] = in[i];
}

// run: twin=shift grid=4 block=128 args=buf:f32:512:zero,buf:f32:512:rand,u32:512
extern "C" __global__ void shift_one_too_far(float* out, const float* in, unsigned n) {
    unsigned i = blockIdx.x * 128 + threadIdx.x;
    if (i < n) out[i + 1] = in[i];  // fault: out-of-bounds
}

// run: grid=4 block=128 args=buf:f32:512:undef,buf:f32:512:rand,u32:512
extern "C" __global__ void differences(float* out, const float* in, unsigned n) {
    unsigned i = blockIdx.x * 128 + threadIdx.x;
    float next = i + 1 < n ? in[i + 1] : 0.0f;
    out[i] = next - in[i];
}

// run: twin=differences grid=4 block=128 args=buf:f32:512:undef,buf:f32:512:rand,u32:512
extern "C" __global__ void differences_one_too_far(float* out, const float* in, unsigned n) {
    unsigned i = blockIdx.x * 128 + threadIdx.x;
    float next = i < n ? in[i + 1] : 0.0f;  // fault: out-of-bounds
    out[i] = next - in[i];
}

// run: grid=4 block=128 args=buf:f32:512:undef,buf:f32:512:rand
extern "C" __global__ void previous(float* out, const float* in) {
    int i = blockIdx.x * 128 + threadIdx.x;
    out[i] = in[max(i - 1, 0)];
}

// run: twin=previous grid=4 block=128 args=buf:f32:512:undef,buf:f32:512:rand
extern "C" __global__ void previous_of_first(float* out, const float* in) {
    int i = blockIdx.x * 128 + threadIdx.x;
    out[i] = in[i - 1];  // fault: out-of-bounds
}

// run: grid=4 block=128 args=buf:f32:500:undef,buf:f32:500:rand,u32:500
extern "C" __global__ void doubled(float* out, const float* in, unsigned n) {
    unsigned i = blockIdx.x * 128 + threadIdx.x;
    if (i < n) out[i] = 2.0f * in[i];
}

// run: twin=doubled grid=4 block=128 args=buf:f32:500:undef,buf:f32:500:rand,u32:500
extern "C" __global__ void doubled_without_guard(float* out, const float* in, unsigned n) {
    unsigned i = blockIdx.x * 128 + threadIdx.x;
    out[i] = 2.0f * in[i];  // fault: out-of-bounds
}

// run: grid=2 block=64 args=buf:f32:500:undef,buf:f32:500:rand,u32:500
extern "C" __global__ void strided_loop(float* out, const float* in, unsigned n) {
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) out[i] = in[i] + 1.0f;
}

// The same kernel, told that the buffers are four elements longer.
// run: twin=strided_loop grid=2 block=64 args=buf:f32:500:undef,buf:f32:500:rand,u32:504
extern "C" __global__ void strided_loop_with_wrong_length(float* out, const float* in, unsigned n) {
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
        out[i] = in[i] + 1.0f;  // fault: out-of-bounds
}

// 24 rows of 20 columns.
// run: grid=1 block=32,8 args=buf:f32:480:undef,buf:f32:480:rand,u32:24,u32:20
extern "C" __global__ void negated_matrix(float* out, const float* in, unsigned rows, unsigned columns) {
    for (unsigned row = threadIdx.y; row < rows; row += 8)
        if (threadIdx.x < columns) out[row * columns + threadIdx.x] = -in[row * columns + threadIdx.x];
}

// run: twin=negated_matrix grid=1 block=32,8 args=buf:f32:480:zero,buf:f32:480:rand,u32:24,u32:20
extern "C" __global__ void negated_matrix_of_wrong_pitch(float* out, const float* in, unsigned rows, unsigned columns) {
    for (unsigned row = threadIdx.y; row < rows; row += 8)
        if (threadIdx.x < columns) out[row * rows + threadIdx.x] = -in[row * rows + threadIdx.x];  // fault: out-of-bounds
}

// Four elements an access, and the last two one by one.
// run: grid=1 block=128 args=buf:f32:510:undef,buf:f32:510:rand,u32:510
extern "C" __global__ void copied_in_fours(float* out, const float* in, unsigned n) {
    unsigned i = threadIdx.x * 4;
    if (i + 4 <= n) {
        *reinterpret_cast<float4*>(out + i) = *reinterpret_cast<const float4*>(in + i);
    } else {
        for (; i < n; ++i) out[i] = in[i];
    }
}

// nvcc gives both accesses the line of the second.
// run: twin=copied_in_fours grid=1 block=128 args=buf:f32:510:undef,buf:f32:510:rand,u32:510
extern "C" __global__ void copied_in_fours_past_the_end(float* out, const float* in, unsigned n) {
    unsigned i = threadIdx.x * 4;
    if (i < n) {
        float4 four = *reinterpret_cast<const float4*>(in + i);
        *reinterpret_cast<float4*>(out + i) = four;  // fault: out-of-bounds
    }
}

// run: grid=1 block=64 args=buf:f32:64:undef,buf:f32:64:rand,u64:0
extern "C" __global__ void optional_bias(float* out, const float* in, const float* bias) {
    unsigned i = threadIdx.x;
    out[i] = in[i] + (bias ? bias[i] : 0.0f);
}

// run: twin=optional_bias grid=1 block=64 args=buf:f32:64:zero,buf:f32:64:rand,u64:0
extern "C" __global__ void absent_bias(float* out, const float* in, const float* bias) {
    unsigned i = threadIdx.x;
    out[i] = in[i] + bias[i];  // fault: out-of-bounds
}

// run: grid=1 block=64 args=buf:f32:64:undef,buf:f32:64:rand
extern "C" __global__ void reversed(float* out, const float* in) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x;
    slot[t] = in[t];
    __syncthreads();
    out[t] = slot[63 - t];
}

// run: twin=reversed grid=1 block=64 args=buf:f32:64:undef,buf:f32:64:rand
extern "C" __global__ void reversed_past_shared(float* out, const float* in) {
    __shared__ float slot[64];
    unsigned t = threadIdx.x;
    slot[t] = in[t];
    __syncthreads();
    out[t] = slot[64 - t];  // fault: out-of-bounds
}

// Past one array begins the next, if the compiler lays them so: no place to write to in any case.
// run: twin=reversed grid=1 block=64 args=buf:f32:64:undef,buf:f32:64:rand
extern "C" __global__ void reversed_past_its_array(float* out, const float* in) {
    __shared__ float slot[64], scale[64];
    unsigned t = threadIdx.x;
    scale[t] = 2.0f;
    slot[t] = 1.0f;
    __syncthreads();
    slot[t + 1] = in[t];  // fault: out-of-bounds
    __syncthreads();
    out[t] = slot[63 - t] * scale[t];
}

// run: grid=2 block=128 shared=512 args=buf:f32:256:undef,buf:f32:256:rand
extern "C" __global__ void reversed_dynamic(float* out, const float* in) {
    extern __shared__ float slots[];
    unsigned t = threadIdx.x, first = blockIdx.x * 128;
    slots[t] = in[first + t];
    __syncthreads();
    out[first + t] = slots[127 - t];
}

// Launched with room for half of the block.
// run: twin=reversed_dynamic grid=2 block=128 shared=256 args=buf:f32:256:undef,buf:f32:256:rand
extern "C" __global__ void reversed_dynamic_too_small(float* out, const float* in) {
    extern __shared__ float slots[];
    unsigned t = threadIdx.x, first = blockIdx.x * 128;
    slots[t] = in[first + t];  // fault: out-of-bounds
    __syncthreads();
    out[first + t] = slots[127 - t];  // fault: out-of-bounds
}

// run: grid=1 block=64 args=buf:f32:64:undef,buf:f32:512:rand,u32:8
extern "C" __global__ void newest_of_ring(float* out, const float* in, unsigned n) {
    float ring[8];
    for (unsigned i = 0; i < 8; ++i) ring[i] = 0.0f;
    for (unsigned i = 0; i < n; ++i) ring[i % 8] = in[threadIdx.x * 8 + i];
    out[threadIdx.x] = ring[(n - 1) % 8];
}

// run: twin=newest_of_ring grid=1 block=64 args=buf:f32:64:undef,buf:f32:512:rand,u32:8
extern "C" __global__ void past_the_ring(float* out, const float* in, unsigned n) {
    float ring[8];
    for (unsigned i = 0; i < 8; ++i) ring[i] = 0.0f;
    for (unsigned i = 0; i < n; ++i) ring[i % 8] = in[threadIdx.x * 8 + i];
    out[threadIdx.x] = ring[n];  // fault: out-of-bounds
}
