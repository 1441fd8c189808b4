#include "apps/support/plan_picture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "apps/support/plan_table.h"
#include "tests/apps/matches.h"
#include "tests/apps/xml.h"
#include "tests/nn/small_gpt.h"

namespace graingrad::apps {
namespace {

using test::Match;
using test::matches;
using test::xml_fault;
using testing::HasSubstr;

const nn::SmallGpt& small_gpt() {
  static const nn::SmallGpt model(
      {.layers = 12, .heads = 2, .width = 32, .sequence = 24, .vocab = 40, .kind = nn::Layers::gpt}, 2);
  return model;
}

// What the picture shows of a buffer.
struct Rectangle {
  double x, y, width, height;
};
std::vector<Rectangle> rectangles(const std::string& svg) {
  const std::string form =
      "<rect class=\"buffer\" x=\"([0-9.]+)\" y=\"([0-9.]+)\" width=\"([0-9.]+)\" height=\"([0-9.]+)\"";
  std::vector<Rectangle> found;
  for (const Match& m : matches(svg, form))
    found.push_back({std::stod(m[1]), std::stod(m[2]), std::stod(m[3]), std::stod(m[4])});
  return found;
}

TEST(Xml, SeesWhatIsWrong) {
  EXPECT_EQ(xml_fault("<a b=\"1\"><c/>text &amp; <d>x</d></a>\n"), "");
  for (const char* bad : {"", "<a>", "<a></b>", "<a/><b/>", "<a b=1/>", "<a b=\"1\" b=\"2\"/>",
                          "<a>x & y</a>", "<a>x > y</a>", "<a b=\"<\"/>", "x<a/>", "</a>"})
    EXPECT_NE(xml_fault(bad), "") << bad;
}

TEST(PlanPicture, IsXmlOfEveryBuffer) {
  const Program& program = small_gpt().program;
  const std::string svg = plan_picture(program, "a < b & \"c\"");
  EXPECT_EQ(xml_fault(svg), "");
  EXPECT_LT(svg.size(), std::size_t{1} << 20);
  EXPECT_EQ(rectangles(svg).size(), program.buffers.size());
  for (const char* piece :
       {"forward", "backward", "MiB", "h.*.attn", "h.*.mlp", "h.0.attn attention f32[48, 32]", "input tokens",
        "bytes alive", "a &lt; b &amp;"})
    EXPECT_THAT(svg, HasSubstr(piece));
}

TEST(PlanPicture, IsTheSameEachTime) {
  EXPECT_EQ(plan_picture(small_gpt().program, "plan"), plan_picture(small_gpt().program, "plan"));
}

TEST(PlanPicture, BuffersAliveTogetherDoNotOverlap) {
  const std::vector<Rectangle> all = rectangles(plan_picture(small_gpt().program, "plan"));
  ASSERT_GT(all.size(), 100u);
  constexpr double kRounding = 0.0021;
  for (std::size_t i = 0; i < all.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) {
      const Rectangle &a = all[i], &b = all[j];
      const double wide = std::min(a.x + a.width, b.x + b.width) - std::max(a.x, b.x);
      const double high = std::min(a.y + a.height, b.y + b.height) - std::max(a.y, b.y);
      ASSERT_FALSE(wide > kRounding && high > kRounding) << i << " and " << j;
    }
}

TEST(PlanPicture, OfAnEmptyProgramIsXml) { EXPECT_EQ(xml_fault(plan_picture(Program(), "nothing")), ""); }

TEST(PlanTable, LabelsBuffersByTheirNode) {
  const Program& program = small_gpt().program;
  const std::vector<BufferLabel> labels = label_buffers(program);
  ASSERT_EQ(labels.size(), program.buffers.size());
  bool attention = false, tokens = false;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    attention |= labels[i].scope == "h.3.attn" && labels[i].op == "attention" &&
                 labels[i].spec == "f32[48, 32]" && program.buffers[i].bytes == 4 * 48 * 32;
    tokens |= labels[i].op == "input tokens" && labels[i].spec == "i32[48]";
  }
  EXPECT_TRUE(attention);
  EXPECT_TRUE(tokens);
}

TEST(PlanTable, ListsWhatIsAliveAtThePeak) {
  const Program& program = small_gpt().program;
  const std::vector<std::int64_t> live = live_bytes(program);
  const std::size_t peak = peak_instruction(program);
  std::int64_t alive = 0;
  for (const PlannedBuffer& b : program.buffers)
    if (b.first <= static_cast<std::int64_t>(peak) && static_cast<std::int64_t>(peak) <= b.last)
      alive += b.bytes;
  EXPECT_EQ(live[peak], alive);
  for (const std::int64_t bytes : live) EXPECT_LE(bytes, alive);
  EXPECT_LE(alive, program.plan.slot);

  const std::vector<std::string> lines = describe_buffers(program, 3);
  ASSERT_EQ(lines.size(), 6u) << "two lines of header, three, and the rest";
  EXPECT_THAT(lines[0], HasSubstr(std::to_string(alive) + " bytes alive during instruction " +
                                  std::to_string(peak) + " of " + std::to_string(live.size())));
  EXPECT_THAT(lines[2], HasSubstr("h.*"));
  EXPECT_THAT(lines[5], HasSubstr("(rest)"));
  // Nothing is lost in folding: the lines' bytes are what is alive.
  std::int64_t sum = 0;
  for (std::size_t i = 2; i < lines.size(); ++i) {
    const std::vector<Match> found = matches(lines[i], " ([0-9]+) +[0-9.]+  -?[0-9]+\\.\\.[0-9]+$");
    ASSERT_EQ(found.size(), 1u) << lines[i];
    sum += std::stoll(found[0][1]);
  }
  EXPECT_EQ(sum, alive);
  EXPECT_TRUE(describe_buffers(Program()).empty());
}

}  // namespace
}  // namespace graingrad::apps
