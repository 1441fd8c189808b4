// The only file that includes <mpi.h>: every call is checked, every error names rank, call, count and scope.
#include "parallel/mpi.h"

#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <limits>

#include "parallel/launcher.h"

namespace graingrad::parallel {
namespace {

std::string text_of(int code) {
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) return fmt::format("error {}", code);
  return std::string(text, static_cast<std::size_t>(length));
}

MPI_Datatype mpi_type(DType dtype) {
  if (dtype == DType::f32) return MPI_FLOAT;
  return dtype == DType::f64 ? MPI_DOUBLE : MPI_INT32_T;
}

std::byte* at(void* data, std::int64_t offset) { return static_cast<std::byte*>(data) + offset; }
const std::byte* at(const void* data, std::int64_t offset) {
  return static_cast<const std::byte*>(data) + offset;
}

bool mpi_is_running() {
  int started = 0, finished = 0;
  MPI_Initialized(&started);
  MPI_Finalized(&finished);
  return started != 0 && finished == 0;
}

constexpr int kExchangeTag = 1;
constexpr int kGatherTag = 2;
constexpr std::int64_t kLargestMessage = std::numeric_limits<int>::max();  // bytes

// A call that failed, named with rank, call, count and scope.
void check(int code, const char* call, std::int64_t count, std::string_view unit, std::string_view scope,
           int rank, int size) {
  if (code == MPI_SUCCESS) return;
  throw CommunicationError(
      fmt::format("{}: rank {} of {}: {} of {} {} failed: {}; see that every rank makes the "
                  "same calls with the same counts",
                  scope, rank, size, call, count, unit, text_of(code)));
}

// Messages posted and not yet done. The lists are kept, so that as many messages as before allocate nothing.
class Messages {
 public:
  Messages(MPI_Comm comm, int rank, int size, std::int64_t largest)
      : comm_(comm), rank_(rank), size_(size), largest_(largest) {}

  void clear() { requests_.clear(); }

  // An empty message is posted, too: a size that disagrees is then noticed instead of a rank waiting for
  // ever.
  void post_receive(int from, void* data, std::int64_t bytes, int tag, bool really, std::string_view scope) {
    for (std::int64_t done = 0; really && done < std::max<std::int64_t>(bytes, 1); done += largest_) {
      const int now = static_cast<int>(std::min(largest_, bytes - done));
      MPI_Request& request = pend(now, from);
      check(MPI_Irecv(at(data, done), now, MPI_BYTE, from, tag, comm_, &request), "MPI_Irecv", bytes, "bytes",
            scope, rank_, size_);
    }
  }

  void post_send(int to, const void* data, std::int64_t bytes, int tag, bool really, std::string_view scope) {
    for (std::int64_t done = 0; really && done < std::max<std::int64_t>(bytes, 1); done += largest_) {
      const int now = static_cast<int>(std::min(largest_, bytes - done));
      MPI_Request& request = pend(-1, to);
      check(MPI_Isend(at(data, done), now, MPI_BYTE, to, tag, comm_, &request), "MPI_Isend", bytes, "bytes",
            scope, rank_, size_);
    }
  }

  void wait(std::string_view call, std::int64_t bytes, std::string_view scope) {
    statuses_.resize(requests_.size());
    settle(MPI_Waitall(static_cast<int>(requests_.size()), requests_.data(), statuses_.data()), call, bytes,
           scope);
  }

  // True once all are done.
  bool test(std::string_view call, std::int64_t bytes, std::string_view scope) {
    statuses_.resize(requests_.size());
    int done = 0;
    const int code =
        MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, statuses_.data());
    if (code == MPI_SUCCESS && done == 0) return false;
    settle(code, call, bytes, scope);
    return true;
  }

 private:
  struct Pending {
    std::int64_t expected;  // bytes of a receive, -1 for a send
    int other;
  };

  MPI_Request& pend(std::int64_t expected, int other) {
    pending_.resize(requests_.size());
    pending_.push_back({expected, other});
    return requests_.emplace_back(MPI_REQUEST_NULL);
  }

