// y = act(x W^T + bias) + residual, a linear layer. Reference: src/ops/gemm (PyTorch's `nn.Linear` with its neighbours).
//
//   x [M, K], W [N, K], residual [M, N], y [M, N]   f16 or bf16, row-major
//   bias [N]                                        f32
// Sums are f32, over k in ascending steps of 16 whatever the tile; bias, activation and residual are applied in f32 and the
// result is rounded once. So neither M, nor the place of a row, nor the entry changes a bit. `residual` may be null, or y; nothing
// else may overlap y.
//
//                                                                                                 blocks an SM
// Entries                     threads  tile M x N x K  stages  dynamic shared  registers (sm_90a)  (A100, H100, 4090)
//   gemm_nt_128x160_{f16,bf16}  128    128 x 160 x 32    4        73728          240 (244)          2, 2, 1
//   gemm_nt_128x128_{f16,bf16}  128    128 x 128 x 32    4        65536          214 (218)          2, 2, 1
//   gemm_nt_64x64_{f16,bf16}    128     64 x  64 x 32    4        32768           95 (96)           4, 5, 3
//   gemm_nt_any_{f16,bf16}      128     64 x  64 x 32    4        32768          109 (106)          4, 4, 3
// Grid: ceil(M / tile M) * ceil(N / tile N) blocks in x. M, N, K are at least 1, and K below 2^23.
// The first three need K and N to be multiples of 8 and every pointer of 16 bytes. `any` takes all sizes and loads element by
// element through registers: for what is rare and small. M is free in all of them.
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
#include "../common.cuh"
#include "../elementwise/activation.cuh"

// ---- Tiles ----------------------------------------------------------------------------------------------------------

constexpr int TILE_K = 32;          // elements of K in a stage
constexpr int CHUNKS = TILE_K / 8;  // 16-byte chunks of a row of a stage
constexpr int MMA_M = 16, MMA_N = 8, MMA_K = 16;
constexpr int STAGED_ROWS = 32;      // rows of sums that a warp stages at once in the epilogue
constexpr uint32_t RASTER_ROWS = 8;  // tiles along M that are visited before the next tile along N: their x stays in L2

// A block computes M x N with WARPS_M x WARPS_N warps.
template <int M_, int N_, int WARPS_M_, int WARPS_N_, int STAGES_, int BLOCKS_>
struct Tile {
    static constexpr int M = M_, N = N_, STAGES = STAGES_, BLOCKS = BLOCKS_;
    static constexpr int WARPS_M = WARPS_M_, WARPS_N = WARPS_N_;
    static constexpr int THREADS = WARPS_M * WARPS_N * WARP;
    static constexpr int WARP_M = M / WARPS_M, WARP_N = N / WARPS_N;
    static constexpr int MMAS_M = WARP_M / MMA_M, MMAS_N = WARP_N / MMA_N;
    // ldmatrix of W takes two columns of mma tiles.
    static_assert(MMAS_N % 2 == 0 && WARP_M % STAGED_ROWS == 0 && M % (THREADS / CHUNKS) == 0 && N % (THREADS / CHUNKS) == 0);
};

using Tile128x160 = Tile<128, 160, 2, 2, 4, 2>;
using Tile128x128 = Tile<128, 128, 2, 2, 4, 2>;
using Tile64x64 = Tile<64, 64, 2, 2, 4, 4>;

struct GemmNtParams {
    uint32_t m;
    uint32_t n;
    uint32_t k;
    uint32_t activation;  // enum Activation
};
PARAMS_LAYOUT(GemmNtParams, m, n, k, activation)

// Rows of a stage are 64 bytes: chunk c of row r lies at c ^ (r / 2 % 4). Eight threads that copy in two rows, and eight rows of
// one chunk that ldmatrix reads, cover all 32 banks once.
template <class TILE>
union GemmNtShared {
    struct Stage {
        uint4 x[TILE::M][CHUNKS];
        uint4 w[TILE::N][CHUNKS];
    } stages[TILE::STAGES];
    // After the last stage. A pad of 8 floats spreads the rows that a half-warp writes over all banks.
    float sums[TILE::THREADS / WARP][STAGED_ROWS][TILE::WARP_N + 8];
};

