// out = softmax(q k^T / sqrt(D)) v for each sample and head, with a streaming softmax: no T x S matrix. Reference:
// src/ops/attention; Dao 2023, "FlashAttention-2", algorithm 1.
//
//   q [B, T, *], k and v [P, S, *]   f16 or bf16: D columns for each head, in rows of fused projections
//   kv_rows [B]                      u32: sample b uses keys and values number kv_rows[b]; null: number b
//   out [B, T, heads * D]            f16 or bf16
// Scores, maxima, sums and results are f32; probabilities, e^(score - the largest so far), are rounded to the storage type for
// the second product and added up before that. Tiles of keys are taken in order, and a row needs nothing of another: its bits
// depend on neither the batch nor its place. A row without finite scores, or with one that is NaN or +inf, is NaN.
//
// Entries                            threads  queries  dynamic shared  registers (sm_90a)  blocks an SM (A100, H100, 4090)
//   attention_forward_d40_{f16,bf16}   128      128        20480          168 (165)          3, 3, 3
//   attention_forward_d64_{f16,bf16}   128      128        32768          254 (237)          2, 2, 2
//   attention_forward_d80_{f16,bf16}   128      128        40960          248 (255)          2, 2, 2
//   attention_forward_d160_{f16,bf16}  128       64        81920          218 (228)          2, 2, 1
// Grid: ceil(T / queries), heads, samples. k_stride = v_stride, strides are multiples of 8 below 2^24, pointers multiples of 16.
// D = 512: attention_wide.cu. All else: attention_any.cu.
//
// Reads q and writes the result once; a block reads all keys and values of its head, from L2 but for the first. 4 T S D FLOP for
// 4 (T + S) D bytes: at T = S = 4096, 2048 FLOP a byte. The SM binds. Per block and tile of 64 keys, in cycles:
//                                                             D = 40     64     80    160 (64 queries)
//   tensor cores, 1024 multiply-adds (A100)                      640   1024   1280   1280
//   tensor cores, 1270 (mma.sync on H100, as said to reach)      516    826   1032   1032
//   shared memory, 128 B: ldmatrix of 4 warps, copies in         400    640    800   1600
//   exponentials, 16: one a score                                512    512    512    256
//   L2 at 64 B: keys and values                                  160    256    320    640
// Instructions, four a cycle: at D = 40 some 560 a warp and tile, 88 of them HMMA, 64 each of EX2, FFMA, FADD and FMNMX: 560
// cycles. So the tensor cores bind on A100; on H100 at D = 40 they are level with exponentials and issue; at 160 shared memory
// binds.
// Nothing is padded: D = 40 is two steps of 16 and one of 8, and of 77 keys 80 are computed.
// Predicted, T = S = 4096, of the rate of mma.sync: 0.65 at D = 40 (A100 200 TFLOP/s, H100 400), 0.7 at D = 64 and 80.
// Measured: not yet.
//
// Ladder
//   Warps of 32 queries, not 16: half the ldmatrix traffic a score; shared memory would take 720 cycles at D = 40, more than the
//     tensor cores. At D = 160 the sums do not fit; its 256 and 64 queries are a small part. Predicted only.
//   mma m16n8k8 for the last 8 of D = 40, not zeros up to 48: 640 cycles for 704. Predicted only.
//   Where a row to copy lies is worked out for each tile and not kept: 168 registers hold all at D = 40, without spills, and so
//     three blocks an SM, not two. Predicted only.
//   Results are scaled to a new maximum only if one of the warp's rows has it: times 1 changes nothing. 40 multiplications less
//     a lane and tile at D = 40. Predicted only.
#include "attention.cuh"

// ---- Tiles ----------------------------------------------------------------------------------------------------------

constexpr int KEYS = 64;  // of a stage
constexpr int WARPS = 4;
constexpr int THREADS = WARPS * WARP;
constexpr int STAGES = 2;