  void settle(int code, std::string_view call, std::int64_t bytes, std::string_view scope) {
    if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS)
      check(code, "MPI_Waitall", bytes, "bytes", scope, rank_, size_);
    for (std::size_t i = 0; i < requests_.size(); ++i) {
      const Pending& pending = pending_[i];
      std::string problem;
      int got = 0;
      if (code == MPI_ERR_IN_STATUS && statuses_[i].MPI_ERROR != MPI_SUCCESS &&
          statuses_[i].MPI_ERROR != MPI_ERR_PENDING) {
        problem = text_of(statuses_[i].MPI_ERROR);
      } else if (pending.expected >= 0) {
        check(MPI_Get_count(&statuses_[i], MPI_BYTE, &got), "MPI_Get_count", bytes, "bytes", scope, rank_,
              size_);
        if (got != pending.expected) problem = fmt::format("{} bytes came", got);
      }
      if (problem.empty()) continue;
      throw CommunicationError(fmt::format(
          "{}: rank {} of {}: {}: {} rank {}{} failed: {}; see that sender and receiver agree on the size",
          scope, rank_, size_, call, pending.expected >= 0 ? "receive from" : "send to", pending.other,
          pending.expected >= 0 ? fmt::format(" of {} bytes", pending.expected) : std::string(), problem));
    }
  }

  MPI_Comm comm_;
  int rank_, size_;
  std::int64_t largest_;
  std::vector<MPI_Request> requests_;
  std::vector<MPI_Status> statuses_;
  std::vector<Pending> pending_;
};

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(MPI_Comm comm, int rank, int size, std::int64_t largest_message, std::string& last_scope)
      : Communicator(rank, size),
        comm_(comm),
        largest_(largest_message),
        last_scope_(last_scope),
        messages_(comm, rank, size, largest_message) {}

  ~MpiCommunicator() override {
    if (mpi_is_running()) MPI_Comm_free(&comm_);
  }

  [[noreturn]] void abort(int code) override {
    std::fflush(nullptr);
    MPI_Abort(MPI_COMM_WORLD, code);
    std::_Exit(code);
  }

  void to_self(std::span<const Send> sends, std::span<const Receive> receives, std::string_view scope) const {
    exchange_with_self(sends, receives, scope);
  }

 private:
  void enter(std::string_view scope) { last_scope_.assign(scope); }

  void check(int code, const char* call, std::int64_t count, std::string_view unit,
             std::string_view scope) const {
    parallel::check(code, call, count, unit, scope, rank(), size());
  }

  void do_barrier(std::string_view scope) override {
    enter(scope);
    check(MPI_Barrier(comm_), "MPI_Barrier", 0, "bytes", scope);
  }

  void do_broadcast(void* data, std::int64_t bytes, int root, std::string_view scope) override {
    enter(scope);
    for (std::int64_t done = 0; done < bytes; done += largest_) {
      const int now = static_cast<int>(std::min(largest_, bytes - done));
      check(MPI_Bcast(at(data, done), now, MPI_BYTE, root, comm_), "MPI_Bcast", bytes, "bytes", scope);
    }
  }

  // Byte counts and displacements of the v-collectives. False where they do not fit one message.
  bool lay_out(std::span<const std::int64_t> counts, std::size_t element_size) {
    counts_.resize(counts.size());
    displacements_.resize(counts.size());
    std::int64_t offset = 0;
    bool fits = true;
    for (std::size_t r = 0; r < counts.size(); ++r) {
      const std::int64_t bytes = counts[r] * static_cast<std::int64_t>(element_size);
      fits = fits && offset + bytes <= largest_;
      counts_[r] = static_cast<int>(fits ? bytes : 0);
      displacements_[r] = static_cast<int>(fits ? offset : 0);
      offset += bytes;
    }
    return fits;
  }

  void do_gather(const void* mine, void* all, std::span<const std::int64_t> counts, std::size_t element_size,
                 int root, std::string_view scope) override {
    enter(scope);
    const std::int64_t size = static_cast<std::int64_t>(element_size);
    const std::size_t me = static_cast<std::size_t>(rank());
    const std::int64_t own = counts[me] * size;
    if (lay_out(counts, element_size)) {
      const bool in_place = rank() == root && mine == at(all, displacements_[me]);
      check(MPI_Gatherv(in_place ? MPI_IN_PLACE : mine, static_cast<int>(own), MPI_BYTE, all, counts_.data(),
                        displacements_.data(), MPI_BYTE, root, comm_),
            "MPI_Gatherv", own, "bytes", scope);
      return;
    }
    messages_.clear();
    if (rank() == root) {
      std::int64_t offset = 0;
      for (int r = 0; r < this->size(); ++r) {
        const std::int64_t bytes = counts[static_cast<std::size_t>(r)] * size;
        messages_.post_receive(r, at(all, offset), bytes, kGatherTag, mine != at(all, offset) || r != root,
                               scope);
        if (r == root) messages_.post_send(r, mine, bytes, kGatherTag, mine != at(all, offset), scope);
        offset += bytes;
      }
    } else {
      messages_.post_send(root, mine, own, kGatherTag, true, scope);
    }
    messages_.wait("gather", own, scope);
  }

  void do_all_gather(const void* mine, void* all, std::span<const std::int64_t> counts,
                     std::size_t element_size, std::string_view scope) override {
    enter(scope);
    const std::int64_t size = static_cast<std::int64_t>(element_size);
    const std::size_t me = static_cast<std::size_t>(rank());
    const std::int64_t own = counts[me] * size;
    if (lay_out(counts, element_size)) {
      const bool in_place = mine == at(all, displacements_[me]);
      check(MPI_Allgatherv(in_place ? MPI_IN_PLACE : mine, static_cast<int>(own), MPI_BYTE, all,
                           counts_.data(), displacements_.data(), MPI_BYTE, comm_),
            "MPI_Allgatherv", own, "bytes", scope);
      return;
    }
    messages_.clear();
    std::int64_t offset = 0;
    for (int r = 0; r < this->size(); ++r) {
      const std::int64_t bytes = counts[static_cast<std::size_t>(r)] * size;
      const bool in_place = r == rank() && mine == at(all, offset);
      messages_.post_receive(r, at(all, offset), bytes, kGatherTag, !in_place, scope);
      messages_.post_send(r, mine, own, kGatherTag, !in_place, scope);
      offset += bytes;
    }
    messages_.wait("all_gather", own, scope);
  }

  void do_all_reduce(void* data, std::int64_t count, DType dtype, ReduceOp op,
                     std::string_view scope) override {
    enter(scope);
    const std::int64_t size = static_cast<std::int64_t>(size_of(dtype));
    const std::int64_t most = std::max<std::int64_t>(1, largest_ / size);
    for (std::int64_t done = 0; done < count; done += most) {
      const int now = static_cast<int>(std::min(most, count - done));
      check(MPI_Allreduce(MPI_IN_PLACE, at(data, done * size), now, mpi_type(dtype),
                          op == ReduceOp::sum ? MPI_SUM : MPI_MAX, comm_),
            "MPI_Allreduce", count, graingrad::name_of(dtype), scope);
    }
  }

  std::unique_ptr<Transfer> do_new_transfer() override;

  std::unique_ptr<Communicator> do_split(int color, int key, std::string_view scope) override {
    enter(scope);
    MPI_Comm group = MPI_COMM_NULL;
    check(MPI_Comm_split(comm_, color, key, &group), "MPI_Comm_split", 0, "bytes", scope);
    int group_rank = 0, group_size = 0;
    check(MPI_Comm_set_errhandler(group, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler", 0, "bytes", scope);
    check(MPI_Comm_rank(group, &group_rank), "MPI_Comm_rank", 0, "bytes", scope);
    check(MPI_Comm_size(group, &group_size), "MPI_Comm_size", 0, "bytes", scope);
    return std::make_unique<MpiCommunicator>(group, group_rank, group_size, largest_, last_scope_);
  }

  MPI_Comm comm_;
  std::int64_t largest_;
  std::string& last_scope_;
  // Kept between calls, so that a call with as many messages as an earlier one allocates nothing.
  std::vector<int> counts_, displacements_;
  Messages messages_;
};

class MpiTransfer final : public Transfer {
 public:
  MpiTransfer(Communicator& communicator, const Messages& none, std::string& last_scope)
      : Transfer(communicator), messages_(none), last_scope_(last_scope) {}

 private:
  void do_start(std::span<const Send> sends, std::span<const Receive> receives,
                std::string_view scope) override {
    const int me = communicator().rank();
    scope_.assign(scope);
    last_scope_.assign(scope);
    messages_.clear();
    bytes_ = 0;
    // Receives first: a message that arrives before its receive is copied once more by the library.
    for (const Receive& r : receives)
      messages_.post_receive(r.from, r.data, r.bytes, kExchangeTag, r.from != me, scope);
    for (const Send& s : sends) {
      messages_.post_send(s.to, s.data, s.bytes, kExchangeTag, s.to != me, scope);
      bytes_ += s.bytes;
    }
    // Open MPI 4.1 truncates a message to oneself without an error.
    static_cast<MpiCommunicator&>(communicator()).to_self(sends, receives, scope);
  }
  bool do_test() override { return messages_.test("exchange", bytes_, scope_); }
  void do_wait() override {
    last_scope_.assign(scope_);
    messages_.wait("exchange", bytes_, scope_);
  }

  Messages messages_;
  std::string& last_scope_;
  std::string scope_;
  std::int64_t bytes_ = 0;
};

std::unique_ptr<Transfer> MpiCommunicator::do_new_transfer() {
  return std::make_unique<MpiTransfer>(*this, Messages(comm_, rank(), size(), largest_), last_scope_);
}

void check_start(int code, const char* call) {
  if (code != MPI_SUCCESS)
    throw EnvironmentError(fmt::format("start of MPI: {} failed: {}", call, text_of(code)));
}

std::unique_ptr<MpiCommunicator> duplicate_world(std::int64_t largest_message, std::string& last_scope) {
  MPI_Comm comm = MPI_COMM_NULL;
  int rank = 0, size = 0;
  check_start(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "MPI_Comm_dup");
  check_start(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_start(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank");
  check_start(MPI_Comm_size(comm, &size), "MPI_Comm_size");
  return std::make_unique<MpiCommunicator>(comm, rank, size, largest_message, last_scope);
}

}  // namespace

struct MpiEnvironment::State {
  std::string program;
  std::string scope = "start";
  int rank = 0;
  int exceptions = 0;
  bool running = false;
  std::unique_ptr<MpiCommunicator> world;

  [[noreturn]] void leave_early(const char* how) {
    running = false;
    std::fflush(nullptr);
    std::fprintf(
        stderr,
        "%s: rank %d: %s: left without finishing (%s); all ranks are stopped, since they would wait for it "
        "(exit 13)\n",
        program.c_str(), rank, scope.c_str(), how);
    std::fflush(stderr);
    MPI_Abort(MPI_COMM_WORLD, 13);
    std::_Exit(13);
  }

  // on_exit, not atexit: it passes the state along, so that nothing global points to it.
  static void at_exit(int status, void* state) {
    const std::unique_ptr<State> self(static_cast<State*>(state));
    if (self->running) self->leave_early(fmt::format("exit({}) in mid-run", status).c_str());
  }
};

MpiEnvironment::MpiEnvironment(Options options) : state_(nullptr) {
  int started = 0, provided = 0, rank = 0, size = 0;
  check_start(MPI_Initialized(&started), "MPI_Initialized");
  if (started != 0)
    throw EnvironmentError("start of MPI: it was started before; make one MpiEnvironment a process");
  check_start(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
  try {
    check_start(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check_start(MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check_start(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank");
    check_start(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size");
    check_launcher(detect_launcher(), size, library());
    if (provided < MPI_THREAD_FUNNELED) {
      throw EnvironmentError("start of MPI: " + library() +
                             " gives no MPI_THREAD_FUNNELED; use a build with threads");
    }
    auto state = std::make_unique<State>();
    state->program = std::move(options.program);
    state->scope.reserve(256);
    state->rank = rank;
    state->exceptions = std::uncaught_exceptions();
    state->world = duplicate_world(kLargestMessage, state->scope);
    if (on_exit(&State::at_exit, state.get()) != 0) throw EnvironmentError("start of MPI: on_exit failed");
    state_ = state.release();
    state_->running = true;
  } catch (...) {
    MPI_Finalize();
    throw;
  }
}

MpiEnvironment::~MpiEnvironment() {
  if (std::uncaught_exceptions() > state_->exceptions)
    state_->leave_early("an exception passed MpiEnvironment");
  state_->world.reset();
  state_->running = false;
  MPI_Finalize();
}

Communicator& MpiEnvironment::world() { return *state_->world; }

std::unique_ptr<Communicator> MpiEnvironment::world_with_messages_of(std::int64_t bytes) {
  if (bytes < 8 || bytes > kLargestMessage) {
    throw UsageError(fmt::format("messages of {} bytes; give 8 (one element) to INT_MAX", bytes));
  }
  return duplicate_world(bytes, state_->scope);
}

void MpiEnvironment::enter(std::string_view scope) { state_->scope.assign(scope); }

std::string MpiEnvironment::library() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  if (MPI_Get_library_version(text, &length) != MPI_SUCCESS) return "MPI";
  std::string name(text, static_cast<std::size_t>(length));
  name = name.substr(0, name.find_first_of(",\n"));
  const auto v = name.find(" v");  // "Open MPI v4.1.4" reads better as "Open MPI 4.1.4"
  return v == std::string::npos ? name : name.substr(0, v + 1) + name.substr(v + 2);
}

}  // namespace graingrad::parallel