static_assert(sizeof(GemmNtShared<Tile128x160>) == 73728);
static_assert(sizeof(GemmNtShared<Tile128x128>) == 65536);
static_assert(sizeof(GemmNtShared<Tile64x64>) == 32768);

extern __shared__ uint4 gemm_nt_shared[];

// Position of a chunk in a stage, in bytes.
__device__ inline uint32_t swizzled(uint32_t row, uint32_t chunk) { return row * (TILE_K * 2) + (chunk ^ (row / 2 % 4)) * 16; }

// ---- Copies into a stage --------------------------------------------------------------------------------------------

// What one thread copies of the ROWS rows of x or W that a block needs: one chunk in every STEP-th row. Rows past the end
// repeat the last one: what they give is not stored. Chunks past K are zero.
template <typename T, int ROWS, int THREADS, bool VECTORS>
struct RowCopy {
    static constexpr int STEP = THREADS / CHUNKS;
    static constexpr int PASSES = ROWS / STEP;
    static_assert(STEP % 8 == 0);  // the swizzle is that of the first row in all passes

    const char* base;
    uint32_t offsets[PASSES];  // of the rows, in bytes: below ROWS K 2 < 2^32
    uint32_t chunk;
    uint32_t position;

    __device__ RowCopy(const T* matrix, uint32_t first, uint32_t rows, uint32_t k) {
        const uint32_t row = threadIdx.x / CHUNKS, last = rows - 1 - first;
        base = reinterpret_cast<const char*>(matrix + static_cast<uint64_t>(first) * k);
        chunk = threadIdx.x % CHUNKS;
        position = swizzled(row, chunk);
#pragma unroll
        for (int i = 0; i < PASSES; ++i) offsets[i] = min(row + i * STEP, last) * k * sizeof(T);
    }

    // Starts the copies of columns `first_k` to `first_k + TILE_K` of `k`.
    __device__ void start(uint4* stage, uint32_t first_k, uint32_t k) const {
        const uint32_t column = first_k + chunk * 8;
        if constexpr (VECTORS) {
            const bool inside = column < k;
            const char* from = base + (inside ? column * sizeof(T) : 0);
            const uint32_t to = shared_address(stage) + position;
#pragma unroll
            for (int i = 0; i < PASSES; ++i) {
                copy_async_16(to + i * STEP * TILE_K * sizeof(T), from + offsets[i], inside ? 16 : 0);
            }
        } else {
#pragma unroll
            for (int i = 0; i < PASSES; ++i) {
                const T* row = reinterpret_cast<const T*>(base + offsets[i]);
                uint32_t pairs[4];
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    const uint32_t low = column + 2 * j < k ? row[column + 2 * j].bits : 0;
                    const uint32_t high = column + 2 * j + 1 < k ? row[column + 2 * j + 1].bits : 0;
                    pairs[j] = low | high << 16;
                }
                stage[position / 16 + i * STEP * CHUNKS] = {pairs[0], pairs[1], pairs[2], pairs[3]};
            }
        }
    }
};

// ---- Products -------------------------------------------------------------------------------------------------------

// Adds one stage to the sums of a warp, whose rows and columns start at `x` and `w` in shared memory.
template <typename T, class TILE>
__device__ inline void multiply_stage(float (&sums)[TILE::MMAS_M][TILE::MMAS_N][4], uint32_t x, uint32_t w) {
    // ldmatrix takes from lane l the address of one row of 8 elements: rows l % 16 and half l / 16 of K of x, for a[0..4] in
    // order; for W the halves of K first, so that r[0], r[1] are b0, b1 of one mma tile and r[2], r[3] those of the next.
    const uint32_t lane = threadIdx.x % WARP;
    const uint32_t x_lane = swizzled(lane % 16, lane / 16);
    const uint32_t w_lane = swizzled(lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
    for (int k = 0; k < TILE_K / MMA_K; ++k) {
        // Chunk 2 k + half: k flips a bit above that of the half, before the swizzle or after it.
        const uint32_t x_at = x + (x_lane ^ k * 32), w_at = w + (w_lane ^ k * 32);
        uint32_t a[TILE::MMAS_M][4], b[TILE::MMAS_N / 2][4];
#pragma unroll
        for (int i = 0; i < TILE::MMAS_M; ++i) load_matrices(a[i], x_at + i * MMA_M * TILE_K * sizeof(T));
#pragma unroll
        for (int j = 0; j < TILE::MMAS_N / 2; ++j) load_matrices(b[j], w_at + j * 2 * MMA_N * TILE_K * sizeof(T));
#pragma unroll
        for (int i = 0; i < TILE::MMAS_M; ++i) {
#pragma unroll
            for (int j = 0; j < TILE::MMAS_N; ++j) {
                multiply_add(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1], T{});
            }
        }
    }
}

