#include "tests/apps/programs/launch.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <thread>

namespace graingrad::apps::test {
namespace {

// GRAINGRAD_BINARIES, GRAINGRAD_MPIRUN ("mpirun -n") and GRAINGRAD_MPIRUN_FLAGS come from CMake.
std::string path_of(const std::string& program) { return std::string(GRAINGRAD_BINARIES) + "/" + program; }

std::string in_quotes(const std::string& text) { return "'" + text + "'"; }

std::string command_of(const Launch& launch) {
  std::string command =
      "env " + launch.environment + " timeout -k 1 " + std::to_string(launch.limit_seconds) + " ";
  if (launch.ranks > 0)
    command += std::string(GRAINGRAD_MPIRUN) + " " + std::to_string(launch.ranks) + " " +
               GRAINGRAD_MPIRUN_FLAGS + " ";
  return command + in_quotes(path_of(launch.program)) + " " + launch.arguments;
}

int code_of(int status) {
  if (WIFEXITED(status)) return WEXITSTATUS(status);
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : -1;
}

}  // namespace

std::string text_of(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

std::vector<std::string> Outcome::error_lines(const std::string& program) const {
  std::vector<std::string> lines;
  std::istringstream text(err);
  for (std::string line; std::getline(text, line);)
    if (line.starts_with(program + ": ")) lines.push_back(line);
  return lines;
}

Outcome run(const Launch& launch) {
  const Folder folder;
  Outcome outcome;
  outcome.command = command_of(launch);
  const std::string command =
      outcome.command + " >" + in_quotes(folder / "out") + " 2>" + in_quotes(folder / "err") + " </dev/null";
  outcome.code = code_of(std::system(command.c_str()));
  outcome.out = text_of(folder / "out");
  outcome.err = text_of(folder / "err");
  return outcome;
}

nlohmann::json final_record(Launch launch) {
  launch.arguments += " --json";
  const Outcome outcome = run(launch);
  nlohmann::json record = outcome.record();
  if (outcome.code != 0 || !record.is_object()) {
    ADD_FAILURE() << outcome.command << "\nexit " << outcome.code << "\n" << outcome.out << outcome.err;
    return nlohmann::json::object();
  }
  return record;
}

nlohmann::json trained_record(const Launch& launch) {
  const nlohmann::json record = final_record(launch);
  EXPECT_NE(record.value("hash", ""), "") << launch.program << " " << launch.arguments;
  EXPECT_EQ(record.value("used_bytes", 0),
            record.value(nlohmann::json::json_pointer("/plan_bytes/peak"), std::int64_t{-1}))
      << launch.program << " " << launch.arguments;
  return record;
}

std::string bits_of(const nlohmann::json& record) {
  std::string text;
  for (const char* key : {"hash", "loss_first", "loss", "w_hat"})
    if (record.contains(key)) text += record[key].dump() + " ";
  return text;
}

Background::Background(const Launch& launch, std::string output) {
  const std::string command = "exec " + command_of(launch) + " >" + in_quotes(output) + " 2>&1 </dev/null";
  pid_ = ::fork();
  if (pid_ < 0) throw std::runtime_error("cannot fork");
  if (pid_ == 0) {
    ::execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    ::_exit(127);
  }
}

Background::~Background() {
  if (pid_ < 0) return;
  ::kill(pid_, SIGTERM);
  if (!ends_within(std::chrono::seconds(5))) ::kill(pid_, SIGKILL);
}

bool Background::ends_within(std::chrono::milliseconds patience) {
  const auto last = std::chrono::steady_clock::now() + patience;
  while (pid_ >= 0) {
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) == pid_) {
      code_ = code_of(status);
      pid_ = -1;
      return true;
    }
    if (std::chrono::steady_clock::now() > last) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

std::vector<Process> processes(const std::string& program, const std::string& argument) {
  std::vector<Process> found;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    const std::string name = entry.path().filename().string();
    if (!std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isdigit(c) != 0; }))
      continue;
    if (std::filesystem::read_symlink(entry.path() / "exe", ignored) !=
        std::filesystem::canonical(path_of(program)))
      continue;
    if (text_of(entry.path() / "cmdline").find(argument) == std::string::npos) continue;
    Process process{std::stoi(name), -1};
    const std::string environment = '\0' + text_of(entry.path() / "environ"),
                      key = std::string(1, '\0') + "OMPI_COMM_WORLD_RANK=";
    if (const std::size_t at = environment.find(key); at != std::string::npos)
      process.rank = std::atoi(environment.c_str() + at + key.size());
    found.push_back(process);
  }
  return found;
}

}  // namespace graingrad::apps::test
