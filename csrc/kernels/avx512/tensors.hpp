// Consecutive values of a list of tensors, whatever their types and strides, in the float type they are quantised in.
#pragma once

#include <algorithm>

#include "base/buffer.hpp"
#include "kernels/avx512/floats.hpp"
#include "kernels/avx512/prefetcher.hpp"
#include "kernels/contract.hpp"

namespace pppml::kernels::avx512 {

constexpr std::size_t kChunkValues = 1024;  // values, reference, words and raw rows of a chunk stay in L1

std::size_t element_bytes(Dtype dtype);

// Elements [begin, begin + count) of a span, side by side: in place if they are so already, else in `scratch`, which
// holds kChunkValues elements of any type. count <= kChunkValues unless the span is one row.
const void* side_by_side(const TensorSpan& span, std::size_t begin, std::size_t count, void* scratch);

// Converts, and makes NaN of what is infinite: an infinity in `out` is a finite number that exceeds its type.
void convert(Dtype from, const void* in, std::size_t count, float* out);
void convert(Dtype from, const void* in, std::size_t count, double* out);

template <class Float>
struct ValueRun {
  const Float* values = nullptr;
  std::size_t count = 0;  // 0 at the end of the tensors
  bool converted = false;
};

// Looks for a value from where it last was, so that reading a long list in order costs no search.
template <class Float>
class TensorReader {
 public:
  explicit TensorReader(const TensorList& tensors) : tensors_(tensors) {}

  // Values from number `at` on, at least one and at most `limit`, where there are any. They are not converted if their
  // type is right and they stand side by side: then infinities are still what they were.
  ValueRun<Float> next(std::size_t at, std::size_t limit) {
    find(at);
    if (span_ == tensors_.count) return {};
    const TensorSpan& span = tensors_.spans[span_];
    if (span.dtype != dtype_of(Float{}) || span.row_length != span.length) return gather(at, limit);
    const std::size_t begin = at - span_start_;
    return {static_cast<const Float*>(span.data) + begin, std::min(limit, span.length - begin), false};
  }

  // Converted values [at, at + count), fewer at the end of the tensors; count <= kChunkValues.
  ValueRun<Float> gather(std::size_t at, std::size_t count) {
    if (values_.size() == 0) values_ = SecretBuffer<Float>(kChunkValues);
    std::size_t written = 0;
    for (find(at); written < count && span_ < tensors_.count; find(at + written)) {
      const TensorSpan& span = tensors_.spans[span_];
      const std::size_t begin = at + written - span_start_;
      const std::size_t take = std::min(count - written, span.length - begin);
      if (span.row_length != span.length && raw_.size() == 0) raw_ = SecretBuffer<double>(kChunkValues);
      convert(span.dtype, side_by_side(span, begin, take, raw_.data()), take, values_.data() + written);
      written += take;
    }
    return {values_.data(), written, true};
  }

  // Says where values from number `at` on lie, as far as one span holds them side by side. They are to be read next.
  void announce(std::size_t at, std::size_t count, Prefetcher& soon) {
    find(at);
    if (span_ == tensors_.count) return;
    const TensorSpan& span = tensors_.spans[span_];
    if (span.row_length != span.length) return;
    const std::size_t begin = at - span_start_, size = element_bytes(span.dtype);
    soon.read(static_cast<const char*>(span.data) + begin * size, std::min(count, span.length - begin) * size);
  }

  // Converted values [at, at + count) less those of `reference`.
  ValueRun<Float> gather_less(TensorReader& reference, std::size_t at, std::size_t count) {
    const ValueRun<Float> run = gather(at, count);
    const Float* subtracted = reference.gather(at, run.count).values;
    Float* values = values_.data();
    for_lanes<Float>(run.count, [=](std::size_t i, auto lanes) {
      store_part(values + i, lanes, subtract(load_part(values + i, lanes), load_part(subtracted + i, lanes)));
    });
    return run;
  }

 private:
  static constexpr Dtype dtype_of(float) { return Dtype::kFloat32; }
  static constexpr Dtype dtype_of(double) { return Dtype::kFloat64; }

  // span_ becomes the one that holds value number `at`, or the end.
  void find(std::size_t at) {
    if (at < span_start_) span_ = span_start_ = 0;
    while (span_ < tensors_.count && at - span_start_ >= tensors_.spans[span_].length) {
      span_start_ += tensors_.spans[span_++].length;
    }
  }

  TensorList tensors_;
  std::size_t span_ = 0, span_start_ = 0;
  SecretBuffer<Float> values_;
  SecretBuffer<double> raw_;
};

}  // namespace pppml::kernels::avx512
