// Writing and strict reading of safetensors files.
#include "apps/support/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "tests/apps/folder.h"
#include "value/error.h"

namespace graingrad::apps {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class SafetensorsTest : public testing::Test {
 protected:
  std::string file(const std::string& bytes) const {
    std::ofstream(path(), std::ios::binary) << bytes;
    return path();
  }
  std::string path() const { return folder_ / "x.safetensors"; }

  // Empty, or why the file is refused.
  std::string refusal(const std::string& bytes) const {
    try {
      const SafetensorsFile read(file(bytes));
      return "";
    } catch (const DataError& error) {
      EXPECT_THAT(error.what(), AllOf(HasSubstr(path()), HasSubstr("; give")));
      return error.what();
    }
  }

  const test::Folder folder_;
};

std::string length(std::uint64_t n) {
  std::string bytes(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>((n >> (8 * i)) & 0xFF);
  return bytes;
}
std::string with(const std::string& header, std::size_t bytes) {
  return length(header.size()) + header + std::string(bytes, '\0');
}
// An entry of one number, or of `shape`.
std::string entry(const std::string& name, const std::string& offsets, const std::string& shape = "[1]",
                  const std::string& dtype = "\"F32\"") {
  return "\"" + name + "\":{\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets +
         "}";
}

const std::map<std::string, Spec> kTensors{{"b", {DType::f64, {3}}},
                                           {"a", {DType::f32, {2, 2}}},
                                           {"c", {DType::i32, {}}},
                                           {"e", {DType::bf16, {0, 5}}}};

std::string whole_file() {
  std::string bytes = safetensors_head(kTensors, {{"step", "7"}, {"note", "\"\n\x80"}});
  for (int i = 0; i < 16 + 24 + 4; ++i) bytes += static_cast<char>(i);
  return bytes;
}

TEST_F(SafetensorsTest, ReadsWhatIsWritten) {
  const std::string bytes = whole_file();
  const SafetensorsFile read(file(bytes));
  EXPECT_EQ(read.header().metadata.at("step"), "7");
  EXPECT_THAT(read.header().metadata.at("note"), testing::StartsWith("\"\n"))
      << "what is no text is replaced";
  ASSERT_EQ(read.header().tensors.size(), kTensors.size());
  for (const auto& [name, spec] : kTensors) EXPECT_EQ(read.tensor(name).spec, spec) << name;
  // In order of names, one behind the other, from a multiple of 8 on.
  EXPECT_EQ(read.tensor("a").offset % 8, 0);
  EXPECT_EQ(read.tensor("b").offset, read.tensor("a").offset + 16);
  EXPECT_EQ(read.tensor("c").offset, read.tensor("b").offset + 24);
  EXPECT_EQ(read.tensor("c").offset + 4, std::ssize(bytes));
  std::vector<char> got(8);
  read.read(read.tensor("a"), 1, 2, got.data());
  for (int i = 0; i < 8; ++i) EXPECT_EQ(got[static_cast<std::size_t>(i)], 4 + i);
  EXPECT_THROW(read.read(read.tensor("a"), 3, 2, got.data()), UsageError);
  EXPECT_THROW(read.read(read.tensor("a"), -1, 1, got.data()), UsageError);
  EXPECT_THROW(read.tensor("d"), DataError);
}

TEST_F(SafetensorsTest, RefusesEveryTruncation) {
  const std::string bytes = whole_file();
  for (std::size_t n = 0; n < bytes.size(); ++n) EXPECT_NE(refusal(bytes.substr(0, n)), "") << n;
  EXPECT_THAT(refusal(bytes + "x"), HasSubstr("1 bytes behind the last tensor"));
}

// No flipped bit of length and header makes the reader fail otherwise than by refusing.
TEST_F(SafetensorsTest, SurvivesEveryFlippedBit) {
  const std::string bytes = whole_file();
  int refused = 0, all = 0;
  for (std::size_t i = 0; i < bytes.size() - 44; ++i)
    for (int bit = 0; bit < 8; ++bit, ++all) {
      std::string flipped = bytes;
      flipped[i] = static_cast<char>(flipped[i] ^ (1 << bit));
      if (!refusal(flipped).empty()) ++refused;
    }
  EXPECT_GT(refused, all / 2);
}

TEST_F(SafetensorsTest, RefusesDamagedHeaders) {
  const std::string a = entry("a", "[0,4]");
  EXPECT_EQ(refusal(with("{" + a + "," + entry("b", "[4,8]") + "}", 8)), "");
  EXPECT_THAT(refusal(length(1'000'000) + "{}"), HasSubstr("beyond its 10 bytes"));
  EXPECT_THAT(refusal(length(~std::uint64_t{0}) + "{}"), HasSubstr("beyond its 10 bytes"));
  const struct {
    std::string header;
    std::size_t bytes;
    std::string says;
  } cases[] = {
      {"{" + a + "," + entry("b", "[0,4]") + "}", 4, "'b': lies over another"},
      {"{" + a + "," + entry("b", "[2,6]") + "}", 6, "'b': lies over another"},
      {"{" + a + "," + entry("b", "[8,12]") + "}", 12, "'b': leaves a hole"},
      {"{" + entry("a", "[4,8]") + "}", 8, "'a': leaves a hole"},
      {"{" + a + "," + a + "}", 4, "'a' twice"},
      {"{" + a + "}", 8, "4 bytes behind the last tensor"},
      {"{" + a + "}", 3, "'a': its data_offsets are not in"},
      {"{" + entry("a", "[4,0]") + "}", 4, "'a': its data_offsets are not in"},
      {"{" + entry("a", "[0,8]") + "}", 8, "'a': has 8 bytes"},
      {"{" + entry("a", "[0,-4]") + "}", 4, "'a': data_offsets is no list of whole"},
      {"{" + entry("a", "[0,4.0]") + "}", 4, "'a': data_offsets is no list of whole"},
      {"{" + entry("a", "[0,4]", "[1.0]") + "}", 4, "'a': shape is no list of whole"},
      {"{" + entry("a", "[0,4]", "[4294967296,4294967296]") + "}", 4, "'a': its shape has more elements"},
      {"{" + entry("a", "[0,4]", "[1,1,1,1,1,1,1]") + "}", 4, "'a': has 7 dims"},
      {"{" + entry("a", "[0,4]", "[1]", "\"F31\"") + "}", 4, "'a': dtype 'F31'"},
      {"{" + entry("a", "[0,4]", "[1]", "1") + "}", 4, "'a': is described by"},
      {"{" + entry("a", "[0,4],\"more\":1") + "}", 4, "'a': is described by"},
      {R"({"a":{"dtype":"F32","shape":[1]}})", 4, "'a': has no data_offsets"},
      {R"({"a":7})", 4, "'a': has no dtype"},
      {R"({"__metadata__":{"step":7}})", 0, "metadata"},
      {R"({"__metadata__":[]})", 0, "metadata"},
      {R"({"a":{"shape":[[[1]]]}})", 4, "too deeply"},
      {"[]", 0, "no JSON object"},
      {" {}", 0, "no JSON object"},
      {"{", 0, "no JSON"},
      {"{\"\x80\":1}", 0, "no JSON"},
  };
  for (const auto& c : cases) EXPECT_THAT(refusal(with(c.header, c.bytes)), HasSubstr(c.says)) << c.header;
}

TEST_F(SafetensorsTest, RefusesWhatIsNoFile) {
  const auto message = [](const std::string& path) -> std::string {
    try {
      const SafetensorsFile read(path);
    } catch (const DataError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(message(folder_ / "absent"), HasSubstr("No such file"));
  EXPECT_THAT(message(folder_.path()), HasSubstr("is a directory"));
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(message(folder_ / "pipe"), HasSubstr("not a regular file"));
}

TEST_F(SafetensorsTest, SaysWhenTheFileShrinks) {
  const std::string bytes = whole_file();
  const SafetensorsFile read(file(bytes));
  ASSERT_EQ(::truncate(path().c_str(), static_cast<off_t>(bytes.size() - 10)), 0);
  std::vector<double> got(3);
  EXPECT_THROW(read.read(read.tensor("b"), 0, 3, got.data()), DataError);
  EXPECT_NO_THROW(read.read(read.tensor("b"), 0, 1, got.data()));
}

}  // namespace
}  // namespace graingrad::apps
