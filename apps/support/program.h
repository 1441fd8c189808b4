// How a program starts and ends: MPI, and errors that become one line and one exit code for the whole job.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "parallel/communicator.h"

namespace graingrad::parallel {
class MpiEnvironment;
}

namespace graingrad::apps {

/// One process of a running program, handed to its body by run_program.
class Job {
 public:
  explicit Job(std::string program);
  ~Job();
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  const std::string& program() const { return program_; }
  /// True on the one rank that prints: rank 0, which before start() is the launcher's.
  bool speaks() const;
  /// Starts MPI, at the first call, and returns all ranks of the job (one, where no launcher started us).
  /// Throws what MpiEnvironment throws. What needs no MPI (--help, --dry-run) runs before.
  parallel::Communicator& start();
  /// True once MPI runs.
  bool started() const { return environment_ != nullptr; }
  /// Says what this rank does next ("plan", "step 12"); stands in the error line.
  void enter(std::string_view scope);
  const std::string& scope() const { return scope_; }

 private:
  friend int run_program(const std::string&, const std::function<int(Job&)>&);
  int leave_with(int code, const std::string& line);

  std::string program_;
  std::string scope_;
  std::unique_ptr<parallel::MpiEnvironment> environment_;
  std::unique_ptr<parallel::Communicator>
      last_words_;  // where ranks that fail meet, apart from all other traffic
};

/// "program: rank R: scope: message (exit N)"; without the rank where it is negative, without the scope where
/// it is empty or the message begins with it. Line breaks become blanks.
std::string error_line(std::string_view program, int rank, std::string_view scope, std::string_view message,
                       int code);

/// Runs `body` and returns the exit code for main: what body returned, or the code of the exception that left
/// it (Error's own; 11 where memory ran out; 1 for anything unforeseen), printed as error_line to stderr.
/// Before MPI starts only the launcher's rank 0 prints. Afterwards ranks that fail meet for a second: where
/// all of them failed, the lowest rank with the highest code prints and all return that code; where some did
/// not, this rank prints its line and ends the job. Throws nothing.
int run_program(const std::string& program, const std::function<int(Job&)>& body);

}  // namespace graingrad::apps
