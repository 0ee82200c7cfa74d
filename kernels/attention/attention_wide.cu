// attention.cu for one wide head of 512 channels, the middle of SD's VAE: 64 x 512 sums of values fill half of the registers of
// an SM, so a block shares 64 queries among 8 warps, which split the keys of the scores and then the columns of the result.
// Formula, buffers and order of arguments are those of attention.cu.
//
// Entries                               threads  grid                            dynamic shared
//   attention_forward_d512_{f16,bf16}     256    ceil(T / 64), heads, samples        99584
// Strides are multiples of 8 below 2^24, pointers multiples of 16. One block an SM, on an RTX 4090 (99 KB a block) too.
//
// 64 keys are a tile. Its keys come as 8 pieces of 64 channels, its values as 8 pieces of 16 keys and 256 columns, 8 KB each,
// through three stages: one is read, two are on their way. Warp w has rows w % 4 * 16 and keys w / 4 * 32 of the scores, and
// columns w * 32 of both halves of the result. Row maxima and probabilities pass through shared memory.
// Per tile, in SM cycles of an A100 (1024 multiply-adds, 128 B of shared memory, 16 exponentials a cycle):
//   tensor cores    4,194,304 multiply-adds: 4096
//   shared memory   scores 8 warps x (16 + 32) rows x 1 KB, values 8 x (8 KB + 8 KB of P for each half), copies in: 6144
//   exponentials    4096: 256            L2   128 KB: 21 B a cycle, of 64
// So shared memory binds. Predicted: 0.5 of the rate of mma.sync, for 1.4% of the FLOP of the VAE. Measured: not yet.
//
// Ladder
//   Warps of 32 x 32 scores, a third less to read for them: only four of the warps would work, or on 128 keys, whose pieces take
//     more than an RTX 4090's 99 KB. Not tried.
#include "attention.cuh"

constexpr int D = 512;
constexpr int CHUNKS = D / 8;
constexpr int QUERIES = 64, KEYS = 64;
constexpr int WARPS = 8;
constexpr int THREADS = WARPS * WARP;
constexpr int STAGES = 3;
constexpr int MMAS_M = QUERIES / MMA_M;

constexpr int KEY_CHUNKS = 8;                          // of a piece of keys: 64 channels
constexpr int KEY_PIECES = CHUNKS / KEY_CHUNKS;        // of a tile
constexpr int VALUE_KEYS = 16, VALUE_CHUNKS = 32;      // of a piece of values: 256 columns
constexpr int HALVES = CHUNKS / VALUE_CHUNKS;          // of the columns
constexpr int VALUE_PIECES = KEYS / VALUE_KEYS * HALVES;
constexpr int PIECES = KEY_PIECES + VALUE_PIECES;

constexpr int SCORE_KEYS = 32, SCORE_MMAS = SCORE_KEYS / MMA_N;  // of a warp
constexpr int SPLITS = KEYS / SCORE_KEYS;
constexpr int COLUMN_MMAS = VALUE_CHUNKS / WARPS;  // columns of a warp in each half, in mma tiles

struct AttentionWideShared {
    uint4 q[QUERIES][CHUNKS];  // and the results, after the last tile
    uint4 p[QUERIES][KEYS / 8];
    union Stage {
        uint4 k[KEYS][KEY_CHUNKS];
        uint4 v[VALUE_KEYS][VALUE_CHUNKS];
    } stages[STAGES];
    float maxima[SPLITS][QUERIES];
    float sums[SPLITS][QUERIES];
    float shrinks[QUERIES];
};
static_assert(sizeof(AttentionWideShared) == 99584);
static_assert(WARPS == MMAS_M * SPLITS);

extern __shared__ uint4 attention_wide_shared[];

// Scores of a warp's 16 queries and 32 keys, 64 channels of them.
template <typename T>
__device__ inline void score(float (&s)[SCORE_MMAS][4], uint32_t q, uint32_t k, uint32_t row, uint32_t first_key,
                             uint32_t piece) {
    const uint32_t lane = threadIdx.x % WARP;
#pragma unroll
    for (int step = 0; step < KEY_CHUNKS / 2; ++step) {
        uint32_t a[4];
        load_matrices(a, q + position<CHUNKS>(row + lane % 16, piece * KEY_CHUNKS + 2 * step + lane / 16) * 16);
#pragma unroll
        for (int j = 0; j < SCORE_MMAS; j += 2) {
            uint32_t b[4];
            const uint32_t key = first_key + j * MMA_N + lane % 8 + lane / 16 * 8;
            load_matrices(b, k + position<KEY_CHUNKS>(key, 2 * step + lane / 8 % 2) * 16);
            multiply_add(s[j], a, b[0], b[1], T{});
            multiply_add(s[j + 1], a, b[2], b[3], T{});
        }
    }
}

