// y = (x - mean) / sqrt(variance + eps) weight + bias, then x sigmoid(x) if asked for; mean and variance over the channels of a
// group at all positions of a sample (Wu & He 2018). Reference: src/ops/norm.
//
//   x [B, P, X], skip [B, P, S] (null if S = 0), y [B, P, C]   f16 or bf16, channels last: C = X + S, those of x first, P = H W
//   weight, bias [C]                                           f32
//   statistics [B, G, chunks, 2]                               f32: of a group in a chunk, mean and sum of squares about it
// Two launches. `statistics` cuts the positions of a sample into chunks, one block each, so that a batch of one fills the GPU. Where the
// products that made x and skip left statistics (../gemm/statistics.cuh), [B P / 32, X / 2, 2] and [B P / 32, S / 2, 2], `merge` takes its
// place and reads those: P is a multiple of 32 then, X and the channels of a group of 2. `apply` merges the chunks of its sample (Chan, Golub & LeVeque 1979), which costs 8 G chunks bytes out of L2 a block, and
// writes y. y must overlap nothing.
//
// Within a chunk every channel is summed relative to its value at the first position of the chunk, so that a mean far from zero
// costs no precision. The order of sums depends on P, C and the chunks alone. So take the chunks from P and C, and nothing but
// the blocks of `apply` from B:
//   chunks = min(64, ceil(P C / 16384)), chunk = ceil(P / chunks), then chunks = ceil(P / chunk)
//   of `merge`: chunks = min(64, ceil(P / 1024)), chunk = 32 ceil(P / 32 / chunks), then chunks = ceil(P / chunk)
//   block_positions: whatever gives some 4 blocks an SM, but at least 16384 / C
//
// Entries                                   threads   grid                               dynamic shared bytes (and static)
//   group_norm_statistics_{f16,bf16}          320     (chunks, B)                        8 C (20480; `any` 2560)
//   group_norm_apply_{f16,bf16}               320     (ceil(P / block_positions), B)     8 G
//   group_norm_{statistics,apply}_any_{f16,bf16}      the same
//   group_norm_merge_{f16,bf16}               320     (chunks, B)                        0; nothing it reads has the storage type
// The first two need X and S to be multiples of 8 and all pointers of 16 bytes; `any` reads element by element.
// At most 64 registers, so 3 blocks an SM. 320 threads are 8, 4, 2, 1 rows of SD's 320, 640, 1280, 2560 channels.
//
// Moves 6 bytes an element (statistics read 2, apply 2 and 2), with `merge` 4.3, for about 3 FLOP and 3, with SiLU 9: memory binds, in L2 where x
// has just been written and fits. Predicted: 0.85 of the copy bandwidth for large P. Measured: not yet.
//
// Ladder
//   Chunks of positions, not a block for each group: a group of 10 channels is 20 bytes of every row, no sector. Predicted.
//   Merging in `apply`, not in a launch of its own: with at most 64 chunks it reads at most 16 KB of L2 a block; a launch costs a
//     microsecond 61 times a step. Predicted.
//   Statistics from the products before, where they are: 2.7 GB of a step of SD1.5 with 16 images are not read. Predicted.
#include "../common.cuh"
#include "../elementwise/activation.cuh"

constexpr int THREADS = 320;
constexpr int WARPS = THREADS / WARP;
constexpr int PART_ROWS = 32;  // of statistics of products (../gemm/statistics.cuh), 2 channels each
constexpr int BLOCKS = 3;  // of an SM, so at most 64 registers
// Loads of a thread under way at once. Four in `apply` do not fit its registers.
constexpr int STATISTICS_BATCH = 4, APPLY_BATCH = 2;

struct GroupNormParams {
    uint32_t positions;        // P
    uint32_t x_channels;       // X
    uint32_t skip_channels;    // S
    uint32_t groups;           // G, a divisor of C
    uint32_t chunk;            // positions in a chunk
    uint32_t chunks;           // ceil(P / chunk)
    uint32_t block_positions;  // positions of a block of `apply`
    uint32_t silu;             // 0 or 1
    float eps;
};
PARAMS_LAYOUT(GroupNormParams, positions, x_channels, skip_channels, groups, chunk, chunks, block_positions, silu, eps)

