// What products on tensor cores share, linear layers and convolutions alike: a block multiplies the rows of x by those of W, K in
// steps of TILE_K that pass through a ring of stages in shared memory, and hands its sums on, eight columns at a time.
//
// The kernels differ in where the rows of x come from (a class with `start`) and in what becomes of the sums (a function).
//
// Sums are f32, over k in ascending steps of 16 whatever the tile: the choice of a tile changes no bit.
#pragma once
#include "../common.cuh"

// ---- Tiles ----------------------------------------------------------------------------------------------------------

constexpr int TILE_K = 32;          // elements of K in a stage
constexpr int CHUNKS = TILE_K / 8;  // 16-byte chunks of a row of a stage
constexpr int MMA_M = 16, MMA_N = 8, MMA_K = 16;
constexpr int STAGED_ROWS = 32;      // rows of sums that a warp stages at once at the end

// A block computes M x N with WARPS_M x WARPS_N warps; an SM should hold BLOCKS.
template <int M_, int N_, int WARPS_M_, int WARPS_N_, int STAGES_, int BLOCKS_>
struct Tile {
    static constexpr int M = M_, N = N_, STAGES = STAGES_, BLOCKS = BLOCKS_;
    static constexpr int WARPS_M = WARPS_M_, WARPS_N = WARPS_N_;
    static constexpr int THREADS = WARPS_M * WARPS_N * WARP;
    static constexpr int WARP_M = M / WARPS_M, WARP_N = N / WARPS_N;
    static constexpr int MMAS_M = WARP_M / MMA_M, MMAS_N = WARP_N / MMA_N;
    // ldmatrix of W takes two columns of mma tiles.
    static_assert(MMAS_N % 2 == 0 && WARP_M % STAGED_ROWS == 0 && M % (THREADS / CHUNKS) == 0 && N % (THREADS / CHUNKS) == 0);

    using Sums = float[MMAS_M][MMAS_N][4];
};

using Tile128x160 = Tile<128, 160, 2, 2, 4, 2>;
using Tile128x128 = Tile<128, 128, 2, 2, 4, 2>;
using Tile128x32 = Tile<128, 32, 4, 1, 4, 4>;
using Tile64x64 = Tile<64, 64, 2, 2, 4, 4>;

// Rows of a stage are 64 bytes: chunk c of row r lies at c ^ (r / 2 % 4). Eight threads that copy in two rows, and eight rows of
// one chunk that ldmatrix reads, cover all 32 banks once.
template <class TILE>
union TileShared {
    struct Stage {
        uint4 x[TILE::M][CHUNKS];
        uint4 w[TILE::N][CHUNKS];
    } stages[TILE::STAGES];
    // After the last stage.
    struct {
        // A pad of 8 floats spreads the rows that a half-warp writes over all banks.
        float sums[TILE::THREADS / WARP][STAGED_ROWS][TILE::WARP_N + 8];
        float2 pieces[TILE::THREADS / WARP][STAGED_ROWS][TILE::WARP_N / 8 + 1];  // of statistics.cuh
    } end;
};

static_assert(sizeof(TileShared<Tile128x160>) == 73728);
static_assert(sizeof(TileShared<Tile128x128>) == 65536);
static_assert(sizeof(TileShared<Tile128x32>) == 40960);
static_assert(sizeof(TileShared<Tile64x64>) == 32768);

// Position of a chunk in a stage, in bytes.
__device__ inline uint32_t swizzled(uint32_t row, uint32_t chunk) { return row * (TILE_K * 2) + (chunk ^ (row / 2 % 4)) * 16; }

struct TilePosition {
    uint32_t row, column;
};

// Tiles of a result of m x n in bands of `tall` tiles along M, each band column by column: the x of a band stays in L2, W passes by once
// for each band.
template <class TILE>
__device__ inline TilePosition raster(uint32_t block, uint32_t m, uint32_t n, uint32_t tall) {
    const uint32_t tiles_m = (m - 1) / TILE::M + 1, tiles_n = (n - 1) / TILE::N + 1;
    const uint32_t band = block / (tall * tiles_n), within = block % (tall * tiles_n);
    const uint32_t rows = min(tall, tiles_m - band * tall);
    return {(band * tall + within % rows) * TILE::M, within / rows * TILE::N};
}

