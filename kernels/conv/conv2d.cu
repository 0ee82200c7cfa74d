// y = conv(x, W) + bias + channel_bias + residual: 2-D convolution as an implicit product, straight from the images. Reference:
// src/ops/conv (PyTorch's `nn.Conv2d` with its neighbours).
//
//   x [B, H, W, X], skip [B, H, W, S] (null if S = 0)   f16 or bf16, channels last: C = X + S, those of x first
//   W [O, taps, C]                                      f16 or bf16, taps row by row: 1, or 9 for 3x3
//   bias [O]                                            f32
//   channel_bias [O], may be null                       f16 or bf16
//   residual (may be null), y [B, H', W', O]            f16 or bf16
//   statistics [M / 32, O / 2, 2], may be null          f32, of y, for the group norm that reads it next: ../gemm/statistics.cuh
// Position (i, j) of the result has its window at (i stride - before, j stride - before) of the image, outside of which all is zero.
// With `doubled`, each stored position stands for a square of 2 x 2 (nearest neighbour), the last row or column perhaps for half
// of it: `tall` and `wide` are the extents of the image that the window sees. Extents are at most 2^14.
//
// A product of M = B H' W' rows, N = O and K = taps C; k runs over the taps, and over the channels within a tap. Sums are f32, over k
// in ascending steps of 16 whatever the tile; the rest is added in f32 in the order of the formula and the result is rounded once. So
// neither B, nor the place of an image, nor the entry changes a bit. `residual` may be y; nothing else may overlap y.
//
//                                                                                                 blocks an SM
// Entries                     threads  tile M x N x K  stages  dynamic shared  registers (sm_90a)  (A100, H100, 4090)
//   conv2d_128x160_{f16,bf16}  128    128 x 160 x 32    4        74752          227 (239)          2, 2, 1
//   conv2d_128x128_{f16,bf16}  128    128 x 128 x 32    4        66560          201 (210)          2, 2, 1
//   conv2d_128x32_{f16,bf16}   128    128 x  32 x 32    4        41984           93 (94)           3, 5, 2
//   conv2d_64x64_{f16,bf16}    128     64 x  64 x 32    4        33280           92 (95)           4, 5, 2
//   conv2d_any_{f16,bf16}      128     64 x  64 x 32    4        33280           92 (94)           4, 5, 2
// Grid: ceil(M / tile M) * ceil(N / tile N) blocks in x.
// All but `any` need X and S to be multiples of 8 and x, skip and W to be aligned to 16 bytes. `any` takes all sizes and gathers element
// by element: for the 4 channels of latents, the 3 of images, and tests. 128x32 is for the few channels that they have as results.
//
// Moves 2 (B H W C + taps C N + M N) bytes (+ 2 M N with a residual) for 2 M N K FLOP: at 320 channels 1,440 FLOP for a byte of x and y, so
// the tensor cores bind everywhere. What a block takes in a step, and so its times, are those of a linear layer (../gemm/gemm_nt.cu);
// of x it is mostly from L2, where all nine taps of a band of tiles find their pixels.
// Predicted, large M: A100 0.85 of 312 TFLOP/s; H100 0.80 of the 610 that mma.sync reaches (of 989 by wgmma). Measured: not yet.
//
// Ladder
//   Taps outside, channels inside: a thread looks up its pixels once for each tap, and steps through channels by adding to a pointer.
//     With channels outside it would look up nine pixels for each 32 channels. Predicted only.
//   Corners of windows in shared memory, not in registers: 8 registers a thread, which the 160 columns need. Predicted only.
#include "../gemm/statistics.cuh"

struct Conv2dParams {
    uint32_t images;         // B
    uint32_t height, width;  // of x, as stored
    uint32_t x_channels;     // X
    uint32_t skip_channels;  // S
    uint32_t tall, wide;     // what the window sees: H and W, or twice that, or one less
    uint32_t doubled;        // 0 or 1
    uint32_t rows, columns;  // H', W'
    uint32_t outputs;        // O
    uint32_t window;         // 1 or 3
    uint32_t stride;         // 1 or 2
    uint32_t before;         // zeros above and to the left
    uint32_t band;           // tiles along M that are visited before the next tile along N
    uint32_t statistics;     // enum Statistics, of y: none or of channels
};
PARAMS_LAYOUT(Conv2dParams, images, height, width, x_channels, skip_channels, tall, wide, doubled, rows, columns, outputs, window,
              stride, before, band, statistics)