// A warp computes MMAS_M mma tiles of queries for heads of D channels.
template <int D_, int MMAS_M_, int BLOCKS_>
struct Tile {
    static constexpr int D = D_, MMAS_M = MMAS_M_, BLOCKS = BLOCKS_;
    static constexpr int CHUNKS = D / 8;
    static constexpr int WARP_ROWS = MMAS_M * MMA_M, QUERIES = WARPS * WARP_ROWS;
    static constexpr int STEPS = D / MMA_K;  // of QK^T, with half a step more if D is an odd multiple of 8
    static constexpr bool HALF_STEP = D % MMA_K != 0;
    static_assert(D % 8 == 0 && QUERIES <= 2 * KEYS);
};

using Tile40 = Tile<40, 2, 3>;
using Tile64 = Tile<64, 2, 2>;
using Tile80 = Tile<80, 2, 2>;
using Tile160 = Tile<160, 1, 2>;

template <class TILE>
struct AttentionShared {
    union Stage {
        struct {
            uint4 k[KEYS][TILE::CHUNKS];
            uint4 v[KEYS][TILE::CHUNKS];
        };
        uint4 rows[TILE::QUERIES][TILE::CHUNKS];  // queries before the loop, results after it
    } stages[STAGES];
};

static_assert(sizeof(AttentionShared<Tile40>) == 20480);
static_assert(sizeof(AttentionShared<Tile64>) == 32768);
static_assert(sizeof(AttentionShared<Tile80>) == 40960);
static_assert(sizeof(AttentionShared<Tile160>) == 81920);

extern __shared__ uint4 attention_shared[];

// ---- One tile of keys -----------------------------------------------------------------------------------------------

// Operands of the queries of a warp.
template <class TILE>
struct Queries {
    uint32_t steps[TILE::MMAS_M][TILE::STEPS][4];
    uint32_t half[TILE::MMAS_M][2];  // not used without a half step

    // From rows of a warp in shared memory.
    __device__ explicit Queries(uint32_t rows) {
        const uint32_t lane = threadIdx.x % WARP;
#pragma unroll
        for (int i = 0; i < TILE::MMAS_M; ++i) {
            const uint32_t row = i * MMA_M + lane % 16;
#pragma unroll
            for (int k = 0; k < TILE::STEPS; ++k) {
                load_matrices(steps[i][k], rows + position<TILE::CHUNKS>(row, 2 * k + lane / 16) * 16);
            }
            if constexpr (TILE::HALF_STEP) load_two_matrices(half[i], rows + position<TILE::CHUNKS>(row, 2 * TILE::STEPS) * 16);
        }
    }
};

// Scores of 16 keys, whose rows start at `k`: s[0] of the first 8, s[1] of the others.
template <typename T, class TILE>
__device__ inline void score(float (&s)[TILE::MMAS_M][KEYS / MMA_N][4], const Queries<TILE>& q, uint32_t k, int group) {
    // ldmatrix takes the halves of D first, so that r[0], r[1] are b0, b1 of 8 keys and r[2], r[3] those of the next.
    const uint32_t lane = threadIdx.x % WARP, row = lane % 8 + lane / 16 * 8, half = lane / 8 % 2;
#pragma unroll
    for (int i = 0; i < TILE::MMAS_M; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) s[i][2 * group][j] = s[i][2 * group + 1][j] = 0.0f;
    }
#pragma unroll
    for (int step = 0; step < TILE::STEPS; ++step) {
        uint32_t b[4];
        load_matrices(b, k + (group * 16 * TILE::CHUNKS + position<TILE::CHUNKS>(row, 2 * step + half)) * 16);
#pragma unroll
        for (int i = 0; i < TILE::MMAS_M; ++i) {
            multiply_add(s[i][2 * group], q.steps[i][step], b[0], b[1], T{});
            multiply_add(s[i][2 * group + 1], q.steps[i][step], b[2], b[3], T{});
        }
    }
    if constexpr (TILE::HALF_STEP) {
        uint32_t b[2];
        load_two_matrices(b, k + (group * 16 * TILE::CHUNKS + position<TILE::CHUNKS>(lane % 16, 2 * TILE::STEPS)) * 16);
#pragma unroll
        for (int i = 0; i < TILE::MMAS_M; ++i) {
            multiply_add_half(s[i][2 * group], q.half[i], b[0], T{});
            multiply_add_half(s[i][2 * group + 1], q.half[i], b[1], T{});
        }
    }
}