// ---- Copies into a stage --------------------------------------------------------------------------------------------

// A chunk of 8 elements from memory, element by element: `at(i)` points to element i, or is null where it is zero.
template <typename T, typename F>
__device__ inline uint4 gather(F at) {
    uint32_t pairs[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const T *low = at(2 * j), *high = at(2 * j + 1);
        pairs[j] = (low != nullptr ? low->bits : 0u) | (high != nullptr ? high->bits : 0u) << 16;
    }
    return {pairs[0], pairs[1], pairs[2], pairs[3]};
}

// What one thread copies of the ROWS rows of a matrix [rows, k] that a block needs: one chunk in every STEP-th row, in steps of
// TILE_K columns. Rows past the end repeat the last one: what they give is not stored. Chunks past k are zero.
template <typename T, int ROWS, int THREADS, bool VECTORS>
struct RowCopy {
    static constexpr int STEP = THREADS / CHUNKS;
    static constexpr int PASSES = ROWS / STEP;
    static_assert(STEP % 8 == 0);  // the swizzle is that of the first row in all passes

    const char* base;
    uint32_t offsets[PASSES];  // of the rows, in bytes: below ROWS k 2 < 2^32
    uint32_t column, k;        // the next to be copied, and their number
    uint32_t position;         // of the first chunk in a stage

    __device__ RowCopy(const T* matrix, uint32_t first, uint32_t rows, uint32_t k) : k(k) {
        const uint32_t row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS, last = rows - 1 - first;
        base = reinterpret_cast<const char*>(matrix + static_cast<uint64_t>(first) * k);
        column = chunk * 8;
        position = swizzled(row, chunk);
#pragma unroll
        for (int i = 0; i < PASSES; ++i) offsets[i] = min(row + i * STEP, last) * k * sizeof(T);
    }

    // Starts the copies of the next step.
    __device__ void start(uint4* stage) {
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
                const auto at = [&](uint32_t j) { return column + j < k ? row + column + j : nullptr; };
                stage[position / 16 + i * STEP * CHUNKS] = gather<T>(at);
            }
        }
        column += TILE_K;
    }
};

// ---- Products -------------------------------------------------------------------------------------------------------

