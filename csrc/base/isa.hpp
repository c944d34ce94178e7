// A namespace per instruction set for shared inline code.
//
// Files built with extra instructions may emit out-of-line copies of inline functions. Without names of their own the
// linker could pick such a copy for the portable code, which would then fail on older processors.
#pragma once

#if defined(PPPML_ISA)
#define PPPML_ISA_BEGIN inline namespace PPPML_ISA {
#define PPPML_ISA_END }
#else
#define PPPML_ISA_BEGIN inline namespace portable {
#define PPPML_ISA_END }
#endif
