// Statistics of the result of a product for the norm that reads it next: means and sums of squares about them (M2), of parts of the
// result, taken while a block still has it. They are of the values as they are stored: a norm subtracts the mean from those.
//
//   of channels [M / 32, N / 2]   a part is 32 rows of 2 columns: group norm. M is a multiple of 32, N of 2
//   of rows     [M, N / 80]       a part is 80 columns of a row: layer norm. N is a multiple of 80, and a warp has 80 columns
// What a part is depends on no tile, so neither does any bit of it.
#pragma once
#include "tile.cuh"

constexpr int STATISTICS_COLUMNS = 80;  // of a part of a row

// Mean and M2 of parts of `count` values each, from the sums over the parts of their means' distances to `origin`, of the squares of
// these, and of M2 (Chan, Golub & LeVeque 1979).
struct Merged {
    float mean, squares;

    __device__ Merged(float origin, float distance, float distance_squared, float squares, float parts, float count)
        : mean(origin + distance / parts),
          squares(squares + count * max_nan(distance_squared - distance * distance / parts, 0.0f)) {}
};

// Takes statistics of what `for_each_part` hands on, which is stored as T; those of rows only if ROWS.
template <typename T, class TILE, int COLUMNS, bool ROWS>
struct TakeStatistics {
    static constexpr int PIECES = COLUMNS / 8;
    static_assert(!ROWS || COLUMNS == STATISTICS_COLUMNS, "a warp has one part of a row");

    uint32_t kind;  // enum Statistics
    float2* parts;
    uint32_t m, n;

    // Of 8 values of a row that are done; `staged` are their places.
    __device__ void take(TileShared<TILE>& shared, float* staged, float (&values)[8], uint32_t row, uint32_t piece) const {
        if (kind == STATISTICS_NONE) return;
#pragma unroll
        for (int i = 0; i < 8; ++i) values[i] = to_float(from_float<T>(values[i]));
        if (kind == STATISTICS_CHANNELS) {
            // As they were read: every other four lanes take the upper half first.
            const uint32_t swap = threadIdx.x / 4 % 2;
            const float4 low = {values[0], values[1], values[2], values[3]}, high = {values[4], values[5], values[6], values[7]};
            *reinterpret_cast<float4*>(staged + 4 * swap) = swap ? high : low;
            *reinterpret_cast<float4*>(staged + 4 - 4 * swap) = swap ? low : high;
        } else if (ROWS && kind == STATISTICS_ROWS) {
            float sum = 0.0f, squares = 0.0f;
#pragma unroll
            for (int i = 0; i < 8; ++i) sum += values[i];
            const float mean = sum / 8;
#pragma unroll
            for (int i = 0; i < 8; ++i) squares = fmaf(values[i] - mean, values[i] - mean, squares);
            shared.end.pieces[threadIdx.x / WARP][row][piece] = make_float2(mean, squares);
        }
    }

    // When all of STAGED_ROWS rows, from `row` and `column` of the result on, are taken.
    __device__ void finish(TileShared<TILE>& shared, uint32_t row, uint32_t column) const {
        const uint32_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
        if (kind == STATISTICS_CHANNELS) {
            if (row >= m) return;
            for (uint32_t pair = lane; pair < COLUMNS / 2 && column + 2 * pair < n; pair += WARP) {
                float2* to = parts + static_cast<uint64_t>(row / STAGED_ROWS) * (n / 2) + column / 2 + pair;
                *to = of_pair(&shared.end.sums[warp][0][2 * pair]);
            }
        } else if (ROWS && kind == STATISTICS_ROWS) {
            if (row + lane >= m || column >= n) return;
            const float2(&pieces)[PIECES + 1] = shared.end.pieces[warp][lane];
            float distance = 0.0f, distance_squared = 0.0f, squares = 0.0f;
#pragma unroll
            for (int i = 0; i < PIECES; ++i) {
                const float d = pieces[i].x - pieces[0].x;
                distance += d, distance_squared = fmaf(d, d, distance_squared), squares += pieces[i].y;
            }
            const Merged part(pieces[0].x, distance, distance_squared, squares, PIECES, 8);
            parts[static_cast<uint64_t>(row + lane) * (n / STATISTICS_COLUMNS) + column / STATISTICS_COLUMNS] = {part.mean,
                                                                                                             part.squares};
        }
    }

    // Of STAGED_ROWS staged rows of two columns, relative to their first value.
    __device__ static float2 of_pair(const float* staged) {
        const float origin = staged[0];
        float sum = 0.0f, squares = 0.0f;
#pragma unroll 8
        for (int row = 0; row < STAGED_ROWS; ++row) {
            const float2 x = *reinterpret_cast<const float2*>(staged + row * (TILE::WARP_N + 8));
            const float low = x.x - origin, high = x.y - origin;
            sum += low + high;
            squares = fmaf(low, low, fmaf(high, high, squares));
        }
        const float shift = sum / (2 * STAGED_ROWS);
        return {origin + shift, max_nan(squares - sum * shift, 0.0f)};
    }
};