// Of `statistics`, for vectors of N channels; behind it the dynamic part, a Channel for each.
template <int N>
struct StatisticsShared {
    float sums[N][THREADS];  // of one slab of channels, by thread
    float squares[N][THREADS];
};
struct Channel {
    float mean, squares;  // Sum of squared differences from the mean.
};
// Of `apply`, all of it dynamic: one for each group.
struct Group {
    float mean, factor;  // 1 / sqrt(variance + eps)
};

extern __shared__ float2 group_norm_shared[];

// One vector of channels of a sample, in x or in skip.
template <typename T>
struct Column {
    const T* start;   // position 0
    uint32_t stride;  // elements from one position to the next

    __device__ const T* position(uint32_t position) const { return start + static_cast<uint64_t>(position) * stride; }
};

template <typename T>
__device__ inline Column<T> column(const T* x, const T* skip, const GroupNormParams& p, uint32_t channel) {
    const bool in_x = channel < p.x_channels;
    const uint32_t stride = in_x ? p.x_channels : p.skip_channels;
    const uint64_t sample = static_cast<uint64_t>(blockIdx.y) * p.positions * stride;
    return {(in_x ? x + channel : skip + (channel - p.x_channels)) + sample, stride};
}

// Threads of a block side by side over a slab of at most THREADS vectors of channels, and over positions with what is left.
struct Place {
    uint32_t vectors;  // of the slab
    uint32_t rows;     // positions at once
    uint32_t vector, row;
    bool active;

    __device__ Place(uint32_t first, uint32_t end) {
        vectors = min(end - first, static_cast<uint32_t>(THREADS));
        rows = THREADS / vectors;
        vector = first + threadIdx.x % vectors;
        row = threadIdx.x / vectors;
        active = row < rows;
    }
};

// Calls work(position, x [N]) for the positions of this thread from `first` to `end`, BATCH loads under way at once.
template <int N, int BATCH, typename T, typename F>
__device__ inline void for_each_position(const Column<T>& from, uint32_t first, uint32_t end, const Place& place, F work) {
    for (uint32_t position = first + place.row; position < end; position += BATCH * place.rows) {
        typename Stored<T, N>::Type stored[BATCH];
#pragma unroll
        for (int k = 0; k < BATCH; ++k) {
            if (position + k * place.rows < end) stored[k] = read<T, N>(from.position(position + k * place.rows));
        }
#pragma unroll
        for (int k = 0; k < BATCH; ++k) {
            const uint32_t at = position + k * place.rows;
            if (at >= end) break;
            float x[N];
            unpack(stored[k], x, T{});
            work(at, x);
        }
    }
}

// ---- Statistics of a chunk ------------------------------------------------------------------------------------------

// Sums of x - origin and its square over the positions of this thread.
template <typename T, int N>
__device__ inline void sum_positions(const Column<T>& from, uint32_t first, uint32_t end, const Place& place, float (&sums)[N],
                                     float (&squares)[N]) {
    float origin[N];
    load(from.position(first), origin);
    for_each_position<N, STATISTICS_BATCH>(from, first, end, place, [&](uint32_t, const float(&x)[N]) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            const float difference = x[i] - origin[i];
            sums[i] += difference;
            squares[i] = fmaf(difference, difference, squares[i]);
        }
    });
}

template <typename T, int N>
__device__ inline void channel_statistics(Channel* channels, StatisticsShared<N>& shared, const T* x, const T* skip,
                                          const GroupNormParams& p, uint32_t first, uint32_t end) {
    const uint32_t count = end - first, vectors = (p.x_channels + p.skip_channels) / N;
    for (uint32_t slab = 0; slab < vectors; slab += THREADS) {
        const Place place(slab, vectors);
        if (place.active) {
            float sums[N] = {}, squares[N] = {};
            sum_positions(column(x, skip, p, place.vector * N), first, end, place, sums, squares);
#pragma unroll
            for (int i = 0; i < N; ++i) {
                shared.sums[i][threadIdx.x] = sums[i];
                shared.squares[i][threadIdx.x] = squares[i];
            }
        }
        __syncthreads();  // the sums of all threads over this slab are there
        for (uint32_t at = threadIdx.x; at < place.vectors * N; at += THREADS) {
            const uint32_t i = at / place.vectors, vector = at % place.vectors;
            float sum = 0.0f, squares = 0.0f;
            for (uint32_t row = 0; row < place.rows; ++row) {
                sum += shared.sums[i][row * place.vectors + vector];
                squares += shared.squares[i][row * place.vectors + vector];
            }
            const uint32_t channel = (slab + vector) * N + i;
            const Column<T> from = column(x, skip, p, channel);
            const float origin = to_float(*from.position(first)), shift = sum / count;
            channels[channel] = {origin + shift, max_nan(squares - sum * shift, 0.0f)};
        }
        __syncthreads();  // the channels of this slab are there, and its sums are done with
    }
}