// Adds the values of 16 keys, times their probabilities.
template <typename T, class TILE>
__device__ inline void gather(float (&o)[TILE::MMAS_M][TILE::CHUNKS][4], const float (&s)[TILE::MMAS_M][KEYS / MMA_N][4],
                              uint32_t v, int group) {
    const uint32_t lane = threadIdx.x % WARP;
    uint32_t a[TILE::MMAS_M][4];
#pragma unroll
    for (int i = 0; i < TILE::MMAS_M; ++i) {
        // The sums of a product lie as the operand A of the next wants them.
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const float(&c)[4] = s[i][2 * group + j / 2];
            a[i][j] = pack_pair(c[j % 2 * 2], c[j % 2 * 2 + 1], T{});
        }
    }
    const uint32_t rows = v + group * 16 * TILE::CHUNKS * 16;
#pragma unroll
    for (int chunk = 0; chunk + 1 < TILE::CHUNKS; chunk += 2) {
        uint32_t b[4];
        load_matrices_transposed(b, rows + position<TILE::CHUNKS>(lane % 16, chunk + lane / 16) * 16);
#pragma unroll
        for (int i = 0; i < TILE::MMAS_M; ++i) {
            multiply_add(o[i][chunk], a[i], b[0], b[1], T{});
            multiply_add(o[i][chunk + 1], a[i], b[2], b[3], T{});
        }
    }
    if constexpr (TILE::CHUNKS % 2 != 0) {
        constexpr int LAST = TILE::CHUNKS - 1;
        uint32_t b[2];
        load_two_matrices_transposed(b, rows + position<TILE::CHUNKS>(lane % 16, LAST) * 16);
#pragma unroll
        for (int i = 0; i < TILE::MMAS_M; ++i) multiply_add(o[i][LAST], a[i], b[0], b[1], T{});
    }
}

// What a warp knows of its queries. Of each mma tile a lane has rows g and g + 8.
template <class TILE>
struct Rows {
    float o[TILE::MMAS_M][TILE::CHUNKS][4] = {};  // sums of values
    float base[TILE::MMAS_M][2];                  // the largest score so far, as an exponent
    float sum[TILE::MMAS_M][2] = {};              // of the exponentials, this lane's share

    __device__ Rows() {
#pragma unroll
        for (int i = 0; i < TILE::MMAS_M; ++i) base[i][0] = base[i][1] = -INFINITY;
    }

    // Replaces scores by 2^(scale score - base), and scales what was summed to the new base.
    __device__ void soften(float (&s)[TILE::MMAS_M][KEYS / MMA_N][4], float scale) {
        float shrink[TILE::MMAS_M][2];
        bool same = true;
#pragma unroll
        for (int i = 0; i < TILE::MMAS_M; ++i) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                float largest = fmaxf(s[i][0][2 * h], s[i][0][2 * h + 1]);
#pragma unroll
                for (int j = 1; j < KEYS / MMA_N; ++j) largest = fmaxf(largest, fmaxf(s[i][j][2 * h], s[i][j][2 * h + 1]));
                const float above = fmaxf(base[i][h], quad_reduce<Larger>(largest) * scale);
                shrink[i][h] = exp2_approx(base[i][h] - above);
                same &= shrink[i][h] == 1.0f;
                base[i][h] = above;
                float added = 0.0f;
#pragma unroll
                for (int j = 0; j < KEYS / MMA_N; ++j) {
#pragma unroll
                    for (int e = 2 * h; e < 2 * h + 2; ++e) {
                        s[i][j][e] = exp2_approx(fmaf(s[i][j][e], scale, -above));
                        added += s[i][j][e];
                    }
                }
                sum[i][h] = fmaf(sum[i][h], shrink[i][h], added);
            }
        }
        if (__all_sync(ALL_LANES, same)) return;  // as mostly after the first tiles; times 1 changes no bit
