// How a grid walks over elements, or over rows of them. Any grid of 256-thread blocks in x will do; as many as there are vectors,
// up to what the GPU holds at once, keeps every thread busy.
#pragma once
#include "../common.cuh"

constexpr int MAP_THREADS = 256;

// y[i] = function(x[..][i]) for `count` elements. y may be any of the inputs. Vectors, if all pointers are multiples of 16 bytes.
template <typename T, int INPUTS, typename F>
__device__ inline void map(uint64_t count, T* y, const T* const (&x)[INPUTS], F function) {
    bool aligned = aligned_to_vectors(y);
#pragma unroll
    for (int input = 0; input < INPUTS; ++input) aligned = aligned && aligned_to_vectors(x[input]);
    const uint64_t vectors = aligned ? count / LANES<T> : 0;
    const uint64_t first = static_cast<uint64_t>(blockIdx.x) * MAP_THREADS + threadIdx.x;
    const uint64_t step = static_cast<uint64_t>(gridDim.x) * MAP_THREADS;
    const auto apply = [&](uint64_t at, auto& values) {  // values [INPUTS][elements]
#pragma unroll
        for (int input = 0; input < INPUTS; ++input) load(x[input] + at, values[input]);
        constexpr int N = sizeof(values[0]) / sizeof(float);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            if constexpr (INPUTS == 1) {
                values[0][i] = function(values[0][i]);
            } else {
                values[0][i] = function(values[0][i], values[1][i]);
            }
        }
        store(y + at, values[0]);
    };
    for (uint64_t vector = first; vector < vectors; vector += step) {
        float values[INPUTS][LANES<T>];
        apply(vector * LANES<T>, values);
    }
    for (uint64_t at = vectors * LANES<T> + first; at < count; at += step) {
        float values[INPUTS][1];
        apply(at, values);
    }
}

// Where a thread is in rows of `width` vectors or elements, moving on by the size of the grid without a division.
struct RowWalk {
    uint64_t row;
    uint32_t column;

    __device__ explicit RowWalk(uint32_t width) : width(width) {
        const uint64_t first = static_cast<uint64_t>(blockIdx.x) * MAP_THREADS + threadIdx.x;
        const uint64_t step = static_cast<uint64_t>(gridDim.x) * MAP_THREADS;
        row = first / width, column = first % width;
        row_step = step / width, column_step = step % width;
    }

    __device__ void advance() {
        row += row_step;
        column += column_step;  // at most 2 width - 2: widths are below 2^31
        if (column >= width) column -= width, ++row;
    }

private:
    uint64_t row_step;
    uint32_t column_step, width;
};
