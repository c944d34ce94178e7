#include "kernels/avx512/tensors.hpp"

#include <cstring>
#include <limits>

namespace pppml::kernels::avx512 {
std::size_t element_bytes(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFloat32: return 4;
    case Dtype::kFloat64: return 8;
    case Dtype::kFloat16:
    case Dtype::kBfloat16: break;
  }
  return 2;
}

namespace {

// Every `stride`-th element, kBytes wide.
template <std::size_t kBytes>
void copy_column(const std::uint8_t* in, std::size_t stride, std::size_t count, std::uint8_t* out) {
  for (std::size_t i = 0; i < count; ++i) std::memcpy(out + i * kBytes, in + i * stride * kBytes, kBytes);
}

void copy_column(std::size_t bytes, const std::uint8_t* in, std::size_t stride, std::size_t count, std::uint8_t* out) {
  switch (bytes) {
    case 2: return copy_column<2>(in, stride, count, out);
    case 4: return copy_column<4>(in, stride, count, out);
    default: return copy_column<8>(in, stride, count, out);
  }
}

void copy_rows(const TensorSpan& span, std::size_t begin, std::size_t count, std::uint8_t* out) {
  const std::size_t bytes = element_bytes(span.dtype);
  const auto* data = static_cast<const std::uint8_t*>(span.data);
  std::size_t row = begin / span.row_length, column = begin % span.row_length;
  if (span.row_length == 1)
    return copy_column(bytes, data + row * span.row_stride * bytes, span.row_stride, count, out);
  for (; count > 0; ++row, column = 0) {
    const std::size_t take = std::min(span.row_length - column, count);
    std::memcpy(out, data + (row * span.row_stride + column) * bytes, take * bytes);
    out += take * bytes;
    count -= take;
  }
}

constexpr int kInfinities = 0x08 | 0x10;

__m512 without_infinities(__m512 v) {
  const __m512 nan = _mm512_set1_ps(std::numeric_limits<float>::quiet_NaN());
  return _mm512_mask_mov_ps(v, _mm512_fpclass_ps_mask(v, kInfinities), nan);
}
__m512d without_infinities(__m512d v) {
  const __m512d nan = _mm512_set1_pd(std::numeric_limits<double>::quiet_NaN());
  return _mm512_mask_mov_pd(v, _mm512_fpclass_pd_mask(v, kInfinities), nan);
}

__m512 widen_brains(__m256i v) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}

template <Dtype kFrom>
__m512 read(const std::uint8_t* in, __mmask16 lanes) {
  if constexpr (kFrom == Dtype::kFloat64) {
    const auto high_lanes = static_cast<__mmask8>(lanes >> 8);
    const __m512d low = without_infinities(_mm512_maskz_loadu_pd(static_cast<__mmask8>(lanes), in));
    const __m512d high = without_infinities(_mm512_maskz_loadu_pd(high_lanes, in + 64));
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(low)), _mm512_cvtpd_ps(high), 1);
  } else if constexpr (kFrom == Dtype::kFloat32) {
    return without_infinities(_mm512_maskz_loadu_ps(lanes, in));
  } else {
    const __m256i raw = _mm256_maskz_loadu_epi16(lanes, in);
    return without_infinities(kFrom == Dtype::kFloat16 ? _mm512_cvtph_ps(raw) : widen_brains(raw));
  }
}

template <Dtype kFrom>
__m512d read(const std::uint8_t* in, __mmask8 lanes) {
  if constexpr (kFrom == Dtype::kFloat64) {
    return without_infinities(_mm512_maskz_loadu_pd(lanes, in));
  } else if constexpr (kFrom == Dtype::kFloat32) {
    return without_infinities(_mm512_cvtps_pd(_mm256_maskz_loadu_ps(lanes, in)));
  } else {
    const __m256i raw = _mm256_castsi128_si256(_mm_maskz_loadu_epi16(lanes, in));
    const __m512 wide = kFrom == Dtype::kFloat16 ? _mm512_cvtph_ps(raw) : widen_brains(raw);
    return without_infinities(_mm512_cvtps_pd(_mm512_castps512_ps256(wide)));
  }
}

template <Dtype kFrom, class Float>
void convert_from(const std::uint8_t* in, std::size_t count, Float* out) {
  constexpr std::size_t kBytes = kFrom == Dtype::kFloat64 ? 8 : kFrom == Dtype::kFloat32 ? 4 : 2;
  for_lanes<Float>(count,
                   [=](std::size_t i, auto lanes) { store_part(out + i, lanes, read<kFrom>(in + i * kBytes, lanes)); });
}

template <class Float>
void convert_any(Dtype from, const void* in, std::size_t count, Float* out) {
  const auto* bytes = static_cast<const std::uint8_t*>(in);
  switch (from) {
    case Dtype::kFloat32: return convert_from<Dtype::kFloat32>(bytes, count, out);
    case Dtype::kFloat64: return convert_from<Dtype::kFloat64>(bytes, count, out);
    case Dtype::kFloat16: return convert_from<Dtype::kFloat16>(bytes, count, out);
    case Dtype::kBfloat16: return convert_from<Dtype::kBfloat16>(bytes, count, out);
  }
}

}  // namespace

const void* side_by_side(const TensorSpan& span, std::size_t begin, std::size_t count, void* scratch) {
  if (span.row_length == span.length) {
    return static_cast<const std::uint8_t*>(span.data) + begin * element_bytes(span.dtype);
  }
  copy_rows(span, begin, count, static_cast<std::uint8_t*>(scratch));
  return scratch;
}

void convert(Dtype from, const void* in, std::size_t count, float* out) {
  convert_any(from, in, count, out);
}

void convert(Dtype from, const void* in, std::size_t count, double* out) {
  convert_any(from, in, count, out);
}

}  // namespace pppml::kernels::avx512