#pragma unroll
        for (int i = 0; i < TILE::MMAS_M; ++i) {
#pragma unroll
            for (int j = 0; j < TILE::CHUNKS; ++j) {
#pragma unroll
                for (int e = 0; e < 4; ++e) o[i][j][e] *= shrink[i][e / 2];
            }
        }
    }

    // Takes the tile of keys from number `start` on. MASKED: some of them are not seen by all rows of the warp, the first of
    // which is `first_row`.
    template <typename T, bool MASKED>
    __device__ void add_tile(const Queries<TILE>& q, uint32_t k, uint32_t v, uint32_t start, uint32_t first_row,
                             const AttentionParams& p) {
        constexpr int GROUPS = KEYS / 16;
        float s[TILE::MMAS_M][KEYS / MMA_N][4];
        const uint32_t lane = threadIdx.x % WARP;
        const uint32_t seen = seen_by(first_row + TILE::WARP_ROWS - 1, p);
        const uint32_t left = seen > start ? seen - start : 0;
#pragma unroll
        for (int group = 0; group < GROUPS; ++group) {
            if (!MASKED || group * 16 < left) score<T, TILE>(s, q, k, group);
        }
        if constexpr (MASKED) {
#pragma unroll
            for (int i = 0; i < TILE::MMAS_M; ++i) {
#pragma unroll
                for (int e = 0; e < 4; ++e) {
                    const uint32_t row_seen = seen_by(first_row + i * MMA_M + lane / 4 + e / 2 * 8, p);
#pragma unroll
                    for (int j = 0; j < KEYS / MMA_N; ++j) {
                        const uint32_t key = start + j * MMA_N + lane % 4 * 2 + e % 2;
                        if (key >= row_seen) s[i][j][e] = -INFINITY;
                    }
                }
            }
        }
        soften(s, p.scale);
#pragma unroll
        for (int group = 0; group < GROUPS; ++group) {
            if (!MASKED || group * 16 < left) gather<T, TILE>(o, s, v, group);
        }
    }

    // Divides by the sums and stores, through the warp's part of shared memory.
    template <typename T>
    __device__ void store(T* out, uint32_t stride, uint4* staged, uint32_t valid) {
        const uint32_t lane = threadIdx.x % WARP;
#pragma unroll
        for (int i = 0; i < TILE::MMAS_M; ++i) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const float factor = 1.0f / quad_reduce<Sum>(sum[i][h]);
                const uint32_t row = i * MMA_M + h * 8 + lane / 4;
#pragma unroll
                for (int j = 0; j < TILE::CHUNKS; ++j) {
                    uint32_t* chunk = reinterpret_cast<uint32_t*>(staged + position<TILE::CHUNKS>(row, j));
                    chunk[lane % 4] = pack_pair(o[i][j][2 * h] * factor, o[i][j][2 * h + 1] * factor, T{});
                }
            }
        }
        __syncwarp();  // the results of all lanes are staged
        constexpr int ITEMS = TILE::WARP_ROWS * TILE::CHUNKS;
#pragma unroll
        for (int item = 0; item < ITEMS; item += WARP) {
            const uint32_t row = (item + lane) / TILE::CHUNKS, chunk = (item + lane) % TILE::CHUNKS;
            if (row >= valid) break;
            uint4* to = reinterpret_cast<uint4*>(out + static_cast<uint64_t>(row) * stride + chunk * 8);
            *to = staged[position<TILE::CHUNKS>(row, chunk)];
        }
    }
};

// ---- The kernel -----------------------------------------------------------------------------------------------------

