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

PPPML_HD std::uint64_t swap_bytes(std::uint32_t first, std::uint32_t second) {
#if defined(__CUDA_ARCH__)
  return static_cast<std::uint64_t>(__byte_perm(first, 0, 0x0123)) << 32 | __byte_perm(second, 0, 0x0123);
#else
  return static_cast<std::uint64_t>(__builtin_bswap32(first)) << 32 | __builtin_bswap32(second);
#endif
}

// The product of two polynomials over GF(2) of degree below 32, in constant time: of four bits in the factors of an
// integer product three are zero, and no more than eight ones meet in one place, whose carries stay below the next one.
PPPML_HD std::uint64_t multiply_carryless(std::uint32_t x, std::uint32_t y) {
  constexpr std::uint32_t kEveryFourth = 0x11111111u;
  constexpr std::uint64_t kPlaces = 0x1111111111111111u;
  std::uint64_t product = 0;
  PPPML_UNROLL
  for (unsigned place = 0; place < 4; ++place) {
    std::uint64_t part = 0;
    PPPML_UNROLL
    for (unsigned i = 0; i < 4; ++i) {
      const std::uint32_t left = x & kEveryFourth << i, right = y & kEveryFourth << ((place - i) % 4);
      part ^= static_cast<std::uint64_t>(left) * right;
    }
    product |= part & kPlaces << place;
  }
  return product;
}

// Of degree below 64, by Karatsuba's three products.
PPPML_HD FieldElement multiply_carryless(std::uint64_t x, std::uint64_t y) {
  const auto x0 = static_cast<std::uint32_t>(x), x1 = static_cast<std::uint32_t>(x >> 32);
  const auto y0 = static_cast<std::uint32_t>(y), y1 = static_cast<std::uint32_t>(y >> 32);
  const std::uint64_t low = multiply_carryless(x0, y0), high = multiply_carryless(x1, y1);
  const std::uint64_t middle = multiply_carryless(x0 ^ x1, y0 ^ y1) ^ low ^ high;
  return {high ^ middle >> 32, low ^ middle << 32};
}

// x y modulo x^128 + x^7 + x^2 + x + 1. With bits in GCM's order a product of 255 coefficients stands one place too
// low, and what is beyond x^127 stands in the low words, which fold back twice.
PPPML_HD FieldElement multiply(const FieldElement& x, const FieldElement& y) {
  const FieldElement low = multiply_carryless(x.low, y.low), high = multiply_carryless(x.high, y.high);
  const FieldElement middle = multiply_carryless(x.low ^ x.high, y.low ^ y.high) ^ low ^ high;
  const std::uint64_t words[4] = {low.low, low.high ^ middle.low, high.low ^ middle.high, high.high};
  std::uint64_t v[4];
  v[0] = words[0] << 1;
  PPPML_UNROLL
  for (unsigned i = 1; i < 4; ++i) v[i] = words[i] << 1 | words[i - 1] >> 63;
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
  group.phase([&](unsigned thread) { state.sums[thread] = {0, 0}; });
}

}  // namespace pppml::kernels::cuda
