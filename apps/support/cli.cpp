#include "apps/support/cli.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <string_view>
#include <type_traits>

#include "apps/support/build_info.h"
#include "apps/support/text.h"
#include "value/error.h"

namespace graingrad::apps {

struct Cli::Impl {
  std::string program;
  CLI::App app;
  std::vector<std::string> flags;  // without dashes, in order of declaration

  CLI::Option* add(const std::string& flag, const std::string& help, const std::string& type,
                   const std::string& default_text, std::function<void(const std::string&)> set) {
    CLI::Option* option = app.add_option(
        flag,
        [set = std::move(set)](const CLI::results_t& results) {
          set(results.at(0));
          return true;
        },
        help);
    option->type_name(type)->default_str(default_text);
    flags.push_back(flag.substr(2));
    return option;
  }

  std::string did_you_mean(const std::string& word, std::string_view dashes) const {
    const std::string known = nearest(word, flags);
    if (known.empty()) return fmt::format("`{} --help` lists what there is", program);
    return fmt::format("did you mean {}{}?", dashes, known);
  }

  [[noreturn]] void refuse_arguments(const std::vector<std::string>& arguments) const;
  void check_config_keys(const std::string& path) const;
};

namespace {

std::string one_line(std::string text) {
  for (char& c : text)
    if (c == '\n' || c == '\r') c = ' ';
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

template <class T>
std::string bounds_text(Bounds<T> bounds) {
  const bool below = bounds.maximum < std::numeric_limits<T>::max();
  const bool above = bounds.minimum > std::numeric_limits<T>::lowest();
  if (above && below) return fmt::format(" from {} to {}", bounds.minimum, bounds.maximum);
  if (above) return fmt::format(" of at least {}", bounds.minimum);
  if (below) return fmt::format(" of at most {}", bounds.maximum);
  return "";
}

template <class T>
T number(const std::string& flag, const std::string& text, Bounds<T> bounds) {
  T value{};
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  bool good = error == std::errc() && rest == end && bounds.minimum <= value && value <= bounds.maximum;
  if constexpr (std::is_floating_point_v<T>) good = good && std::isfinite(value);
  if (!good)
    throw UsageError(fmt::format("{}: '{}' does not do; give a {}{}", flag, text,
                                 std::is_floating_point_v<T> ? "number" : "whole number",
                                 bounds_text(bounds)));
  return value;
}

}  // namespace

void Cli::Impl::refuse_arguments(const std::vector<std::string>& arguments) const {
  const std::string& first = arguments.front();
  if (!first.starts_with("-"))
    throw UsageError(fmt::format(
        "unexpected argument '{}'; every setting is a --flag, `{} --help` lists them", first, program));
  const std::string flag = first.substr(0, first.find('='));
  const std::string word = flag.substr(
      flag.find_first_not_of('-') == std::string::npos ? flag.size() : flag.find_first_not_of('-'));
  throw UsageError(fmt::format("unknown flag {}; {}", flag, did_you_mean(word, "--")));
}

void Cli::Impl::check_config_keys(const std::string& path) const {
  for (const CLI::ConfigItem& item : app.get_config_formatter_base()->from_file(path)) {
    if (item.name == "++" || item.name == "--") continue;  // where a [section] begins or ends
    const std::string key = item.fullname();
    if (std::find(flags.begin(), flags.end(), key) == flags.end())
      throw UsageError(fmt::format("{}: unknown key '{}'; {}", path, key, did_you_mean(key, "")));
  }
}

Cli::Cli(std::string program, std::string description, std::vector<std::string> examples)
    : impl_(new Impl{std::move(program), CLI::App(std::move(description)), {}}) {
  CLI::App& app = impl_->app;
  app.name(impl_->program);
  app.set_help_flag("--help", "Print this and leave");
  app.set_version_flag("--version",
                       std::string(impl_->program) + " of graingrad " + version() + ", commit " + commit());
  app.set_config("--config", "",
                 "Read settings from a TOML file (keys are the flags' names); flags given here win")
      ->type_name("FILE");
  // Unknown arguments are collected, so that the message can name the first one and what is near it.
  app.allow_extras();
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.get_formatter()->column_width(36);
  std::string footer = "Examples:";
  for (const std::string& example : examples) footer += "\n  " + impl_->program + " " + example;
  if (!examples.empty()) app.footer(footer);
  impl_->flags = {"help", "version", "config"};
}

Cli::~Cli() = default;

void Cli::integer(const std::string& flag, std::int64_t& value, const std::string& help,
                  Bounds<std::int64_t> bounds) {
  impl_->add(flag, help, "INT", fmt::format("{}", value), [flag, &value, bounds](const std::string& text) {
    value = number<std::int64_t>(flag, text, bounds);
  });
}

void Cli::real(const std::string& flag, double& value, const std::string& help, Bounds<double> bounds) {
  impl_->add(flag, help, "NUMBER", fmt::format("{}", value),
             [flag, &value, bounds](const std::string& text) { value = number<double>(flag, text, bounds); });
}

void Cli::text(const std::string& flag, std::string& value, const std::string& help,
               const std::string& type) {
  impl_->add(flag, help, type, value, [&value](const std::string& given) { value = given; });
}

void Cli::choice(const std::string& flag, std::string& value, const std::string& help,
                 std::vector<std::string> allowed) {
  const std::string type = join(allowed, "|");
  impl_->add(flag, help, type, value, [flag, &value, allowed = std::move(allowed)](const std::string& given) {
    if (std::find(allowed.begin(), allowed.end(), given) == allowed.end()) {
      const std::string known = nearest(given, allowed);
      throw UsageError(fmt::format("{}: '{}' is none of {}; {}", flag, given, join(allowed, ", "),
                                   known.empty() ? "give one of them" : "did you mean " + known + "?"));
    }
    value = given;
  });
}

void Cli::toggle(const std::string& flag, bool& value, const std::string& help) {
  impl_->app.add_flag(flag, value, help);
  impl_->flags.push_back(flag.substr(2));
}

Cli::Next Cli::parse(int argc, const char* const* argv, bool speaks) {
  CLI::App& app = impl_->app;
  const auto print = [speaks](const std::string& text) {
    if (!speaks) return;
    std::fputs(text.c_str(), stdout);
    if (!text.ends_with('\n')) std::fputc('\n', stdout);
    std::fflush(stdout);
  };
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    print(app.help());
    return Next::leave;
  } catch (const CLI::CallForVersion& version) {
    print(version.what());
    return Next::leave;
  } catch (const CLI::ConfigError& error) {
    impl_->check_config_keys(app["--config"]->as<std::string>());
    throw UsageError(fmt::format("--config {}: {}; write one `flag = value` a line",
                                 app["--config"]->as<std::string>(), one_line(error.what())));
  } catch (const CLI::FileError& error) {
    throw UsageError(fmt::format("--config {}: the file is missing or cannot be read; give a TOML file",
                                 app["--config"]->as<std::string>()));
  } catch (const CLI::ArgumentMismatch& error) {
    throw UsageError(fmt::format("{}; give the flag once, with one value", one_line(error.what())));
  } catch (const CLI::Error& error) {
    throw UsageError(
        fmt::format("{}; `{} --help` lists what there is", one_line(error.what()), impl_->program));
  }
  if (const std::vector<std::string> extras = app.remaining(); !extras.empty())
    impl_->refuse_arguments(extras);
  return Next::run;
}

bool Cli::given(const std::string& flag) const { return impl_->app.count(flag) > 0; }

std::string Cli::resolved() const { return impl_->app.config_to_str(true, false); }

}  // namespace graingrad::apps
