// Plain loops over memory, the yardsticks of memory-bound operations: what a compiler makes of the obvious code.
//
// They share the threads of every other operation, so that both sides of a comparison have the same means.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pppml {

// out[i] = sum over all `count` inputs of in[i] modulo 2^32, for i < length. Each input is read from memory once, `out`
// written once; count >= 1.
void add_loop(const std::uint32_t* const* inputs, std::size_t count, std::size_t length, std::uint32_t* out);

// out = in, by the C library.
void copy_loop(const std::uint32_t* in, std::size_t length, std::uint32_t* out);

}  // namespace pppml
