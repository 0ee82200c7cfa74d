// y = act(x W^T + bias) + residual, a linear layer. Reference: src/ops/gemm (PyTorch's `nn.Linear` with its neighbours).
//
//   x [M, K], W [N, K], residual [M, N], y [M, N]   f16 or bf16, row-major
//   bias [N]                                        f32
// With a layer norm of x, (x - mean) factor g + b over its rows, W is handed over as V = W g by columns, and bias as W b + bias:
//   norm [M, parts, 2]          f32: mean, and sum of squares about it, of equal parts of the rows of x
//   column_sums [N]             f32: sums of the rows of V, as they are stored
//   x' W^T = factor (x V^T - mean column_sums)
// so that the norm is never written. norm and column_sums are null if norm_parts is 0.
// With `statistics`, those of y for the norm that reads it next, [M / 32, N / 2, 2] or [M, N / 80, 2]: ./statistics.cuh.
//
// `geglu` (Shazeer 2020; diffusers' GEGLU) has rows of W, and of bias, in turns of 8: 8 of values, then the 8 of their gates. N counts
// both and is a multiple of 16; y and residual have `outputs` columns, at most N / 2: y = (x Wv^T + bv) gelu(x Wg^T + bg) + residual.
// Elsewhere outputs = N.
//
// Sums are f32, over k in ascending steps of 16 whatever the tile; bias, activation and residual are applied in f32 and the
// result is rounded once. So neither M, nor the place of a row, nor the entry changes a bit. `residual` may be null, or y; nothing
// else may overlap y. Blocks walk over y in bands (`raster`), which changes no bit either.
//
//                                                                                                 blocks an SM
// Entries                     threads  tile M x N x K  stages  dynamic shared  registers (sm_90a)  (A100, H100, 4090)
//   gemm_nt_128x160_{f16,bf16}  128    128 x 160 x 32    4        74752          241 (248)          2, 2, 1
//   gemm_nt_128x128_{f16,bf16}  128    128 x 128 x 32    4        66560          213 (220)          2, 2, 1
//   gemm_nt_64x64_{f16,bf16}    128     64 x  64 x 32    4        33280           94 (96)           4, 5, 3
//   gemm_nt_any_{f16,bf16}      128     64 x  64 x 32    4        33280          128 (128)          4, 4, 3
// and the same four as gemm_nt_geglu_*, with as many registers; these take no statistics. Statistics of rows are for 128x160.
// Grid: ceil(M / tile M) * ceil(N / tile N) blocks in x. M, N, K are at least 1, and K below 2^23.
// The first three need K to be a multiple of 8 and x and W to be aligned to 16 bytes. `any` takes all sizes and loads element by
// element through registers: for what is rare and small. M and N are free in all of them; y is written, and residual read, in vectors
// where `outputs` is a multiple of 8 and both are aligned.
// Every width of SD's UNet is a multiple of 160, so 128x160 wastes nothing there; 128x128 is for CLIP's (768, 1024, 1280, 4096).
//
// Moves 2 (M K + N K + M N) bytes (+ 2 M N with a residual) for 2 M N K FLOP: at K = N = 320 that is 160 FLOP a byte, the balance
// of an A100 (312e12 / 2.0e12), and more elsewhere: the tensor cores bind. Per 128 x 160 block and 16 of K, in SM cycles:
//   tensor cores    327,680 multiply-adds: 320 at A100's 1024 a cycle; 258 at 1270, which mma.sync is said to reach on H100
//   shared memory   ldmatrix 4 warps x (64 + 80) rows x 32 B = 18,432 B, copies in 9,216 B: 216 at 128 B a cycle
//   L2              9,216 B: 29 B a cycle on A100, 36 on H100, of 64
// Predicted, large M: A100 0.85 of 312 TFLOP/s; H100 0.80 of the 610 that mma.sync reaches (of 989 by wgmma). Measured: not yet.
//
// In SASS a step of 32 of K of 128 x 160 is 80 HMMA, 18 LDSM.x4, 9 LDGSTS.128, a barrier and some 45 others, mostly addresses.
//
// Ladder
//   4 warps of 64 x 80, not 8 of 64 x 40: ldmatrix traffic 18 KB, not 26 KB, per 16 of K; at 26 KB shared memory would take 280
//     cycles to the 258 of H100's tensor cores. Costs 160 accumulators a thread, no spills. Predicted only.
//   K tile 32 with 4 stages, not 64 with 3: 72 KB, not 108 KB, so that two blocks share an SM of A100 and fill each other's gaps.
//     A barrier every 32 of K instead of 64. Predicted only.
//   Sums staged through shared memory, not stored from fragments: 16-byte stores, not 4-byte ones. Predicted only.
//   GEGLU in turns of 8: value and gate of an output are in the same place of neighbouring mma tiles, hence of one lane, and only
//     their product is staged. Predicted only: it saves writing and reading 4 M N bytes.
//   The layer norm in W and the epilogue, not a pass that writes 2 M K bytes and has them read again. The statistics are taken by the
//     block that makes x, not from the stages here: 16 blocks of N would each do it, at 8 KB of shared memory a step. Predicted only:
//     4.4 GB of a step of SD1.5 with 16 images.
//   Bands as tall as weights that do not stay in L2 need, not always of 8 tiles. Predicted only: 1.3 GB of the same step on an A100.
#include "../elementwise/activation.cuh"
#include "statistics.cuh"

