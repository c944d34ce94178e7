"""Writes gaussian_tables.hpp: cumulative tables of the discrete Gaussians that the samplers use.

Run as ``python csrc/kernels/gaussian_tables.py > csrc/kernels/gaussian_tables.hpp``; a test checks that the
committed header is what this prints.

A magnitude is read off a uniform 95-bit number u as #{t : u >= T[t]}, T[t] = round(2^95 P(|X| <= t)).
The rarest magnitude has probability above 2^-68, so 95 bits leave every one a relative error below 2^-27; by the
usual divergence bound (m samples of relative error d cost about m d^2) 2^33 samples lose under 2^-20.
"""

from __future__ import annotations

from decimal import Decimal, getcontext

getcontext().prec = 80
BITS = 95

# name, variance, largest magnitude (at least 9.5 standard deviations), what it serves
TABLES = [
    ("kCollectiveError", Decimal("40.5"), 61, "sigma = sqrt(2) * 4.5"),
    ("kCollectiveSecret", Decimal("20.25"), 43, "sigma = 4.5"),
    ("kError", Decimal("10.24"), 31, "sigma = 3.2"),
]


def thresholds(variance: Decimal, largest: int) -> list[int]:
    """T[0..largest-1] of a discrete Gaussian on [-largest, largest]."""
    weight = [(-Decimal(x * x) / (2 * variance)).exp() for x in range(largest + 1)]
    total = weight[0] + 2 * sum(weight[1:])
    cumulative, result = Decimal(0), []
    for x in range(largest):
        cumulative += weight[x] * (1 if x == 0 else 2)
        result.append(int((cumulative / total * 2**BITS).to_integral_value()))
    return result


def rows(values: list[str], per_line: int) -> str:
    """The values as the indented lines of a C++ initialiser."""
    lines = [", ".join(values[i : i + per_line]) for i in range(0, len(values), per_line)]
    return ",\n".join("    " + line for line in lines)


def main() -> None:
    """Print the header."""
    print("// Written by gaussian_tables.py; do not edit.")
    print("//")
    print("// T[t] = round(2^95 P(|X| <= t)) as its top 31 and low 64 bits, t = 0 .. largest - 1.")
    print("#pragma once\n\n#include <cstdint>\n\nnamespace pppml::kernels::tables {\n")
    for name, variance, largest, note in TABLES:
        cuts = thresholds(variance, largest)
        high = [str(cut >> 64) + "u" for cut in cuts]
        low = [f"0x{cut & (2**64 - 1):016x}u" for cut in cuts]
        print(f"// {note}, tail cut at {largest}")
        print(f"constexpr unsigned {name}Largest = {largest};")
        print(f"constexpr double {name}Variance = {variance};")
        print(f"constexpr std::uint32_t {name}High[] = {{\n{rows(high, 8)}}};")
        print(f"constexpr std::uint64_t {name}Low[] = {{\n{rows(low, 4)}}};\n")
    print("}  // namespace pppml::kernels::tables")


if __name__ == "__main__":
    main()