template <typename T, int N>
__device__ inline void group_norm_statistics(float2* statistics, const T* x, const T* skip, const GroupNormParams& p) {
    __shared__ StatisticsShared<N> shared;
    auto* channels = reinterpret_cast<Channel*>(group_norm_shared);
    const uint32_t first = blockIdx.x * p.chunk, end = min(first + p.chunk, p.positions);
    channel_statistics<T, N>(channels, shared, x, skip, p, first, end);

    const uint32_t size = (p.x_channels + p.skip_channels) / p.groups;
    for (uint32_t group = threadIdx.x / WARP; group < p.groups; group += WARPS) {
        const Channel* of_group = channels + group * size;
        float mean = 0.0f, squares = 0.0f;
        for (uint32_t c = threadIdx.x % WARP; c < size; c += WARP) mean += of_group[c].mean - of_group[0].mean;
        mean = of_group[0].mean + warp_reduce<Sum>(mean) / size;
        for (uint32_t c = threadIdx.x % WARP; c < size; c += WARP) {
            const float difference = of_group[c].mean - mean;
            squares += of_group[c].squares + (end - first) * difference * difference;
        }
        squares = warp_reduce<Sum>(squares);
        const uint64_t at = (static_cast<uint64_t>(blockIdx.y) * p.groups + group) * p.chunks + blockIdx.x;
        if (threadIdx.x % WARP == 0) statistics[at] = make_float2(mean, squares);
    }
}

// ---- Statistics that products took ---------------------------------------------------------------------------------

// Mean and M2 of a group in a chunk of `rows` rows of parts, from row `first` on. A lane takes every 32nd part.
__device__ inline float2 merge_parts(const float2* x, const float2* skip, uint64_t first, uint32_t rows, uint32_t group,
                                     const GroupNormParams& p) {
    const uint32_t x_pairs = p.x_channels / 2, skip_pairs = p.skip_channels / 2;
    const uint32_t pairs = (x_pairs + skip_pairs) / p.groups;
    const auto part = [&](uint32_t at) {
        const uint64_t row = first + at / pairs;
        const uint32_t pair = group * pairs + at % pairs;
        return pair < x_pairs ? x[row * x_pairs + pair] : skip[row * skip_pairs + (pair - x_pairs)];
    };
    const float origin = part(0).x, count = rows * pairs;
    float sum = 0.0f, between = 0.0f, within = 0.0f;
    for (uint32_t at = threadIdx.x % WARP; at < rows * pairs; at += WARP) {
        const float2 of = part(at);
        const float distance = of.x - origin;
        sum += distance, between = fmaf(distance, distance, between), within += of.y;
    }
    sum = warp_reduce<Sum>(sum), between = warp_reduce<Sum>(between), within = warp_reduce<Sum>(within);
    const float shift = sum / count;
    return {origin + shift, fmaf(2 * PART_ROWS, max_nan(between - sum * shift, 0.0f), within)};
}

__device__ inline void group_norm_merge(float2* statistics, const float2* x, const float2* skip, const GroupNormParams& p) {
    const uint32_t first = blockIdx.x * p.chunk, rows = min(p.chunk, p.positions - first) / PART_ROWS;
    const uint64_t row = (static_cast<uint64_t>(blockIdx.y) * p.positions + first) / PART_ROWS;
    for (uint32_t group = threadIdx.x / WARP; group < p.groups; group += WARPS) {
        const float2 of = merge_parts(x, skip, row, rows, group, p);
        const uint64_t at = (static_cast<uint64_t>(blockIdx.y) * p.groups + group) * p.chunks + blockIdx.x;
        if (threadIdx.x % WARP == 0) statistics[at] = of;
    }
}

// ---- Application ----------------------------------------------------------------------------------------------------

