// Sums. Reference: src/ops/elementwise (`add`), and the time embedding of a ResNet block in diffusers.
//
//   add            y = x + z                    x, z, y [count]                    f16, bf16 or f32
//   add_channels   y[b, p, c] = x[b, p, c] + t[b, c]   x, y [B, P, C], t [B, C]    f16 or bf16
// Sums are f32, rounded once. y may be an input of the same shape. The f32 bias of a layer is no business of these: it is added
// where the layer ends.
//
// Entries, 256 threads, any grid in x, no shared memory: add_forward_{f16,bf16,f32}, add_channels_forward_{f16,bf16}.
// Vectors where all pointers are multiples of 16 bytes and C, too, of 8.
//
// Moves 3 (2) elements for one FLOP: memory binds. Predicted: 0.9 of the copy bandwidth. Measured: not yet.
#include "map.cuh"

struct AddParams {
    uint64_t count;
};

struct AddChannelsParams {
    uint32_t rows;       // B P
    uint32_t positions;  // P
    uint32_t channels;   // C, below 2^31
};

template <typename T>
__device__ inline void add(T* y, const T* x, const T* z, const AddParams& p) {
    map<T, 2>(p.count, y, {x, z}, [](float x, float z) { return x + z; });
}

template <typename T, int N>
__device__ inline void add_channels(T* y, const T* x, const T* t, const AddChannelsParams& p) {
    for (RowWalk at(p.channels / N); at.row < p.rows; at.advance()) {
        const uint64_t start = at.row * p.channels + at.column * N;
        const uint64_t sample = static_cast<uint32_t>(at.row) / p.positions;
        float values[N], added[N];
        load(x + start, values);
        load(t + sample * p.channels + at.column * N, added);
#pragma unroll
        for (int i = 0; i < N; ++i) values[i] += added[i];
        store(y + start, values);
    }
}

#define ADD(T)                                                                                                             \
    extern "C" __global__ void __launch_bounds__(MAP_THREADS) add_forward_##T(T* y, const T* x, const T* z, AddParams p) { \
        add(y, x, z, p);                                                                                                   \
    }

#define ADD_CHANNELS(T)                                                               \
    extern "C" __global__ void __launch_bounds__(MAP_THREADS)                         \
        add_channels_forward_##T(T* y, const T* x, const T* t, AddChannelsParams p) { \
        if (p.channels % LANES<T> == 0 && aligned_to_vectors(y, x, t)) {              \
            add_channels<T, LANES<T>>(y, x, t, p);                                    \
        } else {                                                                      \
            add_channels<T, 1>(y, x, t, p);                                           \
        }                                                                             \
    }

ADD(f16)
ADD(bf16)
ADD(f32)
ADD_CHANNELS(f16)
ADD_CHANNELS(bf16)