template <typename T, class TILE>
__device__ inline void attention(T* out, const T* q, const T* k, const T* v, const uint32_t* kv_rows, const AttentionParams& p) {
    constexpr int CHUNKS = TILE::CHUNKS;
    auto& shared = *reinterpret_cast<AttentionShared<TILE>*>(attention_shared);
    const uint32_t first = blockIdx.x * TILE::QUERIES, column = blockIdx.y * TILE::D, sample = blockIdx.z;
    const uint32_t pair = pair_of(sample, kv_rows), queries = min(p.queries - first, static_cast<uint32_t>(TILE::QUERIES));
    q = rows_of(q, sample, p.queries, first, p.q_stride, column);
    k = rows_of(k, pair, p.keys, 0, p.k_stride, column);
    v = rows_of(v, pair, p.keys, 0, p.k_stride, column);
    const uint32_t seen = seen_by(first + queries - 1, p), tiles = ceil_div(seen, static_cast<uint32_t>(KEYS));
    const auto start = [&](uint32_t tile) {
        if (tile < tiles) {
            auto& stage = shared.stages[tile % STAGES];
            const uint64_t row = static_cast<uint64_t>(tile) * KEYS;
            const T* const both[] = {k + row * p.k_stride, v + row * p.k_stride};
            start_copies<KEYS, CHUNKS, THREADS>(shared_address(&stage), both, p.k_stride, p.keys - row);
        }
        copy_async_commit();
    };
    start_copies<TILE::QUERIES, CHUNKS, THREADS>(shared_address(shared.stages[1].rows), {q}, p.q_stride, queries);
    copy_async_commit();
    start(0);
    copy_async_wait<1>();  // the queries have landed, as far as this thread copied them
    __syncthreads();       // they have landed altogether

    const uint32_t warp_row = threadIdx.x / WARP * TILE::WARP_ROWS;
    const Queries<TILE> operands(shared_address(shared.stages[1].rows[warp_row]));
    Rows<TILE> rows;
    for (uint32_t tile = 0; tile < tiles; ++tile) {
        copy_async_wait<0>();  // this tile has landed, as far as this thread copied it
        __syncthreads();       // it has landed altogether, and all warps have left the stage that is filled next
        start(tile + 1);
        const auto& stage = shared.stages[tile % STAGES];
        const uint32_t at_k = shared_address(stage.k), at_v = shared_address(stage.v), key = tile * KEYS;
        if (key + KEYS <= seen_by(first + warp_row, p)) {
            rows.template add_tile<T, false>(operands, at_k, at_v, key, first + warp_row, p);
        } else {
            rows.template add_tile<T, true>(operands, at_k, at_v, key, first + warp_row, p);
        }
    }
    if (warp_row >= queries) return;
    // The stage before the last one: all warps left it before the last tile.
    uint4* staged = shared.stages[tiles % STAGES].rows[warp_row];
    const uint32_t stride = gridDim.y * TILE::D;
    rows.store(rows_of(out, sample, p.queries, first + warp_row, stride, column), stride, staged, queries - warp_row);
}

#define ATTENTION(NAME, T, TILE)                                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS, TILE::BLOCKS)                                        \
        NAME(T* out, const T* q, const T* k, const T* v, const uint32_t* kv_rows, AttentionParams p) {         \
        attention<T, TILE>(out, q, k, v, kv_rows, p);                                                          \
    }

ATTENTION(attention_forward_d40_f16, f16, Tile40)
ATTENTION(attention_forward_d40_bf16, bf16, Tile40)
ATTENTION(attention_forward_d64_f16, f16, Tile64)
ATTENTION(attention_forward_d64_bf16, bf16, Tile64)
ATTENTION(attention_forward_d80_f16, f16, Tile80)
ATTENTION(attention_forward_d80_bf16, bf16, Tile80)
ATTENTION(attention_forward_d160_f16, f16, Tile160)
ATTENTION(attention_forward_d160_bf16, bf16, Tile160)