// Merges the chunks of a sample. A warp takes a group, a lane every 32nd chunk.
__device__ inline void merge_chunks(Group* groups, const float2* statistics, const GroupNormParams& p) {
    const uint32_t size = (p.x_channels + p.skip_channels) / p.groups;
    for (uint32_t group = threadIdx.x / WARP; group < p.groups; group += WARPS) {
        const float2* of_group = statistics + (static_cast<uint64_t>(blockIdx.y) * p.groups + group) * p.chunks;
        const float origin = of_group[0].x;
        float mean = 0.0f, squares = 0.0f;
        for (uint32_t c = threadIdx.x % WARP; c < p.chunks; c += WARP) {
            const uint32_t count = min(p.chunk, p.positions - c * p.chunk);
            mean += (of_group[c].x - origin) * count;
        }
        mean = origin + warp_reduce<Sum>(mean) / p.positions;
        for (uint32_t c = threadIdx.x % WARP; c < p.chunks; c += WARP) {
            const float count = static_cast<float>(min(p.chunk, p.positions - c * p.chunk)) * size;
            const float difference = of_group[c].x - mean;
            squares += of_group[c].y + count * difference * difference;
        }
        const float variance = warp_reduce<Sum>(squares) / (static_cast<float>(p.positions) * size);
        if (threadIdx.x % WARP == 0) groups[group] = {mean, rsqrt_approx(variance + p.eps)};
    }
}

// The positions of this thread, of a sample of y.
template <typename T, int N>
__device__ inline void apply_positions(T* y, uint32_t channels, const Column<T>& from, uint32_t first, uint32_t end,
                                       const Place& place, const Group* groups, const float* weight, const float* bias,
                                       const GroupNormParams& p) {
    const uint32_t channel = place.vector * N, size = channels / p.groups;
    float mean[N], factor[N], shift[N];
    uint32_t group = channel / size, next = (group + 1) * size;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        if (channel + i == next) ++group, next += size;
        mean[i] = groups[group].mean;
        factor[i] = groups[group].factor * weight[channel + i];
        shift[i] = bias[channel + i];
    }
    for_each_position<N, APPLY_BATCH>(from, first, end, place, [&](uint32_t position, float(&x)[N]) {
#pragma unroll
        for (int i = 0; i < N; ++i) x[i] = fmaf(x[i] - mean[i], factor[i], shift[i]);
        if (p.silu) activate(x, ACTIVATION_SILU);
        store(y + static_cast<uint64_t>(position) * channels + channel, x);
    });
}

template <typename T, int N>
__device__ inline void group_norm_apply(T* y, const T* x, const T* skip, const float2* statistics, const float* weight,
                                        const float* bias, const GroupNormParams& p) {
    auto* groups = reinterpret_cast<Group*>(group_norm_shared);
    merge_chunks(groups, statistics, p);
    __syncthreads();  // all groups are merged

    const uint32_t channels = p.x_channels + p.skip_channels;
    const uint32_t first = blockIdx.x * p.block_positions, end = min(first + p.block_positions, p.positions);
    for (uint32_t slab = 0; slab < channels / N; slab += THREADS) {
        const Place place(slab, channels / N);
        if (!place.active) continue;
        apply_positions<T, N>(y + static_cast<uint64_t>(blockIdx.y) * p.positions * channels, channels,
                              column(x, skip, p, place.vector * N), first, end, place, groups, weight, bias, p);
    }
}

#define GROUP_NORM(SUFFIX, T, N)                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)                                                 \
        group_norm_statistics_##SUFFIX(float2* statistics, const T* x, const T* skip, GroupNormParams p) {        \
        group_norm_statistics<T, N>(statistics, x, skip, p);                                                      \
    }                                                                                                             \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)                                                 \
        group_norm_apply_##SUFFIX(T* y, const T* x, const T* skip, const float2* statistics, const float* weight, \
                                  const float* bias, GroupNormParams p) {                                         \
        group_norm_apply<T, N>(y, x, skip, statistics, weight, bias, p);                                          \
    }

#define GROUP_NORM_MERGE(T)                                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)                                               \
        group_norm_merge_##T(float2* statistics, const float2* x, const float2* skip, GroupNormParams p) {      \
        group_norm_merge(statistics, x, skip, p);                                                               \
    }

GROUP_NORM_MERGE(f16)
GROUP_NORM_MERGE(bf16)
GROUP_NORM(f16, f16, 8)
GROUP_NORM(bf16, bf16, 8)
GROUP_NORM(any_f16, f16, 1)
GROUP_NORM(any_bf16, bf16, 1)
