// One vector type, `Vec`, for the instruction set that this translation unit is compiled for.
//
// WAVENET_ISA is 0 (portable), 1 (AVX2 and FMA) or 2 (AVX-512); the build compiles kernel.cpp once for each with the
// flags that fit. Everything is in an anonymous namespace: an inline function shared between such translation units
// could reach a processor that lacks its instructions.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if WAVENET_ISA > 0
#include <immintrin.h>
#endif

#if defined(__GNUC__)
#define WAVENET_INLINE inline __attribute__((always_inline))
#define WAVENET_PREFETCH(address) __builtin_prefetch(address)
#else
#define WAVENET_INLINE inline
#define WAVENET_PREFETCH(address) ((void)(address))
#endif

namespace {

#if WAVENET_ISA == 2

using Vec = __m512;
constexpr int kWidth = 16;
constexpr int kRegisters = 32;

WAVENET_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
WAVENET_INLINE void store(float* p, Vec a) { _mm512_storeu_ps(p, a); }
WAVENET_INLINE Vec splat(float a) { return _mm512_set1_ps(a); }
WAVENET_INLINE Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
WAVENET_INLINE Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
WAVENET_INLINE Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
WAVENET_INLINE Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
WAVENET_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
WAVENET_INLINE Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
WAVENET_INLINE Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
WAVENET_INLINE Vec round(Vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
WAVENET_INLINE Vec scale(Vec a, Vec whole) { return _mm512_scalef_ps(a, whole); }
WAVENET_INLINE float sum_of(Vec a) { return _mm512_reduce_add_ps(a); }
WAVENET_INLINE float greatest_of(Vec a) { return _mm512_reduce_max_ps(a); }
WAVENET_INLINE Vec quotient(Vec a, Vec b) {  // faster than a division: an estimate and a step of Newton's
  const Vec estimate = _mm512_rcp14_ps(b);
  const Vec q = _mm512_mul_ps(a, estimate);
  return _mm512_fmadd_ps(_mm512_fnmadd_ps(q, b, a), estimate, q);
}

#elif WAVENET_ISA == 1

using Vec = __m256;
constexpr int kWidth = 8;
constexpr int kRegisters = 16;

WAVENET_INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
WAVENET_INLINE void store(float* p, Vec a) { _mm256_storeu_ps(p, a); }
WAVENET_INLINE Vec splat(float a) { return _mm256_set1_ps(a); }
WAVENET_INLINE Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
WAVENET_INLINE Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
WAVENET_INLINE Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
WAVENET_INLINE Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
WAVENET_INLINE Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
WAVENET_INLINE Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
WAVENET_INLINE Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
WAVENET_INLINE Vec round(Vec a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
WAVENET_INLINE Vec scale(Vec a, Vec whole) {
  const __m256i exponent = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127)), 23);
  return _mm256_mul_ps(a, _mm256_castsi256_ps(exponent));
}

#else  // portable

constexpr int kWidth = 4;
constexpr int kRegisters = 16;