// ---- Epilogue -------------------------------------------------------------------------------------------------------

// Bias, activation, residual and store of `N` neighbouring columns.
template <typename T, int N>
__device__ inline void finish(float (&sums)[N], T* y, const float* bias, const T* residual, const GemmNtParams& p, uint32_t row,
                              uint32_t column) {
    const uint64_t at = static_cast<uint64_t>(row) * p.n + column;
    float added[N];
    load(bias + column, added);
#pragma unroll
    for (int i = 0; i < N; ++i) sums[i] += added[i];
    activate(sums, p.activation);
    if (residual != nullptr) {
        load(residual + at, added);
#pragma unroll
        for (int i = 0; i < N; ++i) sums[i] += added[i];
    }
    store(y + at, sums);
}

// Takes the sums of a warp, whose first row and column of y are given, through shared memory, so that a lane has 8 neighbouring
// columns, and finishes them.
template <typename T, class TILE, bool VECTORS>
__device__ inline void store_sums(const float (&sums)[TILE::MMAS_M][TILE::MMAS_N][4],
                                  float (&staged)[STAGED_ROWS][TILE::WARP_N + 8], T* y, const float* bias, const T* residual,
                                  const GemmNtParams& p, uint32_t first_row, uint32_t first_column) {
    constexpr int COLUMN_CHUNKS = TILE::WARP_N / 8;
    constexpr int MMAS = STAGED_ROWS / MMA_M;
    const uint32_t lane = threadIdx.x % WARP;
#pragma unroll
    for (int part = 0; part < TILE::MMAS_M / MMAS; ++part) {
        if (part > 0) __syncwarp();  // the rows of the last part have been read
#pragma unroll
        for (int i = 0; i < MMAS; ++i) {
#pragma unroll
            for (int j = 0; j < TILE::MMAS_N; ++j) {
                const float(&c)[4] = sums[part * MMAS + i][j];
                const uint32_t row = i * MMA_M + lane / 4, column = j * MMA_N + lane % 4 * 2;
                *reinterpret_cast<float2*>(&staged[row][column]) = make_float2(c[0], c[1]);
                *reinterpret_cast<float2*>(&staged[row + 8][column]) = make_float2(c[2], c[3]);
            }
        }
        __syncwarp();  // the rows of this part are staged
#pragma unroll 1
        for (uint32_t at = lane; at < STAGED_ROWS * COLUMN_CHUNKS; at += WARP) {
            const uint32_t staged_row = at / COLUMN_CHUNKS, staged_column = at % COLUMN_CHUNKS * 8;
            const uint32_t row = first_row + part * STAGED_ROWS + staged_row, column = first_column + staged_column;
            if (row >= p.m || column >= p.n) continue;
            const float* from = &staged[staged_row][staged_column];
            if constexpr (VECTORS) {
                // Lanes four apart meet in the same banks: every other four take the upper half first.
                const uint32_t swap = lane / 4 % 2;
                const float4 first = *reinterpret_cast<const float4*>(from + 4 * swap);
                const float4 second = *reinterpret_cast<const float4*>(from + 4 - 4 * swap);
                const float4 low = swap ? second : first, high = swap ? first : second;
                float values[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
                finish(values, y, bias, residual, p, row, column);
            } else {
                const uint32_t columns = min(8u, p.n - column);
                for (uint32_t i = 0; i < columns; ++i) {
                    float value[1] = {from[i]};
                    finish(value, y, bias, residual, p, row, column + i);
                }
            }
        }
    }
}

// ---- The kernel -----------------------------------------------------------------------------------------------------

struct TilePosition {
    uint32_t row, column;
};

// Tiles in bands of RASTER_ROWS along M, each band column by column.
template <class TILE>
__device__ inline TilePosition raster(uint32_t block, const GemmNtParams& p) {
    const uint32_t tiles_m = (p.m - 1) / TILE::M + 1, tiles_n = (p.n - 1) / TILE::N + 1;
    const uint32_t band = block / (RASTER_ROWS * tiles_n), within = block % (RASTER_ROWS * tiles_n);
    const uint32_t rows = min(RASTER_ROWS, tiles_m - band * RASTER_ROWS);
    return {(band * RASTER_ROWS + within % rows) * TILE::M, within / rows * TILE::N};
}

template <typename T, class TILE, bool VECTORS>
__device__ inline void gemm_nt(T* y, const T* x, const T* w, const float* bias, const T* residual, const GemmNtParams& p) {
    auto& shared = *reinterpret_cast<GemmNtShared<TILE>*>(gemm_nt_shared);
    const TilePosition tile = raster<TILE>(blockIdx.x, p);
    const RowCopy<T, TILE::M, TILE::THREADS, VECTORS> copy_x(x, tile.row, p.m, p.k);
    const RowCopy<T, TILE::N, TILE::THREADS, VECTORS> copy_w(w, tile.column, p.n, p.k);
    const uint32_t steps = (p.k - 1) / TILE_K + 1;
    const auto start = [&](uint32_t step) {
        if (step < steps) {
            auto& stage = shared.stages[step % TILE::STAGES];
            copy_x.start(&stage.x[0][0], step * TILE_K, p.k);
            copy_w.start(&stage.w[0][0], step * TILE_K, p.k);
        }
        copy_async_commit();  // empty past the end, so that groups and steps stay in step
    };
    for (uint32_t step = 0; step < TILE::STAGES - 1; ++step) start(step);

    const uint32_t warp = threadIdx.x / WARP;
    const uint32_t warp_row = warp / TILE::WARPS_N * TILE::WARP_M, warp_column = warp % TILE::WARPS_N * TILE::WARP_N;
    float sums[TILE::MMAS_M][TILE::MMAS_N][4] = {};
    for (uint32_t step = 0; step < steps; ++step) {
        copy_async_wait<TILE::STAGES - 2>();  // this step has landed, as far as this thread copied it
        __syncthreads();                      // it has landed altogether, and all warps have left the stage that is filled next
        start(step + TILE::STAGES - 1);
        const auto& stage = shared.stages[step % TILE::STAGES];
        multiply_stage<T, TILE>(sums, shared_address(stage.x[warp_row]), shared_address(stage.w[warp_column]));
    }
    __syncthreads();  // all warps have left the stages, which become staging for sums
    store_sums<T, TILE, VECTORS>(sums, shared.sums[warp], y, bias, residual, p, tile.row + warp_row, tile.column + warp_column);
}

#define GEMM_NT(NAME, T, TILE, VECTORS)                                                            \
    extern "C" __global__ void __launch_bounds__(TILE::THREADS, TILE::BLOCKS)                      \
        NAME(T* y, const T* x, const T* w, const float* bias, const T* residual, GemmNtParams p) { \
        gemm_nt<T, TILE, VECTORS>(y, x, w, bias, residual, p);                                     \
    }

GEMM_NT(gemm_nt_128x160_f16, f16, Tile128x160, true)
GEMM_NT(gemm_nt_128x160_bf16, bf16, Tile128x160, true)
GEMM_NT(gemm_nt_128x128_f16, f16, Tile128x128, true)
GEMM_NT(gemm_nt_128x128_bf16, bf16, Tile128x128, true)
GEMM_NT(gemm_nt_64x64_f16, f16, Tile64x64, true)
GEMM_NT(gemm_nt_64x64_bf16, bf16, Tile64x64, true)
GEMM_NT(gemm_nt_any_f16, f16, Tile64x64, false)
GEMM_NT(gemm_nt_any_bf16, bf16, Tile64x64, false)