struct GemmNtParams {
    uint32_t m;
    uint32_t n;  // rows of W
    uint32_t k;
    uint32_t outputs;     // columns of y
    uint32_t band;        // tiles along M that are visited before the next tile along N
    uint32_t activation;  // enum Activation; none in `geglu`
    uint32_t statistics;  // enum Statistics, of y; none in `geglu`
    uint32_t norm_parts;  // parts of a row of x; 0 without layer norm
    float norm_eps;
};
PARAMS_LAYOUT(GemmNtParams, m, n, k, outputs, band, activation, statistics, norm_parts, norm_eps)

// Of a row of x: the layer norm of x is (x - mean) factor.
struct RowNorm {
    float mean, factor;
};

template <class TILE>
struct GemmNtShared {
    TileShared<TILE> tile;
    RowNorm rows[TILE::M];
};

extern __shared__ uint4 gemm_nt_shared[];

template <typename T>
struct Operands {
    T* y;
    float2* statistics;
    const T *x, *w;
    const float* bias;
    const T* residual;
    const float2* norm;
    const float* column_sums;
};

// ---- Layer norm of x ------------------------------------------------------------------------------------------------

// Merges the parts of the rows of x that the block multiplies. Rows past the end repeat the last one.
template <class TILE>
__device__ inline void find_rows(RowNorm* rows, const float2* norm, uint32_t first, const GemmNtParams& p) {
    const float count = p.k / p.norm_parts;
    for (uint32_t i = threadIdx.x; i < TILE::M; i += TILE::THREADS) {
        const float2* parts = norm + static_cast<uint64_t>(min(first + i, p.m - 1)) * p.norm_parts;
        const float origin = parts[0].x;
        float distance = 0.0f, distance_squared = 0.0f, squares = 0.0f;
#pragma unroll 4
        for (uint32_t part = 0; part < p.norm_parts; ++part) {
            const float2 of = parts[part];
            const float d = of.x - origin;
            distance += d, distance_squared = fmaf(d, d, distance_squared), squares += of.y;
        }
        const Merged row(origin, distance, distance_squared, squares, p.norm_parts, count);
        rows[i] = {row.mean, rsqrt_approx(row.squares / p.k + p.norm_eps)};
    }
}

// A sum of x W^T, of a column of W whose sum is `column_sum`, as that of the norm of x.
__device__ inline float normalised(float sum, const RowNorm& row, float column_sum) {
    // Not contracted with the bias that follows, whatever the kernel: they all give the same bits.
    return __fmul_rn(fmaf(-row.mean, column_sum, sum), row.factor);
}

// ---- The end --------------------------------------------------------------------------------------------------------

// Turns sums of values and gates, with their biases, into products: of mma tiles 2 j and 2 j + 1 in tile j. `rows` are those of
// the warp, unless x has no norm.
template <class TILE>
__device__ inline void gate(typename TILE::Sums& sums, const float* bias, const RowNorm* rows, const float* column_sums,
                            uint32_t first_column, uint32_t n) {
#pragma unroll
    for (int j = 0; j < TILE::MMAS_N / 2; ++j) {
        const uint32_t column = first_column + 2 * j * MMA_N + threadIdx.x % 4 * 2;
        if (column >= n) return;
        const float values[2] = {bias[column], bias[column + 1]};
        const float gates[2] = {bias[column + MMA_N], bias[column + MMA_N + 1]};
        if (rows != nullptr) {
            const float value_sums[2] = {column_sums[column], column_sums[column + 1]};
            const float gate_sums[2] = {column_sums[column + MMA_N], column_sums[column + MMA_N + 1]};
#pragma unroll
            for (int i = 0; i < TILE::MMAS_M; ++i) {
#pragma unroll
                for (int c = 0; c < 4; ++c) {
                    const RowNorm row = rows[i * MMA_M + threadIdx.x % WARP / 4 + c / 2 * 8];
                    sums[i][2 * j][c] = normalised(sums[i][2 * j][c], row, value_sums[c % 2]);
                    sums[i][2 * j + 1][c] = normalised(sums[i][2 * j + 1][c], row, gate_sums[c % 2]);
                }
            }
        }
#pragma unroll
        for (int i = 0; i < TILE::MMAS_M; ++i) {
#pragma unroll
            for (int c = 0; c < 4; ++c) {
                sums[i][j][c] = (sums[i][2 * j][c] + values[c % 2]) * gelu(sums[i][2 * j + 1][c] + gates[c % 2]);
            }
        }
    }
}

