// Unit normals, bit for bit those of src/rng/philox.rs, which says what the words and the polynomials are and where they come from.
#pragma once
#include "../common.cuh"

// A float whose products, sums and differences are rounded one by one, to nearest: the compiler fuses none, as Rust does not.
struct Exact {
    float value;
};
__device__ inline Exact operator+(Exact a, Exact b) { return {__fadd_rn(a.value, b.value)}; }
__device__ inline Exact operator-(Exact a, Exact b) { return {__fsub_rn(a.value, b.value)}; }
__device__ inline Exact operator*(Exact a, Exact b) { return {__fmul_rn(a.value, b.value)}; }

constexpr float TWO_POW_MINUS_32 = 1.0f / 4294967296.0f;
constexpr float LN_2 = 0.693147182f;
constexpr float RADIANS_PER_UNIT = 1.57079637f / 1073741824.0f;

// Philox4x32-10.
__device__ inline void philox4x32_10(uint32_t (&counter)[4], uint32_t key0, uint32_t key1) {
    for (int round = 0; round < 10; ++round) {
        const uint32_t high0 = __umulhi(0xD2511F53u, counter[0]), low0 = 0xD2511F53u * counter[0];
        const uint32_t high1 = __umulhi(0xCD9E8D57u, counter[2]), low1 = 0xCD9E8D57u * counter[2];
        counter[0] = high1 ^ counter[1] ^ key0;
        counter[1] = low1;
        counter[2] = high0 ^ counter[3] ^ key1;
        counter[3] = low0;
        key0 += 0x9E3779B9u, key1 += 0xBB67AE85u;
    }
}

// Natural logarithm of a normal float in (0, 1].
__device__ inline Exact natural_log(Exact u) {
    constexpr uint32_t SQRT_HALF_BITS = 0x3F3504F3u;
    const uint32_t offset = __float_as_uint(u.value) - SQRT_HALF_BITS;
    const Exact e{__int2float_rn(static_cast<int32_t>(offset) >> 23)};
    const Exact f = Exact{__uint_as_float((offset & 0x007FFFFFu) + SQRT_HALF_BITS)} - Exact{1.0f};
    Exact p{-0.07634493f};
    p = p * f + Exact{0.12761575f};
    p = p * f + Exact{-0.13160183f};
    p = p * f + Exact{0.14201759f};
    p = p * f + Exact{-0.16623357f};
    p = p * f + Exact{0.20001227f};
    p = p * f + Exact{-0.2500082f};
    p = p * f + Exact{0.3333333f};
    const Exact z = f * f;
    const Exact small = f * z * p - Exact{0.5f} * z;
    return e * Exact{LN_2} + (f + small);
}

__device__ inline Exact normal_radius(uint32_t word) {
    const Exact uniform = Exact{__uint2float_rn(word)} * Exact{TWO_POW_MINUS_32} + Exact{0.5f * TWO_POW_MINUS_32};
    return {__fsqrt_rn((Exact{-2.0f} * natural_log(uniform)).value)};
}

// Cosine, or sine, of 2 pi 2^-32 `word`.
__device__ inline Exact cos_or_sin_turn(uint32_t word, bool sine) {
    const uint32_t quadrant = (word + (1u << 29)) >> 30;
    const Exact x = Exact{__int2float_rn(static_cast<int32_t>(word - (quadrant << 30)))} * Exact{RADIANS_PER_UNIT};
    const Exact z = x * x;
    const Exact sin =
        x + x * z * ((Exact{-0.000195173f} * z + Exact{0.008332178f}) * z + Exact{-0.16666655f});
    const Exact cos = Exact{1.0f} - Exact{0.5f} * z +
                      z * z * ((Exact{0.000024438452f} * z + Exact{-0.0013887368f}) * z + Exact{0.041666646f});
    // Quadrants 0 to 3: cos, -sin, -cos, sin; and sin, cos, -sin, -cos.
    const float value = (quadrant % 2 == 0) == sine ? sin.value : cos.value;
    const bool negative = sine ? quadrant >= 2 : quadrant == 1 || quadrant == 2;
    return {negative ? -value : value};
}

// Element `index` of stream `stream` of the sample with this key.
__device__ inline float normal(uint32_t key0, uint32_t key1, uint32_t stream, uint64_t index) {
    const uint64_t block = index / 4;
    const uint32_t lane = static_cast<uint32_t>(index) % 4;
    uint32_t words[4] = {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), stream, 0};
    philox4x32_10(words, key0, key1);
    const uint32_t radius = lane < 2 ? words[0] : words[2], angle = lane < 2 ? words[1] : words[3];
    return (normal_radius(radius) * cos_or_sin_turn(angle, lane % 2 == 1)).value;
}
