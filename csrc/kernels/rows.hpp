// Walking the rows of a batch one after the other, whether they are words or packed for the wire.
#pragma once

#include "base/isa.hpp"
#include "kernels/contract.hpp"

namespace pppml::kernels {
PPPML_ISA_BEGIN

template <class Word>
class RowReader {
 public:
  using Unpack = bool (*)(const PrimeTable<Word>&, const std::uint8_t*, std::size_t, Word*);

  RowReader(RowsIn<Word> rows, Unpack unpack) : rows_(rows), unpack_(unpack) {}

  // The next row of `count` residues: in place where it is words, else unpacked into `scratch`. Null when a packed
  // residue is not below its prime.
  const Word* next(const PrimeTable<Word>& prime, std::size_t count, Word* scratch) {
    if (rows_.words != nullptr) {
      const Word* row = rows_.words;
      rows_.words += count;
      return row;
    }
    const bool valid = unpack_(prime, rows_.packed, count, scratch);
    rows_.packed += packed_row_bytes(prime, count);
    return valid ? scratch : nullptr;
  }

 private:
  RowsIn<Word> rows_;
  Unpack unpack_;
};

template <class Word>
class RowWriter {
 public:
  using Pack = void (*)(const PrimeTable<Word>&, const Word*, std::size_t, std::uint8_t*);

  RowWriter(RowsOut<Word> rows, Pack pack) : rows_(rows), pack_(pack) {}

  // Where the next row is to be computed: its own place where that is words, else `scratch`.
  Word* target(Word* scratch) const { return rows_.words != nullptr ? rows_.words : scratch; }

  // `row`, which target() gave, now holds its `count` residues.
  void finish(const PrimeTable<Word>& prime, std::size_t count, const Word* row) {
    if (rows_.words != nullptr) {
      rows_.words += count;
      return;
    }
    pack_(prime, row, count, rows_.packed);
    rows_.packed += packed_row_bytes(prime, count);
  }

 private:
  RowsOut<Word> rows_;
  Pack pack_;
};

PPPML_ISA_END
}  // namespace pppml::kernels