// Adds one stage to the sums of a warp, whose rows and columns start at `x` and `w` in shared memory.
template <typename T, class TILE>
__device__ inline void multiply_stage(typename TILE::Sums& sums, uint32_t x, uint32_t w) {
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

// First row and column of a warp in the tile of its block.
template <class TILE>
__device__ inline TilePosition warp_position() {
    const uint32_t warp = threadIdx.x / WARP;
    return {warp / TILE::WARPS_N * TILE::WARP_M, warp % TILE::WARPS_N * TILE::WARP_N};
}

// The sums of a warp over `k` products, whose operands `copy_x` and `copy_w` bring. At the end the stages are free.
template <typename T, class TILE, class COPY_X, class COPY_W>
__device__ inline void multiply(typename TILE::Sums& sums, TileShared<TILE>& shared, COPY_X& copy_x, COPY_W& copy_w, uint32_t k) {
    const uint32_t steps = (k - 1) / TILE_K + 1;
    const auto start = [&](uint32_t step) {
        if (step < steps) {
            auto& stage = shared.stages[step % TILE::STAGES];
            copy_x.start(&stage.x[0][0]);
            copy_w.start(&stage.w[0][0]);
        }
        copy_async_commit();  // empty past the end, so that groups and steps stay in step
    };
    for (uint32_t step = 0; step < TILE::STAGES - 1; ++step) start(step);
    const TilePosition warp = warp_position<TILE>();
    for (uint32_t step = 0; step < steps; ++step) {
        copy_async_wait<TILE::STAGES - 2>();  // this step has landed, as far as this thread copied it
        __syncthreads();                      // it has landed altogether, and all warps have left the stage that is filled next
        start(step + TILE::STAGES - 1);
        const auto& stage = shared.stages[step % TILE::STAGES];
        multiply_stage<T, TILE>(sums, shared_address(stage.x[warp.row]), shared_address(stage.w[warp.column]));
    }
    __syncthreads();  // all warps have left the stages, which become staging for sums
}

// ---- The end --------------------------------------------------------------------------------------------------------

enum Statistics { STATISTICS_NONE, STATISTICS_CHANNELS, STATISTICS_ROWS };

// Where a result needs none.
struct NoStatistics {
    static constexpr uint32_t kind = STATISTICS_NONE;
    template <typename... A>
    __device__ void take(A&&...) const {}
    template <typename... A>
    __device__ void finish(A&&...) const {}
};

// Takes the first COLUMNS columns of the sums of a warp through shared memory, so that a lane has 8 neighbouring ones, and calls
// finish(values [8], row, column) for each such part of the result, which has m rows and n columns. `first` is the position of the warp in
// the result. The last part of a row may be narrower than 8: finish is told nothing that it does not know from n. What finish leaves
// in `values` goes to `statistics`: a TakeStatistics, or NoStatistics.
template <class TILE, int COLUMNS, typename F, class S>
__device__ inline void for_each_part(const typename TILE::Sums& sums, TileShared<TILE>& shared, TilePosition first, uint32_t m,
                                     uint32_t n, F finish, const S& statistics) {
    constexpr int PARTS = COLUMNS / 8;
    constexpr int MMAS = STAGED_ROWS / MMA_M;
    auto& staged = shared.end.sums[threadIdx.x / WARP];
    const uint32_t lane = threadIdx.x % WARP;
#pragma unroll
    for (int rows = 0; rows < TILE::MMAS_M / MMAS; ++rows) {
        if (rows > 0) __syncwarp();  // the rows before these have been read
#pragma unroll
        for (int i = 0; i < MMAS; ++i) {
#pragma unroll
            for (int j = 0; j < COLUMNS / MMA_N; ++j) {
                const float(&c)[4] = sums[rows * MMAS + i][j];
                const uint32_t row = i * MMA_M + lane / 4, column = j * MMA_N + lane % 4 * 2;
                *reinterpret_cast<float2*>(&staged[row][column]) = make_float2(c[0], c[1]);
                *reinterpret_cast<float2*>(&staged[row + 8][column]) = make_float2(c[2], c[3]);
            }
        }
        __syncwarp();  // the rows are staged
#pragma unroll 1
        for (uint32_t at = lane; at < STAGED_ROWS * PARTS; at += WARP) {
            const uint32_t staged_row = at / PARTS, staged_column = at % PARTS * 8;
            const uint32_t row = first.row + rows * STAGED_ROWS + staged_row, column = first.column + staged_column;
            if (row >= m || column >= n) continue;
            // Lanes four apart meet in the same banks: every other four take the upper half first.
            float* from = &staged[staged_row][staged_column];
            const uint32_t swap = lane / 4 % 2;
            const float4 one = *reinterpret_cast<const float4*>(from + 4 * swap);
            const float4 other = *reinterpret_cast<const float4*>(from + 4 - 4 * swap);
            const float4 low = swap ? other : one, high = swap ? one : other;
            float values[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
            finish(values, row, column);
            statistics.take(shared, from, values, staged_row, at % PARTS);
        }
        if (statistics.kind != STATISTICS_NONE) {
            __syncwarp();  // the rows are done
            statistics.finish(shared, first.row + rows * STAGED_ROWS, first.column);
        }
    }
}

// The parts of a result of n columns that lie at its pointers: as vectors of 8, or, where n is no multiple of 8 or a pointer of
// 16 bytes, element by element.
struct Parts {
    uint32_t n;
    bool vectors;

    template <typename... P>
    __device__ Parts(uint32_t n, const P*... pointers) : n(n), vectors(n % 8 == 0 && aligned_to_vectors(pointers...)) {}

    // values += the part of `from` that starts at `at`, in column `column`.
    template <typename T>
    __device__ void add(float (&values)[8], const T* from, uint64_t at, uint32_t column) const {
        if (vectors) {
            float added[8];
            load(from + at, added);
#pragma unroll
            for (int i = 0; i < 8; ++i) values[i] += added[i];
        } else {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                float added[1] = {0.0f};
                if (column + i < n) load(from + at + i, added);
                values[i] += added[0];
            }
        }
    }

    template <typename T>
    __device__ void put(const float (&values)[8], T* to, uint64_t at, uint32_t column) const {
        if (vectors) {
            store(to + at, values);
        } else {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                if (column + i < n) to[at + i] = from_float<T>(values[i]);
            }
        }
    }
};
