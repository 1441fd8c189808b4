#include "apps/support/plan_picture.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <map>
#include <string_view>
#include <vector>

#include "apps/support/plan_table.h"
#include "apps/support/profile.h"

namespace graingrad::apps {
namespace {

// Pixels.
constexpr double kLeft = 70, kTop = 40, kWidth = 1000, kHeight = 520, kLegend = 210;

constexpr std::array<std::string_view, 12> kColours = {"#4e79a7", "#f28e2b", "#59a14f", "#b6992d",
                                                       "#e15759", "#76b7b2", "#af7aa1", "#9c755f",
                                                       "#86bcb6", "#d37295", "#8cd17d", "#79706e"};

std::string escaped(std::string_view text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '&':
        result += "&amp;";
        break;
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return result;
}

std::string group_of(const BufferLabel& label) {
  if (label.scope.empty()) return label.op.starts_with("input") ? "inputs" : "(top)";
  const std::string scope = fold_numbers(label.scope);
  std::size_t end = scope.find('.');
  // "h.*" says little: its third component says what the layer does there.
  for (int i = 0; i < (scope.starts_with("h.*.") ? 2 : 1) && end != std::string::npos; ++i)
    end = scope.find('.', end + 1);
  return scope.substr(0, end);
}

// 1, 2 or 5 times a power of ten, so that about six fit into `extent`.
double tick_of(double extent) {
  if (extent <= 0) return 1;
  const double rough = extent / 6, power = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (rough <= factor * power) return factor * power;
  return 10 * power;
}

class Picture {
 public:
  explicit Picture(const Program& program)
      : program_(program),
        instructions_(std::max<double>(1, static_cast<double>(program.instructions.size()))),
        bytes_(static_cast<double>(std::max<std::int64_t>(program.plan.slot, 1))) {}

  std::string draw(const std::string& title) {
    add(R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {:.0f} {:.0f}" font-family="sans-serif" )"
        R"(font-size="12">)",
        kLeft + kWidth + kLegend, kTop + kHeight + 50);
    add(R"(<rect width="100%" height="100%" fill="white"/>)");
    text(kLeft, 24, "start", title);
    buffers();
    live();
    axes();
    legend();
    add("</svg>");
    return std::move(svg_);
  }

 private:
  template <class... Args>
  void add(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(svg_), format, std::forward<Args>(args)...);
    svg_ += '\n';
  }
  void text(double x, double y, std::string_view anchor, std::string_view words) {
    add(R"(<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>)", x, y, anchor, escaped(words));
  }

  double x(double instruction) const { return kLeft + kWidth * instruction / instructions_; }
  double y(double bytes) const { return kTop + kHeight * (1 - bytes / bytes_); }

  void buffers() {
    const std::vector<BufferLabel> labels = label_buffers(program_);
    for (const BufferLabel& label : labels) colours_.emplace(group_of(label), "");
    std::size_t next = 0;
    for (auto& [group, colour] : colours_) colour = kColours[next++ % kColours.size()];
    for (std::size_t i = 0; i < labels.size(); ++i) {
      const PlannedBuffer& b = program_.buffers[i];
      const auto first = static_cast<double>(std::max<std::int64_t>(b.first, 0));
      const double last = std::min(static_cast<double>(b.last) + 1, instructions_);
      if (b.bytes == 0 || last <= first) continue;
      add(R"(<rect class="buffer" x="{:.3f}" y="{:.3f}" width="{:.3f}" height="{:.3f}" fill="{}" )"
          R"(stroke="white" stroke-width="0.3"><title>{}</title></rect>)",
          x(first), y(static_cast<double>(b.offset + b.bytes)), x(last) - x(first),
          kHeight * static_cast<double>(b.bytes) / bytes_, colours_[group_of(labels[i])],
          escaped(fmt::format("{} {} {}: {} bytes at {}, instructions {} to {}",
                              labels[i].scope.empty() ? "(top)" : labels[i].scope, labels[i].op,
                              labels[i].spec, b.bytes, b.offset, b.first, b.last)));
    }
  }

  void live() {
    const std::vector<std::int64_t> live = live_bytes(program_);
    std::string points;
    for (std::size_t i = 0; i < live.size(); ++i) {
      const double height = y(static_cast<double>(live[i]));
      for (const double at : {static_cast<double>(i), static_cast<double>(i + 1)})
        fmt::format_to(std::back_inserter(points), "{:.1f},{:.1f} ", x(at), height);
    }
    add(R"(<polyline points="{}" fill="none" stroke="black" stroke-width="1.2"><title>bytes alive</title>)"
        R"(</polyline>)",
        points);
  }

  void axes() {
    add(R"(<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="none" stroke="black"/>)", kLeft,
        kTop, kWidth, kHeight);
    const double mib = bytes_ / 0x1p20, up = tick_of(mib);
    for (int i = 0; up * i <= mib; ++i)
      text(kLeft - 6, y(up * i * 0x1p20) + 4, "end", fmt::format("{:g}", up * i));
    text(kLeft - 6, kTop - 8, "end", "MiB");
    const double right = std::max(1.0, tick_of(instructions_));
    for (int i = 0; right * i <= instructions_; ++i)
      text(x(right * i), kTop + kHeight + 16, "middle", fmt::format("{:g}", right * i));
    text(kLeft + kWidth / 2, kTop + kHeight + 36, "middle", "instruction");
    if (program_.backward_from >= program_.instructions.size()) return;
    const double from = x(static_cast<double>(program_.backward_from));
    add(R"(<line x1="{0:.1f}" y1="{1:.1f}" x2="{0:.1f}" y2="{2:.1f}" stroke="black" stroke-dasharray="4 3"/>)",
        from, kTop - 12, kTop + kHeight);
    text(from - 4, kTop - 4, "end", "forward");
    text(from + 4, kTop - 4, "start", "backward");
  }

  void legend() {
    double at = kTop + 10;
    const double left = kLeft + kWidth + 14;
    for (const auto& [group, colour] : colours_) {
      add(R"(<rect x="{:.1f}" y="{:.1f}" width="12" height="12" fill="{}"/>)", left, at - 10, colour);
      text(left + 18, at, "start", group);
      at += 18;
    }
    add(R"(<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}" stroke="black" stroke-width="1.2"/>)", left,
        at - 4, left + 12, at - 4);
    text(left + 18, at, "start", "bytes alive");
  }

  const Program& program_;
  double instructions_, bytes_;
  std::map<std::string, std::string> colours_;
  std::string svg_;
};

}  // namespace

std::string plan_picture(const Program& program, const std::string& title) {
  return Picture(program).draw(title);
}

}  // namespace graingrad::apps
