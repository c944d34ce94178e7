// Cases and checks for what needs a bare binary; everything else is tested from Python.
//
// A binary runs the cases named on its command line, or all of them. CMake reads their names off the sources.
#pragma once

#include <string>

#include "base/check.hpp"

namespace pppml::tests {

// Makes a case known to main(), which cases.cpp defines.
struct Case {
  Case(const char* name, void (*body)());
};

// Counts a failure and prints where and what. From any thread.
void fail(const char* file, int line, const std::string& text);

}  // namespace pppml::tests

// A failed check does not end its case: what comes after may tell more.
#define CHECK(condition)                                                    \
  do {                                                                      \
    if (!(condition)) ::pppml::tests::fail(__FILE__, __LINE__, #condition); \
  } while (false)

#define CHECK_EQUAL(got, wanted)                                                                                       \
  do {                                                                                                                 \
    const auto& got_value = (got);                                                                                     \
    const auto& wanted_value = (wanted);                                                                               \
    if (!(got_value == wanted_value)) {                                                                                \
      ::pppml::tests::fail(__FILE__, __LINE__, ::pppml::concatenate(#got, " is ", got_value, ", not ", wanted_value)); \
    }                                                                                                                  \
  } while (false)

#define CHECK_REFUSES(expression)                                                           \
  do {                                                                                      \
    bool refused = false;                                                                   \
    try {                                                                                   \
      static_cast<void>(expression);                                                        \
    } catch (const ::pppml::RequirementError&) {                                            \
      refused = true;                                                                       \
    }                                                                                       \
    if (!refused) ::pppml::tests::fail(__FILE__, __LINE__, #expression " was not refused"); \
  } while (false)

#define TEST(name)                                                  \
  static void name();                                               \
  static const ::pppml::tests::Case name##_registered{#name, name}; \
  static void name()
