// Number theory for set-up: primality and roots of unity. Not constant time; its inputs are public.
#pragma once

#include <cstdint>

namespace pppml::ring {

// Deterministic for every 64-bit n.
bool is_prime(std::uint64_t n);

// The least primitive 2^log_order-th root of unity modulo a prime q = 1 mod 2^log_order. Every library that takes the
// least one (SEAL, HEXL) has the same NTT form.
std::uint64_t least_primitive_root(std::uint64_t q, unsigned log_order);

}  // namespace pppml::ring