// Adds 16 keys' values times their probabilities, for the columns of a warp in one half.
template <typename T>
__device__ inline void gather(float (&o)[MMAS_M][COLUMN_MMAS][4], uint32_t p, uint32_t v, uint32_t group, uint32_t warp) {
    const uint32_t lane = threadIdx.x % WARP;
    uint32_t b[COLUMN_MMAS / 2][4];
#pragma unroll
    for (int j = 0; j < COLUMN_MMAS / 2; ++j) {
        load_matrices_transposed(b[j], v + position<VALUE_CHUNKS>(lane % 16, warp * COLUMN_MMAS + 2 * j + lane / 16) * 16);
    }
#pragma unroll
    for (int i = 0; i < MMAS_M; ++i) {
        uint32_t a[4];
        load_matrices(a, p + position<KEYS / 8>(i * MMA_M + lane % 16, 2 * group + lane / 16) * 16);
#pragma unroll
        for (int j = 0; j < COLUMN_MMAS; ++j) multiply_add(o[i][j], a, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1], T{});
    }
}

template <typename T>
__device__ inline void attention_wide(T* out, const T* q, const T* k, const T* v, const uint32_t* kv_rows,
                                      const AttentionParams& p) {
    auto& shared = *reinterpret_cast<AttentionWideShared*>(attention_wide_shared);
    const uint32_t first = blockIdx.x * QUERIES, column = blockIdx.y * D, sample = blockIdx.z;
    const uint32_t pair = pair_of(sample, kv_rows), queries = min(p.queries - first, static_cast<uint32_t>(QUERIES));
    q = rows_of(q, sample, p.queries, first, p.q_stride, column);
    k = rows_of(k, pair, p.keys, 0, p.k_stride, column);
    v = rows_of(v, pair, p.keys, 0, p.v_stride, column);
    const uint32_t tiles = ceil_div(seen_by(first + queries - 1, p), static_cast<uint32_t>(KEYS));
    const auto start = [&](uint32_t piece) {
        const uint32_t tile = piece / PIECES, part = piece % PIECES;
        if (tile < tiles) {
            auto& stage = shared.stages[piece % STAGES];
            if (part < KEY_PIECES) {
                const uint64_t row = static_cast<uint64_t>(tile) * KEYS;
                const T* from = k + row * p.k_stride + part * KEY_CHUNKS * 8;
                start_copies<KEYS, KEY_CHUNKS, THREADS>(shared_address(stage.k), {from}, p.k_stride, p.keys - row);
            } else {
                const uint32_t group = (part - KEY_PIECES) / HALVES, half = part % HALVES;
                const uint64_t row = static_cast<uint64_t>(tile) * KEYS + group * VALUE_KEYS;
                const T* from = v + half * VALUE_CHUNKS * 8 + (row < p.keys ? row * p.v_stride : 0);
                const uint32_t valid = row < p.keys ? p.keys - row : 0;
                start_copies<VALUE_KEYS, VALUE_CHUNKS, THREADS>(shared_address(stage.v), {from}, p.v_stride, valid);
            }
        }
        copy_async_commit();  // empty past the end, so that groups and pieces stay in step
    };
    start_copies<QUERIES, CHUNKS, THREADS>(shared_address(shared.q), {q}, p.q_stride, queries);
    for (uint32_t piece = 0; piece < STAGES - 1; ++piece) start(piece);  // the queries come with the first

    const uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const uint32_t row = warp % MMAS_M * MMA_M, split = warp / MMAS_M;
    const uint32_t at_q = shared_address(shared.q), at_p = shared_address(shared.p);
    float o[HALVES][MMAS_M][COLUMN_MMAS][4] = {};
    float base[2] = {-INFINITY, -INFINITY}, sum[2] = {};
    for (uint32_t tile = 0; tile < tiles; ++tile) {
        float s[SCORE_MMAS][4] = {};
        for (uint32_t part = 0; part < KEY_PIECES; ++part) {
            const uint32_t piece = tile * PIECES + part;
            copy_async_wait<STAGES - 2>();  // this piece has landed, as far as this thread copied it
            __syncthreads();                // it has landed altogether, and all warps have left the stage that is filled next
            start(piece + STAGES - 1);
            score<T>(s, at_q, shared_address(shared.stages[piece % STAGES].k), row, split * SCORE_KEYS, part);
        }
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const uint32_t own = row + h * 8 + lane / 4, seen = seen_by(first + own, p);
            float largest = -INFINITY;
#pragma unroll
            for (int j = 0; j < SCORE_MMAS; ++j) {
#pragma unroll
                for (int e = 2 * h; e < 2 * h + 2; ++e) {
                    const uint32_t key = tile * KEYS + split * SCORE_KEYS + j * MMA_N + lane % 4 * 2 + e % 2;
                    if (key >= seen) s[j][e] = -INFINITY;
                    largest = fmaxf(largest, s[j][e]);
                }
            }
            largest = quad_reduce<Larger>(largest);
            if (lane % 4 == 0) shared.maxima[split][own] = largest;
        }
        __syncthreads();  // the maxima of all warps are there, and all have left the probabilities of the last tile
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const uint32_t own = row + h * 8 + lane / 4;
            const float above = fmaxf(base[h], fmaxf(shared.maxima[0][own], shared.maxima[1][own]) * p.scale);
            const float shrink = exp2_approx(base[h] - above);
            if (split == 0 && lane % 4 == 0) shared.shrinks[own] = shrink;
            base[h] = above;
            float added = 0.0f;
#pragma unroll
            for (int j = 0; j < SCORE_MMAS; ++j) {
                const float low = exp2_approx(fmaf(s[j][2 * h], p.scale, -above));
                const float high = exp2_approx(fmaf(s[j][2 * h + 1], p.scale, -above));
                added += low;
                added += high;
                uint32_t* chunk = reinterpret_cast<uint32_t*>(&shared.p[0][0] + position<KEYS / 8>(own, split * SCORE_MMAS + j));
                chunk[lane % 4] = pack_pair(low, high, T{});
            }
            sum[h] = fmaf(sum[h], shrink, added);
        }