// Where the window of a row of the product begins: its image's first pixel, and the corner in the image.
struct Corner {
    uint32_t image;
    int16_t y, x;
};

template <class TILE>
struct Conv2dShared {
    TileShared<TILE> tile;
    Corner corners[TILE::M];
};

extern __shared__ uint4 conv2d_shared[];

// ---- Copies into a stage --------------------------------------------------------------------------------------------

constexpr uint32_t OUTSIDE = 0xffffffff;

// The pixel of x that a tap of a window sees, or OUTSIDE.
__device__ inline uint32_t pixel(const Corner& corner, uint32_t tap, const Conv2dParams& p) {
    const uint32_t y = corner.y + static_cast<int>(tap / p.window), x = corner.x + static_cast<int>(tap % p.window);
    const bool inside = y < p.tall && x < p.wide;  // as unsigned numbers: not negative either
    return inside ? corner.image + (y >> p.doubled) * p.width + (x >> p.doubled) : OUTSIDE;
}

// What one thread copies of the ROWS windows that a block needs: one chunk in every STEP-th row, in steps of TILE_K. A chunk lies
// within a tap, and within x or skip.
template <typename T, int ROWS, int THREADS>
struct WindowCopy {
    static constexpr int STEP = THREADS / CHUNKS;
    static constexpr int PASSES = ROWS / STEP;
    static_assert(STEP % 8 == 0);  // the swizzle is that of the first row in all passes

    const T *x, *skip;
    const Corner* corners;  // of this thread's first row
    const Conv2dParams& p;
    uint32_t channel, tap;
    uint32_t pixels[PASSES];  // under this tap
    uint32_t position;        // of the first chunk in a stage

    __device__ WindowCopy(const T* x, const T* skip, const Corner* corners, const Conv2dParams& p)
        : x(x), skip(skip), corners(corners + threadIdx.x / CHUNKS), p(p), channel(threadIdx.x % CHUNKS * 8), tap(0) {
        position = swizzled(threadIdx.x / CHUNKS, threadIdx.x % CHUNKS);
        find_tap();
    }

    // Carries channels past the last into taps, and looks up the pixels.
    __device__ void find_tap() {
        const uint32_t channels = p.x_channels + p.skip_channels;
        while (channel >= channels) channel -= channels, ++tap;
        const bool any = tap < p.window * p.window;
#pragma unroll
        for (int i = 0; i < PASSES; ++i) pixels[i] = any ? pixel(corners[i * STEP], tap, p) : OUTSIDE;
    }

    // Starts the copies of the next step.
    __device__ void start(uint4* stage) {
        const bool in_x = channel < p.x_channels;
        const T* from = in_x ? x + channel : skip + (channel - p.x_channels);
        const uint32_t stride = in_x ? p.x_channels : p.skip_channels;
        const uint32_t to = shared_address(stage) + position;
#pragma unroll
        for (int i = 0; i < PASSES; ++i) {
            const bool inside = pixels[i] != OUTSIDE;
            copy_async_16(to + i * STEP * TILE_K * sizeof(T), inside ? from + static_cast<uint64_t>(pixels[i]) * stride : x,
                          inside ? 16 : 0);
        }
        channel += TILE_K;
        if (channel >= p.x_channels + p.skip_channels) find_tap();
    }
};

// The same element by element, with any number of channels.
template <typename T, int ROWS, int THREADS>
struct WindowGather {
    static constexpr int STEP = THREADS / CHUNKS;
    static constexpr int PASSES = ROWS / STEP;

    const T *x, *skip;
    const Corner* corners;
    const Conv2dParams& p;
    uint32_t column;

    __device__ WindowGather(const T* x, const T* skip, const Corner* corners, const Conv2dParams& p)
        : x(x), skip(skip), corners(corners + threadIdx.x / CHUNKS), p(p), column(threadIdx.x % CHUNKS * 8) {}

    __device__ const T* element(const Corner& corner, uint32_t k) const {
        const uint32_t channels = p.x_channels + p.skip_channels, tap = k / channels, channel = k % channels;
        const uint32_t at = tap < p.window * p.window ? pixel(corner, tap, p) : OUTSIDE;
        if (at == OUTSIDE) return nullptr;
        if (channel < p.x_channels) return x + static_cast<uint64_t>(at) * p.x_channels + channel;
        return skip + static_cast<uint64_t>(at) * p.skip_channels + (channel - p.x_channels);
    }

