// Runs the real programs, alone or under mpirun, and gives back what they said.
#pragma once

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/apps/folder.h"

namespace graingrad::apps::test {

/// How to start a program.
struct Launch {
  std::string program = {};      ///< "linear_regression" or "gpt_attention"
  std::string arguments = {};    ///< as in a shell
  int ranks = 0;                 ///< 0: without mpirun
  std::string environment = {};  ///< "A=1 B=2"
  int limit_seconds = 60;        ///< killed after so long, with exit code 124 or 137
};

/// What came of it.
struct Outcome {
  int code = -1;
  std::string out;
  std::string err;
  std::string command;

  /// Lines of `err` that begin with "program: ": what the program said, without mpirun's own text.
  std::vector<std::string> error_lines(const std::string& program) const;
  /// The record that --json prints; a null record where `out` is no JSON.
  nlohmann::json record() const { return nlohmann::json::parse(out, nullptr, false); }
};

/// Runs it to its end.
Outcome run(const Launch& launch);

/// Runs with --json; where it fails, so does the test, and the record is empty.
nlohmann::json final_record(Launch launch);

/// final_record of a run that trains: without a hash, or with other bytes used than planned, the test fails.
nlohmann::json trained_record(const Launch& launch);
/// What no layout may change of a run, as text: hash, losses and a regression's weights. Numbers are printed
/// so that they read back to the same bits.
std::string bits_of(const nlohmann::json& record);

/// A program that runs in the background, with its output in a file.
class Background {
 public:
  Background(const Launch& launch, std::string output);
  ~Background();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  /// Waits for the end; false where it does not come in time.
  bool ends_within(std::chrono::milliseconds patience);
  /// The shell's code for how it ended.
  int code() const { return code_; }

 private:
  int pid_ = -1;
  int code_ = -1;
};

/// Processes of `program` that have `argument` on their command line, with their Open MPI rank (-1: none).
struct Process {
  int pid = 0;
  int rank = -1;
};
std::vector<Process> processes(const std::string& program, const std::string& argument);

/// A file's text, "" where it cannot be read.
std::string text_of(const std::string& path);

}  // namespace graingrad::apps::test
