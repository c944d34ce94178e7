#include "ckks/slot_codec.hpp"

#include <algorithm>

namespace pppml::ckks {

void SlotCodec::encode(const double* weights, double* scratch, double* coefficients) const {
  const std::size_t slots = embedding_.slots();
  double *re = scratch, *im = scratch + slots;
  for (std::size_t t = 0; t < slots; ++t) re[embedding_.position(t)] = weights[t];
  if (both_halves_) {
    for (std::size_t t = 0; t < slots; ++t) im[embedding_.position(t)] = weights[slots + t];
  } else {
    std::fill(im, im + slots, 0.0);
  }
  kernels_.unembed(embedding_.table(), scratch, coefficients);
}

void SlotCodec::decode(double* coefficients, double* scratch, double* weights) const {
  const std::size_t slots = embedding_.slots();
  kernels_.embed(embedding_.table(), coefficients, scratch);
  const double *re = scratch, *im = scratch + slots;
  for (std::size_t t = 0; t < slots; ++t) weights[t] = re[embedding_.position(t)];
  if (!both_halves_) return;
  for (std::size_t t = 0; t < slots; ++t) weights[slots + t] = im[embedding_.position(t)];
}

}  // namespace pppml::ckks