#pragma unroll
        for (int part = 0; part < VALUE_PIECES; ++part) {
            const uint32_t piece = tile * PIECES + KEY_PIECES + part;
            copy_async_wait<STAGES - 2>();  // this piece has landed, as far as this thread copied it
            __syncthreads();                // altogether, as have probabilities, and all warps have left the stage filled next
            start(piece + STAGES - 1);
            if (part == 0) {
                bool same = true;
                float shrinks[MMAS_M][2];
#pragma unroll
                for (int i = 0; i < 2 * MMAS_M; ++i) {
                    shrinks[i / 2][i % 2] = shared.shrinks[i * 8 + lane / 4];
                    same &= shrinks[i / 2][i % 2] == 1.0f;
                }
                if (!__all_sync(ALL_LANES, same)) {  // as mostly in the first tiles only; times 1 changes no bit
#pragma unroll
                    for (int i = 0; i < HALVES * MMAS_M * COLUMN_MMAS; ++i) {
                        float(&c)[4] = o[i / (MMAS_M * COLUMN_MMAS)][i / COLUMN_MMAS % MMAS_M][i % COLUMN_MMAS];
                        const float(&shrink)[2] = shrinks[i / COLUMN_MMAS % MMAS_M];
#pragma unroll
                        for (int e = 0; e < 4; ++e) c[e] *= shrink[e / 2];
                    }
                }
            }
            gather<T>(o[part % HALVES], at_p, shared_address(shared.stages[piece % STAGES].v), part / HALVES, warp);
        }
    }

#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const float all = quad_reduce<Sum>(sum[h]);
        if (lane % 4 == 0) shared.sums[split][row + h * 8 + lane / 4] = all;
    }
    __syncthreads();  // the sums of all warps are there, and all have left the queries, in whose place results go
#pragma unroll
    for (int i = 0; i < 2 * MMAS_M; ++i) {
        const uint32_t own = i * 8 + lane / 4;
        const float factor = 1.0f / (shared.sums[0][own] + shared.sums[1][own]);
#pragma unroll
        for (int j = 0; j < HALVES * COLUMN_MMAS; ++j) {
            const float(&c)[4] = o[j / COLUMN_MMAS][i / 2][j % COLUMN_MMAS];
            const uint32_t chunk = j / COLUMN_MMAS * VALUE_CHUNKS + warp * COLUMN_MMAS + j % COLUMN_MMAS;
            uint32_t* to = reinterpret_cast<uint32_t*>(&shared.q[0][0] + position<CHUNKS>(own, chunk));
            to[lane % 4] = pack_pair(c[i % 2 * 2] * factor, c[i % 2 * 2 + 1] * factor, T{});
        }
    }
    __syncthreads();  // the results of all warps are staged
    const uint32_t stride = gridDim.y * D;
    out = rows_of(out, sample, p.queries, first, stride, column);
    for (uint32_t item = threadIdx.x; item < queries * CHUNKS; item += THREADS) {
        const uint32_t own = item / CHUNKS, chunk = item % CHUNKS;
        const uint4 result = (&shared.q[0][0])[position<CHUNKS>(own, chunk)];
        *reinterpret_cast<uint4*>(out + static_cast<uint64_t>(own) * stride + chunk * 8) = result;
    }
}

#define ATTENTION_WIDE(T)                                                                                   \
    extern "C" __global__ void __launch_bounds__(THREADS, 1) attention_forward_d512_##T(                    \
        T* out, const T* q, const T* k, const T* v, const uint32_t* kv_rows, AttentionParams p) {           \
        attention_wide(out, q, k, v, kv_rows, p);                                                           \
    }

ATTENTION_WIDE(f16)
ATTENTION_WIDE(bf16)