#if defined(__GNUC__) && !defined(WAVENET_PLAIN)  // vectors of GCC and Clang, of whatever the processor has
typedef float Vec __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(16)));
WAVENET_INLINE Vec splat(float a) { return Vec{a, a, a, a}; }
WAVENET_INLINE Vec add(Vec a, Vec b) { return a + b; }
WAVENET_INLINE Vec sub(Vec a, Vec b) { return a - b; }
WAVENET_INLINE Vec mul(Vec a, Vec b) { return a * b; }
WAVENET_INLINE Vec div(Vec a, Vec b) { return a / b; }
WAVENET_INLINE Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }
WAVENET_INLINE Vec min(Vec a, Vec b) { return a < b ? a : b; }
WAVENET_INLINE Vec max(Vec a, Vec b) { return a > b ? a : b; }
WAVENET_INLINE Vec power_of_two(Vec whole) { return (Vec)((__builtin_convertvector(whole, Ints) + 127) << 23); }
#else  // loops of a fixed length
struct alignas(16) Vec {
  float v[kWidth];
};
#define WAVENET_EACH for (int i = 0; i < kWidth; ++i)
WAVENET_INLINE Vec splat(float a) { Vec r; WAVENET_EACH r.v[i] = a; return r; }
WAVENET_INLINE Vec add(Vec a, Vec b) { WAVENET_EACH a.v[i] += b.v[i]; return a; }
WAVENET_INLINE Vec sub(Vec a, Vec b) { WAVENET_EACH a.v[i] -= b.v[i]; return a; }
WAVENET_INLINE Vec mul(Vec a, Vec b) { WAVENET_EACH a.v[i] *= b.v[i]; return a; }
WAVENET_INLINE Vec div(Vec a, Vec b) { WAVENET_EACH a.v[i] /= b.v[i]; return a; }
WAVENET_INLINE Vec fma(Vec a, Vec b, Vec c) { WAVENET_EACH c.v[i] += a.v[i] * b.v[i]; return c; }
WAVENET_INLINE Vec min(Vec a, Vec b) { WAVENET_EACH a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i]; return a; }
WAVENET_INLINE Vec max(Vec a, Vec b) { WAVENET_EACH a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i]; return a; }
WAVENET_INLINE Vec power_of_two(Vec whole) {
  WAVENET_EACH {
    const int32_t bits = (static_cast<int32_t>(whole.v[i]) + 127) << 23;
    std::memcpy(&whole.v[i], &bits, sizeof bits);
  }
  return whole;
}
#undef WAVENET_EACH
#endif

WAVENET_INLINE Vec load(const float* p) { Vec r; std::memcpy(&r, p, sizeof r); return r; }
WAVENET_INLINE void store(float* p, Vec a) { std::memcpy(p, &a, sizeof a); }
WAVENET_INLINE Vec round(Vec a) {
  const Vec big = splat(12582912.0f);  // 1.5 * 2^23: adding it leaves no room for a fraction
  return sub(add(a, big), big);
}
WAVENET_INLINE Vec scale(Vec a, Vec whole) { return mul(a, power_of_two(whole)); }

#endif

#if WAVENET_ISA < 2
WAVENET_INLINE float sum_of(Vec a) {
  float lanes[kWidth], total = 0;
  store(lanes, a);
  for (int i = 0; i < kWidth; ++i) total += lanes[i];
  return total;
}

WAVENET_INLINE float greatest_of(Vec a) {
  float lanes[kWidth];
  store(lanes, a);
  float best = lanes[0];
  for (int i = 1; i < kWidth; ++i) best = lanes[i] > best ? lanes[i] : best;
  return best;
}

WAVENET_INLINE Vec quotient(Vec a, Vec b) { return div(a, b); }

#endif

// e^x for -87 <= x <= 88, to 2 units in the last place: 2^round(x / ln 2) times a polynomial (Cephes).
WAVENET_INLINE Vec exponential(Vec x) {
  const Vec whole = round(mul(x, splat(1.44269504088896341f)));
  Vec r = fma(whole, splat(-0.693359375f), x);
  r = fma(whole, splat(2.12194440e-4f), r);
  Vec p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = add(fma(mul(r, r), p, r), splat(1.0f));
  return scale(p, whole);
}

// tanh(a) * sigmoid(b) with one division. Beyond the limits float32 cannot tell the result from that at them.
WAVENET_INLINE Vec gated(Vec a, Vec b) {
  a = max(min(a, splat(10.0f)), splat(-10.0f));
  b = max(min(b, splat(40.0f)), splat(-40.0f));
  const Vec one = splat(1.0f);
  const Vec ea = exponential(mul(a, splat(-2.0f))), eb = exponential(sub(splat(0.0f), b));
  return quotient(sub(one, ea), mul(add(one, ea), add(one, eb)));
}

}  // namespace
