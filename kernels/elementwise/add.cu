// y = x + z. Reference: src/ops/elementwise (`add`).
//
//   x, z, y [count]   f16 or bf16; y may be x or z
// Sums are f32, rounded once. The f32 bias of a layer is no business of this: it is added where the layer ends.
//
// Entries: add_forward_{f16,bf16}, 256 threads, any grid in x, no shared memory. Vectors where all pointers are multiples of 16
// bytes.
//
// Moves 3 elements for one FLOP: memory binds. Predicted: 0.9 of the copy bandwidth. Measured: not yet.
#include "map.cuh"

struct AddParams {
    uint64_t count;
};
PARAMS_LAYOUT(AddParams, count)

#define ADD(T)                                                                                                             \
    extern "C" __global__ void __launch_bounds__(MAP_THREADS) add_forward_##T(T* y, const T* x, const T* z, AddParams p) { \
        map<T, 2>(p.count, y, {x, z}, [](float x, float z) { return x + z; });                                             \
    }

ADD(f16)
ADD(bf16)
