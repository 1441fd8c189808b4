#include "apps/support/program.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "parallel/launcher.h"
#include "parallel/mpi.h"
#include "value/error.h"

namespace graingrad::apps {
namespace {

constexpr std::chrono::milliseconds kPatience{1000};

void say(const std::string& line) {
  // One write, so that lines of several ranks do not mix.
  const std::string text = line + "\n";
  std::fflush(stdout);
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
}

// The code and the message of the exception in flight.
std::pair<int, std::string> current_failure() {
  try {
    throw;
  } catch (const Error& error) {
    return {error.exit_code(), error.what()};
  } catch (const std::bad_alloc&) {
    return {11, "memory ran out; take a smaller model, sequence or micro-batch, or more ranks"};
  } catch (const std::exception& error) {
    return {1, fmt::format("unforeseen: {}; please report this", error.what())};
  } catch (...) {
    return {1, "unforeseen: an exception of an unknown type; please report this"};
  }
}

// Runs `late` on a thread of its own unless dismissed within kPatience.
class Watchdog {
 public:
  explicit Watchdog(std::function<void()> late)
      : thread_([this, late = std::move(late)] {
          std::unique_lock lock(mutex_);
          if (!dismissed_.wait_for(lock, kPatience, [this] { return done_; })) late();
        }) {}
  ~Watchdog() {
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
    }
    dismissed_.notify_one();
    thread_.join();
  }
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable dismissed_;
  bool done_ = false;
  std::thread thread_;
};

}  // namespace

Job::Job(std::string program) : program_(std::move(program)) {}

// The group goes before the environment that it lives in.
Job::~Job() { last_words_.reset(); }

bool Job::speaks() const {
  return started() ? environment_->world().rank() == 0 : parallel::launcher_speaks();
}

parallel::Communicator& Job::start() {
  if (!started()) {
    environment_ =
        std::make_unique<parallel::MpiEnvironment>(parallel::MpiEnvironment::Options{.program = program_});
    last_words_ = environment_->world().split(0, environment_->world().rank(), "start");
    environment_->world().reset_traffic();
  }
  return environment_->world();
}

void Job::enter(std::string_view scope) {
  scope_ = scope;
  if (started()) environment_->enter(scope);
}

int Job::leave_with(int code, const std::string& line) {
  if (!started() || last_words_ == nullptr || last_words_->size() == 1) {
    if (speaks())
      say(line);
    else
      // A launcher ends all ranks when one leaves with a code: not before the one that speaks has spoken.
      std::this_thread::sleep_for(kPatience / 4);
    return code;
  }
  // If every rank failed, all come here and leave in order. If one did not, it never comes, and waits
  // elsewhere for us: then only an abort ends the job.
  std::vector<std::int32_t> codes(static_cast<std::size_t>(last_words_->size()));
  try {
    const Watchdog watchdog([&] {
      say(line);
      last_words_->abort(code);
    });
    const std::vector<std::int64_t> counts(codes.size(), 1);
    const std::int32_t mine = code;
    last_words_->all_gather(std::span(&mine, 1), std::span(codes), counts, "leave");
  } catch (...) {
    say(line);
    last_words_->abort(code);
  }
  const auto worst = std::max_element(codes.begin(), codes.end());
  if (worst - codes.begin() == last_words_->rank()) say(line);
  return *worst;
}

std::string error_line(std::string_view program, int rank, std::string_view scope, std::string_view message,
                       int code) {
  std::string line(program);
  if (rank >= 0) line += fmt::format(": rank {}", rank);
  if (!scope.empty() && !message.starts_with(fmt::format("{}:", scope))) line += fmt::format(": {}", scope);
  line += fmt::format(": {} (exit {})", message, code);
  std::replace(line.begin(), line.end(), '\n', ' ');
  return line;
}

int run_program(const std::string& program, const std::function<int(Job&)>& body) {
  Job job(program);
  try {
    return body(job);
  } catch (...) {
    const auto [code, message] = current_failure();
    const int rank = job.started() ? job.environment_->world().rank() : -1;
    return job.leave_with(code, error_line(program, rank, job.scope(), message, code));
  }
}

}  // namespace graingrad::apps
