// Sixteen floats or eight doubles under one set of names.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace pppml::kernels::avx512 {

// A vector of T, 4 or 8 bytes wide.
template <class T>
struct LanesOf {
  static constexpr std::size_t kCount = 64 / sizeof(T);
  using Mask = std::conditional_t<kCount == 16, __mmask16, __mmask8>;
};

// Applies `body(index, lanes)` in steps of a vector of T; the last step may be partial.
template <class T, class Body>
inline void for_lanes(std::size_t count, Body body) {
  using Mask = typename LanesOf<T>::Mask;
  constexpr std::size_t kStep = LanesOf<T>::kCount;
  std::size_t i = 0;
  for (; i + kStep <= count; i += kStep) body(i, static_cast<Mask>(~0u));
  if (i < count) body(i, static_cast<Mask>((1u << (count - i)) - 1));
}

inline __m512 load_part(const float* p, __mmask16 lanes) {
  return _mm512_maskz_loadu_ps(lanes, p);
}
inline __m512d load_part(const double* p, __mmask8 lanes) {
  return _mm512_maskz_loadu_pd(lanes, p);
}
inline void store_part(float* p, __mmask16 lanes, __m512 v) {
  _mm512_mask_storeu_ps(p, lanes, v);
}
inline void store_part(double* p, __mmask8 lanes, __m512d v) {
  _mm512_mask_storeu_pd(p, lanes, v);
}

inline __m512 every_lane(float v) {
  return _mm512_set1_ps(v);
}
inline __m512d every_lane(double v) {
  return _mm512_set1_pd(v);
}
inline __m512 subtract(__m512 a, __m512 b) {
  return _mm512_sub_ps(a, b);
}
inline __m512d subtract(__m512d a, __m512d b) {
  return _mm512_sub_pd(a, b);
}
inline __m512 multiply(__m512 a, __m512 b) {
  return _mm512_mul_ps(a, b);
}
inline __m512d multiply(__m512d a, __m512d b) {
  return _mm512_mul_pd(a, b);
}
inline __m512 magnitude(__m512 v) {
  return _mm512_abs_ps(v);
}
inline __m512d magnitude(__m512d v) {
  return _mm512_abs_pd(v);
}
inline __m512 clamp(__m512 v, __m512 low, __m512 high) {
  return _mm512_min_ps(_mm512_max_ps(v, low), high);
}
inline __m512d clamp(__m512d v, __m512d low, __m512d high) {
  return _mm512_min_pd(_mm512_max_pd(v, low), high);
}
inline __m512 round_down(__m512 v) {
  return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}
inline __m512d round_down(__m512d v) {
  return _mm512_roundscale_pd(v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
}

// Lanes in which a > b; none where either is NaN.
inline __mmask16 greater(__mmask16 lanes, __m512 a, __m512 b) {
  return _mm512_mask_cmp_ps_mask(lanes, a, b, _CMP_GT_OQ);
}
inline __mmask8 greater(__mmask8 lanes, __m512d a, __m512d b) {
  return _mm512_mask_cmp_pd_mask(lanes, a, b, _CMP_GT_OQ);
}
// Lanes in which a > b or either is NaN.
inline __mmask16 greater_or_nan(__mmask16 lanes, __m512 a, __m512 b) {
  return _mm512_mask_cmp_ps_mask(lanes, a, b, _CMP_NLE_UQ);
}
inline __mmask8 greater_or_nan(__mmask8 lanes, __m512d a, __m512d b) {
  return _mm512_mask_cmp_pd_mask(lanes, a, b, _CMP_NLE_UQ);
}

}  // namespace pppml::kernels::avx512
