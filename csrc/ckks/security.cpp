#include "ckks/security.hpp"

namespace pppml::ckks {
namespace {

struct Row {
  std::uint64_t ring_dimension;
  unsigned classical[3];  // for 128, 192, 256 bits
  unsigned quantum[3];
};

constexpr int kLevels[3] = {128, 192, 256};
constexpr Row kRows[] = {
    {1024, {26, 0, 0}, {20, 0, 0}},
    {2048, {53, 36, 27}, {40, 29, 22}},
    {4096, {106, 73, 56}, {80, 59, 47}},
    {8192, {214, 147, 114}, {161, 119, 95}},
    {16384, {430, 297, 230}, {322, 239, 192}},
    {32768, {868, 597, 462}, {644, 479, 385}},
};

const Row* find(std::uint64_t ring_dimension) {
  for (const Row& row : kRows) {
    if (row.ring_dimension == ring_dimension) return &row;
  }
  return nullptr;
}

int level(const unsigned (&limits)[3], double log2_modulus) {
  int reached = 0;
  for (int i = 0; i < 3; ++i) {
    if (log2_modulus <= limits[i]) reached = kLevels[i];
  }
  return reached;
}

}  // namespace

SecurityLevel security_level(std::uint64_t ring_dimension, double log2_modulus) {
  const Row* row = find(ring_dimension);
  if (row == nullptr) return {0, 0};
  return {level(row->classical, log2_modulus), level(row->quantum, log2_modulus)};
}

unsigned largest_modulus_bits(std::uint64_t ring_dimension) {
  const Row* row = find(ring_dimension);
  return row == nullptr ? 0 : row->classical[0];
}

}  // namespace pppml::ckks
