// Tags that identify an update: GHASH of pieces of the flat vector, as AES-GCM defines it for associated data alone
// [SP 800-38D]. The host masks them with AES; see aggregation/vectors.py.
#pragma once

#include "kernels/cuda/tensors.hpp"

namespace pppml::kernels::cuda {

// An element of GF(2^128) in GCM's order: bit 0 of the polynomial is the first bit of the first byte.
struct FieldElement {
  std::uint64_t high, low;  // bytes 0 .. 7 and 8 .. 15, big-endian
};

PPPML_HD FieldElement operator^(const FieldElement& x, const FieldElement& y) {
  return {x.high ^ y.high, x.low ^ y.low};
}

PPPML_HD std::uint64_t reverse_bits(std::uint64_t x) {
#if defined(__CUDA_ARCH__)
  return __brevll(x);
#else
  x = (x >> 1 & 0x5555555555555555u) | (x & 0x5555555555555555u) << 1;
  x = (x >> 2 & 0x3333333333333333u) | (x & 0x3333333333333333u) << 2;
  x = (x >> 4 & 0x0f0f0f0f0f0f0f0fu) | (x & 0x0f0f0f0f0f0f0f0fu) << 4;
  return __builtin_bswap64(x);
#endif
}

PPPML_HD std::uint64_t swap_bytes(std::uint32_t first, std::uint32_t second) {
#if defined(__CUDA_ARCH__)
  return static_cast<std::uint64_t>(__byte_perm(first, 0, 0x0123)) << 32 | __byte_perm(second, 0, 0x0123);
#else
  return static_cast<std::uint64_t>(__builtin_bswap32(first)) << 32 | __builtin_bswap32(second);
#endif
}

// The low 64 coefficients of the product of two polynomials over GF(2), in constant time: with three zeros between any
// two coefficients, an integer product adds up to 15 ones in a place, and 16 in the last alone, whose carry is cut off.
PPPML_HD std::uint64_t multiply_low(std::uint64_t x, std::uint64_t y) {
  constexpr std::uint64_t kEveryFourth = 0x1111111111111111u;
  std::uint64_t sum = 0;
  PPPML_UNROLL
  for (unsigned place = 0; place < 4; ++place) {
    std::uint64_t part = 0;
    PPPML_UNROLL
    for (unsigned i = 0; i < 4; ++i) part ^= (x & kEveryFourth << i) * (y & kEveryFourth << ((place - i) % 4));
    sum |= part & kEveryFourth << place;
  }
  return sum;
}

// x y. GCM's order makes each half a reversed polynomial: the low product of reversed factors is the high half.
PPPML_HD FieldElement multiply(const FieldElement& x, const FieldElement& y) {
  const std::uint64_t reversed_x[2] = {reverse_bits(x.low), reverse_bits(x.high)};
  const std::uint64_t reversed_y[2] = {reverse_bits(y.low), reverse_bits(y.high)};
  // Karatsuba: the products of the halves, and of their sums, each as its low and its high 64 coefficients.
  const std::uint64_t low = multiply_low(x.low, y.low), high = multiply_low(x.high, y.high);
  const std::uint64_t middle = multiply_low(x.low ^ x.high, y.low ^ y.high) ^ low ^ high;
  const std::uint64_t low_up = multiply_low(reversed_x[0], reversed_y[0]);
  const std::uint64_t high_up = multiply_low(reversed_x[1], reversed_y[1]);
  const std::uint64_t middle_up =
      multiply_low(reversed_x[0] ^ reversed_x[1], reversed_y[0] ^ reversed_y[1]) ^ low_up ^ high_up;
  const std::uint64_t words[4] = {low, (reverse_bits(low_up) >> 1) ^ middle, high ^ (reverse_bits(middle_up) >> 1),
                                  reverse_bits(high_up) >> 1};
  // 255 coefficients lie one place too low for 256.
  std::uint64_t v[4];
  v[0] = words[0] << 1;
  PPPML_UNROLL
  for (unsigned i = 1; i < 4; ++i) v[i] = words[i] << 1 | words[i - 1] >> 63;
  // Modulo x^128 + x^7 + x^2 + x + 1: what is beyond x^127, the low words in this order, folds back twice.
  v[2] ^= v[0] ^ v[0] >> 1 ^ v[0] >> 2 ^ v[0] >> 7;
  v[1] ^= v[0] << 63 ^ v[0] << 62 ^ v[0] << 57;
  v[3] ^= v[1] ^ v[1] >> 1 ^ v[1] >> 2 ^ v[1] >> 7;
  v[2] ^= v[1] << 63 ^ v[1] << 62 ^ v[1] << 57;
  return {v[3], v[2]};
}

constexpr unsigned kTagThreads = 256;
constexpr unsigned kTagPowers = kTagThreads + 2;  // of H, from 1 = H^0 on
constexpr unsigned kValuesPerElement = 4;

// One block of threads for each `piece` values. `tags`: sixteen bytes for each.
struct TagRequest {
  DeviceTensors tensors;
  std::uint64_t length, piece;
  const FieldElement* powers;  // kTagPowers, in memory that is wiped
  std::uint8_t* tags;
  DeviceReport* report;
};

struct TagState {
  SpanWindow window;
  FieldElement sums[kTagThreads];
};

// Element `index` of a piece of `count` values that begins at `first`: four of them as float32, zeros behind the last.
PPPML_HD FieldElement piece_element(const TagRequest& request, const SpanWindow& window, std::uint64_t first,
                                    std::uint64_t count, std::uint64_t index) {
  std::uint32_t words[kValuesPerElement] = {};
  PPPML_NO_UNROLL
  for (unsigned i = 0; i < kValuesPerElement; ++i) {
    const std::uint64_t at = index * kValuesPerElement + i;
    if (at >= count) break;
    const DeviceSpan& span = request.tensors.spans[span_of(request.tensors, window, first + at)];
    bool finite = true;
    const float value = load_element<float>(span, first + at - span.offset, &finite);
    if (!finite) atomic_min(&request.report->first_non_finite, first + at);
    words[i] = bit_cast<std::uint32_t>(value + 0.0f);  // -0.0 is the same update
  }
  return {swap_bytes(words[0], words[1]), swap_bytes(words[2], words[3])};
}

// Thread t takes elements t, t + kTagThreads, ... by Horner's rule in H^kTagThreads; its last one is short of the end
// of the piece, and of the length that follows it, by a power of H of its own.
template <class Group>
PPPML_HD void tag_block(const Group& group, const TagRequest& request, TagState& state) {
  const std::uint64_t first = group.index() * request.piece;
  const std::uint64_t left = request.length - first, count = left < request.piece ? left : request.piece;
  const std::uint64_t elements = (count + kValuesPerElement - 1) / kValuesPerElement;
  group.phase([&](unsigned thread) {
    find_window<kTagThreads>(request.tensors, first, first + count - 1, thread, &state.window);
  });
  group.phase([&](unsigned thread) {
    FieldElement sum = {0, 0};
    std::uint64_t last = elements;
    PPPML_NO_UNROLL
    for (std::uint64_t index = thread; index < elements; index += kTagThreads) {
      sum = multiply(sum, request.powers[kTagThreads]) ^ piece_element(request, state.window, first, count, index);
      last = index;
    }
    if (last < elements) sum = multiply(sum, request.powers[elements - last + 1]);
    state.sums[thread] = sum;
  });
  constexpr unsigned kGroup = 16, kGroups = kTagThreads / kGroup;
  group.phase([&](unsigned thread) {
    if (thread >= kGroups) return;
    PPPML_NO_UNROLL
    for (unsigned i = 1; i < kGroup; ++i) state.sums[thread] = state.sums[thread] ^ state.sums[i * kGroups + thread];
  });
  group.phase([&](unsigned thread) {
    if (thread != 0) return;
    FieldElement sum = multiply({count * 32, 0}, request.powers[1]);  // bits of the data, then of no text
    PPPML_NO_UNROLL
    for (unsigned i = 0; i < kGroups; ++i) sum = sum ^ state.sums[i];
    std::uint8_t* const out = request.tags + group.index() * sizeof(FieldElement);
    PPPML_NO_UNROLL
    for (unsigned i = 0; i < 8; ++i) {
      out[i] = static_cast<std::uint8_t>(sum.high >> (56 - 8 * i));
      out[8 + i] = static_cast<std::uint8_t>(sum.low >> (56 - 8 * i));
    }
  });
}

}  // namespace pppml::kernels::cuda
