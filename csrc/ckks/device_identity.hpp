// Tags of the pieces of a vector that lies on a device: what an update is known by (kernels/cuda/identity.hpp).
#pragma once

#include <optional>
#include <vector>

#include "ckks/device_scheme.hpp"

namespace pppml::ckks {

constexpr std::size_t kHashKeyBytes = 16, kTagBytes = 16;

struct PieceTags {
  std::vector<std::uint8_t> tags;  // kTagBytes for each piece
  std::optional<std::uint64_t> first_non_finite;
};

// GHASH under `hash_key`, kHashKeyBytes of a secret, of every `piece` values of the tensors as float32 with -0.0 as
// 0.0, as AES-GCM hashes so many bytes of associated data and no text. Waits for the stream.
PieceTags tag_pieces(const std::vector<DeviceTensor>& tensors, const std::uint8_t* hash_key, std::uint64_t piece,
                     Stream stream);

}  // namespace pppml::ckks
