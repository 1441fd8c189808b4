// The command line: long flags with defaults in --help, a config file, and errors that say what to change.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace graingrad::apps {

/// Bounds of a number on the command line, both inclusive.
template <class T>
struct Bounds {
  T minimum = std::numeric_limits<T>::lowest();
  T maximum = std::numeric_limits<T>::max();
};

/// What a program accepts. Flags are long and kebab-case ("--micro-batch"); the bound variable's value when
/// the flag is declared is its default and stands in --help. Every program also has --help, --version and
/// --config FILE (TOML; keys are the flags' names; the command line wins). Variables must outlive the Cli.
class Cli {
 public:
  /// `examples` are printed at the end of --help, one a line, without the program's name.
  Cli(std::string program, std::string description, std::vector<std::string> examples);
  ~Cli();
  Cli(const Cli&) = delete;
  Cli& operator=(const Cli&) = delete;

  /// A whole number.
  void integer(const std::string& flag, std::int64_t& value, const std::string& help,
               Bounds<std::int64_t> bounds = {});
  /// A finite number.
  void real(const std::string& flag, double& value, const std::string& help, Bounds<double> bounds = {});
  /// Any text; `type` names it in --help ("FILE").
  void text(const std::string& flag, std::string& value, const std::string& help,
            const std::string& type = "TEXT");
  /// One of `allowed`.
  void choice(const std::string& flag, std::string& value, const std::string& help,
              std::vector<std::string> allowed);
  /// False unless given.
  void toggle(const std::string& flag, bool& value, const std::string& help);

  /// What is left to do after parse().
  enum class Next { run, leave };

  /// Reads the arguments and the config file, and sets the variables. Prints --help or --version to stdout
  /// (where `speaks`; one rank of a job does) and returns Next::leave. Throws UsageError for anything that it
  /// does not understand: unknown flags and config keys (with the nearest known one), missing or bad values,
  /// an unreadable file. Call once.
  [[nodiscard]] Next parse(int argc, const char* const* argv, bool speaks = true);

  /// True if `flag` was set on the command line or in the config file. After parse().
  bool given(const std::string& flag) const;

  /// Every flag with the value in force, as a config file that --config reads back. After parse().
  std::string resolved() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace graingrad::apps
