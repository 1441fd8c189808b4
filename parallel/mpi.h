// MPI, from the outside: start it, use its world as a Communicator, stop it. <mpi.h> is included by mpi.cpp
// alone.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "parallel/communicator.h"

namespace graingrad::parallel {

/// Starts MPI (MPI_THREAD_FUNNELED: only the thread that made this calls it) and finishes it when destroyed.
/// One a process, made before any other thread. Without mpirun it is a world of one ordinary rank.
///
/// A rank that leaves without destroying it ends the whole job, so that the others do not wait for ever:
/// `exit()` in mid-run prints "program: rank R: scope: left without finishing ..." with the last scope
/// entered, and aborts with 13; so does an exception that unwinds it (keep it outside the try block that
/// prints errors, and call world().abort(code) there).
class MpiEnvironment {
 public:
  struct Options {
    std::string program = "graingrad";  ///< the name in front of messages
  };

  /// Throws EnvironmentError where the launcher started several ranks and MPI sees one (MPI is finished then;
  /// let only launcher_speaks() print it), where MPI was started before, or where it cannot give
  /// MPI_THREAD_FUNNELED.
  explicit MpiEnvironment(Options options);
  ~MpiEnvironment();
  MpiEnvironment(const MpiEnvironment&) = delete;
  MpiEnvironment& operator=(const MpiEnvironment&) = delete;

  /// All ranks of the job. Lives as long as this; groups split from it must not outlive it.
  Communicator& world();

  /// Collective: all ranks again, apart from world()'s messages, with messages split at `bytes` instead of
  /// INT_MAX. For tests of the splitting.
  std::unique_ptr<Communicator> world_with_messages_of(std::int64_t bytes);

  /// Names what this rank does next ("step 12"), for the message of a rank that leaves early. Collectives
  /// enter their own scope by themselves.
  void enter(std::string_view scope);

  /// The library and its version in a few words: "Open MPI 4.1.4".
  static std::string library();

 private:
  struct State;
  State* state_;  // shared with the exit handler, which may run after this object would have been destroyed
};

}  // namespace graingrad::parallel
