// The exceptions of graingrad: one named type for each exit code that a program may leave with.
#pragma once

#include <stdexcept>
#include <string>

namespace graingrad {

/// Base of every error graingrad throws on purpose. `exit_code()` is what a program returns when nobody
/// catches it; the message says what happened and what to change, in one line, without the exit code.
class Error : public std::runtime_error {
 public:
  Error(int exit_code, const std::string& message) : std::runtime_error(message), exit_code_(exit_code) {}
  int exit_code() const { return exit_code_; }

 private:
  int exit_code_;
};

/// 2: a flag, a config key or a call that cannot be meant so (shapes that do not fit, a stale handle).
struct UsageError : Error {
  explicit UsageError(const std::string& message) : Error(2, message) {}
};
/// 2: operands whose shapes or dtypes do not fit; the message names op, shapes and scope.
struct ShapeError : UsageError {
  using UsageError::UsageError;
};
/// 2: a handle of another graph, or one whose node was rewound; a gradient that does not exist.
struct GraphError : UsageError {
  using UsageError::UsageError;
};
/// 10: data or a checkpoint that is missing, empty, a directory, unreadable or too short.
struct DataError : Error {
  explicit DataError(const std::string& message) : Error(10, message) {}
};
/// 11: a layout that does not fit the ranks, or more memory than the machine has.
struct LayoutError : Error {
  explicit LayoutError(const std::string& message) : Error(11, message) {}
};
/// 12: NaN or infinity where a number is needed, or a bound that training had to meet and did not.
struct DivergenceError : Error {
  explicit DivergenceError(const std::string& message) : Error(12, message) {}
};
/// 13: a collective that failed, hung, or was called differently on different ranks.
struct CommunicationError : Error {
  explicit CommunicationError(const std::string& message) : Error(13, message) {}
};
/// 14: a file that cannot be written, a full disk.
struct IoError : Error {
  explicit IoError(const std::string& message) : Error(14, message) {}
};
/// 15: an environment that cannot work (launched by one MPI and linked with another, an instruction set that the CPU lacks).
struct EnvironmentError : Error {
  explicit EnvironmentError(const std::string& message) : Error(15, message) {}
};

}  // namespace graingrad