    __device__ void start(uint4* stage) {
        const uint32_t row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
#pragma unroll 1
        for (int i = 0; i < PASSES; ++i) {
            const Corner corner = corners[i * STEP];
            stage[swizzled(row + i * STEP, chunk) / 16] = gather<T>([&](uint32_t j) { return element(corner, column + j); });
        }
        column += TILE_K;
    }
};

template <typename T, class TILE, bool VECTORS>
struct Copies {
    using X = WindowCopy<T, TILE::M, TILE::THREADS>;
};
template <typename T, class TILE>
struct Copies<T, TILE, false> {
    using X = WindowGather<T, TILE::M, TILE::THREADS>;
};

// ---- The kernel -----------------------------------------------------------------------------------------------------

template <typename T>
struct Operands {
    T* y;
    float2* statistics;
    const T *x, *skip, *w;
    const float* bias;
    const T *channel_bias, *residual;
};

// The corners of the windows of the tile that starts at row `first` of the product. Rows past the end repeat the last one: what
// they give is not stored.
template <class TILE>
__device__ inline void find_corners(Corner* corners, uint32_t first, uint32_t m, const Conv2dParams& p) {
    for (uint32_t i = threadIdx.x; i < TILE::M; i += TILE::THREADS) {
        const uint32_t row = min(first + i, m - 1), line = row / p.columns;
        const int y = line % p.rows * p.stride - p.before, x = row % p.columns * p.stride - p.before;
        corners[i] = {line / p.rows * p.height * p.width, static_cast<int16_t>(y), static_cast<int16_t>(x)};
    }
}

template <typename T, class TILE, bool VECTORS>
__device__ inline void conv2d(const Operands<T>& at, const Conv2dParams& p) {
    auto& shared = *reinterpret_cast<Conv2dShared<TILE>*>(conv2d_shared);
    const uint32_t m = p.images * p.rows * p.columns, k = p.window * p.window * (p.x_channels + p.skip_channels);
    TilePosition first = raster<TILE>(blockIdx.x, m, p.outputs, p.band);
    find_corners<TILE>(shared.corners, first.row, m, p);
    __syncthreads();  // the corners are there
    typename Copies<T, TILE, VECTORS>::X copy_x(at.x, at.skip, shared.corners, p);
    RowCopy<T, TILE::N, TILE::THREADS, VECTORS> copy_w(at.w, first.column, p.outputs, k);
    typename TILE::Sums sums = {};
    multiply<T, TILE>(sums, shared.tile, copy_x, copy_w, k);

    const TilePosition warp = warp_position<TILE>();
    first.row += warp.row, first.column += warp.column;
    const Parts parts(p.outputs, at.y, at.residual, at.bias, at.channel_bias);
    for_each_part<TILE, TILE::WARP_N>(
        sums, shared.tile, first, m, p.outputs, [&](float(&values)[8], uint32_t row, uint32_t column) {
            const uint64_t place = static_cast<uint64_t>(row) * p.outputs + column;
            parts.add(values, at.bias, column, column);
            if (at.channel_bias != nullptr) parts.add(values, at.channel_bias, column, column);
            if (at.residual != nullptr) parts.add(values, at.residual, place, column);
            parts.put(values, at.y, place, column);
        },
        TakeStatistics<T, TILE, TILE::WARP_N, false>{p.statistics, at.statistics, m, p.outputs});
}

#define CONV2D(NAME, T, TILE, VECTORS)                                                                                     \
    extern "C" __global__ void __launch_bounds__(TILE::THREADS, TILE::BLOCKS)                                              \
        NAME(T* y, float2* statistics, const T* x, const T* skip, const T* w, const float* bias, const T* channel_bias,    \
             const T* residual, Conv2dParams p) {                                                                          \
        conv2d<T, TILE, VECTORS>({y, statistics, x, skip, w, bias, channel_bias, residual}, p);                            \
    }

CONV2D(conv2d_128x160_f16, f16, Tile128x160, true)
CONV2D(conv2d_128x160_bf16, bf16, Tile128x160, true)
CONV2D(conv2d_128x128_f16, f16, Tile128x128, true)
CONV2D(conv2d_128x128_bf16, bf16, Tile128x128, true)
CONV2D(conv2d_128x32_f16, f16, Tile128x32, true)
CONV2D(conv2d_128x32_bf16, bf16, Tile128x32, true)
CONV2D(conv2d_64x64_f16, f16, Tile64x64, true)
CONV2D(conv2d_64x64_bf16, bf16, Tile64x64, true)
CONV2D(conv2d_any_f16, f16, Tile64x64, false)
CONV2D(conv2d_any_bf16, bf16, Tile64x64, false)