template <typename T, class TILE, bool VECTORS, bool GEGLU>
__device__ inline void gemm_nt(const Operands<T>& at, const GemmNtParams& p) {
    constexpr int COLUMNS = TILE::WARP_N / (GEGLU ? 2 : 1);
    auto& shared = *reinterpret_cast<GemmNtShared<TILE>*>(gemm_nt_shared);
    TilePosition first = raster<TILE>(blockIdx.x, p.m, p.n, p.band);
    // The barriers of the product lie between this and what reads it.
    if (p.norm_parts > 0) find_rows<TILE>(shared.rows, at.norm, first.row, p);
    RowCopy<T, TILE::M, TILE::THREADS, VECTORS> copy_x(at.x, first.row, p.m, p.k);
    RowCopy<T, TILE::N, TILE::THREADS, VECTORS> copy_w(at.w, first.column, p.n, p.k);
    typename TILE::Sums sums = {};
    multiply<T, TILE>(sums, shared.tile, copy_x, copy_w, p.k);

    const TilePosition warp = warp_position<TILE>();
    const RowNorm* rows = shared.rows + warp.row;
    first.row += warp.row, first.column += warp.column;
    const Parts parts(p.outputs, at.y, at.residual, at.bias, at.column_sums);
    if constexpr (GEGLU) {
        gate<TILE>(sums, at.bias, p.norm_parts > 0 ? rows : nullptr, at.column_sums, first.column, p.n);
        first.column /= 2;
    }
    const auto finish = [&](float(&values)[8], uint32_t row, uint32_t column) {
        const uint64_t place = static_cast<uint64_t>(row) * p.outputs + column;
        if constexpr (!GEGLU) {
            if (p.norm_parts > 0) {
                const RowNorm of = rows[row - first.row];
                float column_sums[8] = {};
                parts.add(column_sums, at.column_sums, column, column);
#pragma unroll
                for (int i = 0; i < 8; ++i) values[i] = normalised(values[i], of, column_sums[i]);
            }
            parts.add(values, at.bias, column, column);
            activate(values, p.activation);
        }
        if (at.residual != nullptr) parts.add(values, at.residual, place, column);
        parts.put(values, at.y, place, column);
    };
    if constexpr (GEGLU) {
        for_each_part<TILE, COLUMNS>(sums, shared.tile, first, p.m, p.outputs, finish, NoStatistics{});
    } else {
        const TakeStatistics<T, TILE, COLUMNS, COLUMNS == STATISTICS_COLUMNS> statistics{p.statistics, at.statistics, p.m, p.outputs};
        for_each_part<TILE, COLUMNS>(sums, shared.tile, first, p.m, p.outputs, finish, statistics);
    }
}

#define GEMM_NT(NAME, T, TILE, VECTORS, GEGLU)                                                     \
    extern "C" __global__ void __launch_bounds__(TILE::THREADS, TILE::BLOCKS)                      \
        NAME(T* y, float2* statistics, const T* x, const T* w, const float* bias, const T* residual,       \
             const float2* norm, const float* column_sums, GemmNtParams p) {                                \
        gemm_nt<T, TILE, VECTORS, GEGLU>({y, statistics, x, w, bias, residual, norm, column_sums}, p);     \
    }
#define GEMM_NT_BOTH(SUFFIX, T, TILE, VECTORS)             \
    GEMM_NT(gemm_nt_##SUFFIX, T, TILE, VECTORS, false)     \
    GEMM_NT(gemm_nt_geglu_##SUFFIX, T, TILE, VECTORS, true)

GEMM_NT_BOTH(128x160_f16, f16, Tile128x160, true)
GEMM_NT_BOTH(128x160_bf16, bf16, Tile128x160, true)
GEMM_NT_BOTH(128x128_f16, f16, Tile128x128, true)
GEMM_NT_BOTH(128x128_bf16, bf16, Tile128x128, true)
GEMM_NT_BOTH(64x64_f16, f16, Tile64x64, true)
GEMM_NT_BOTH(64x64_bf16, bf16, Tile64x64, true)
GEMM_NT_BOTH(any_f16, f16, Tile64x64, false)
GEMM_NT_BOTH(any_bf16, bf16, Tile64x64, false)
