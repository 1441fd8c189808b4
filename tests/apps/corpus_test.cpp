#include "apps/support/corpus.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <vector>

#include "apps/support/build_info.h"
#include "tests/apps/folder.h"
#include "value/error.h"

namespace graingrad::apps {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class CorpusTest : public testing::Test {
 protected:
  std::string file(const std::string& content) const {
    const std::string path = folder_ / "text";
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }
  static std::string refusal(const std::string& path, std::int64_t sequence) {
    try {
      const ByteCorpus corpus(path, sequence, 256, 1);
      return "accepted";
    } catch (const DataError& error) {
      EXPECT_EQ(error.exit_code(), 10);
      return error.what();
    }
  }

  const test::Folder folder_;
};

std::string counting_bytes(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += static_cast<char>(i * 7 % 251);
  return text;
}

TEST_F(CorpusTest, RefusesBadFilesNamingFileAndReason) {
  EXPECT_THAT(refusal(folder_ / "absent", 4),
              AllOf(HasSubstr(folder_ / "absent"), HasSubstr("No such file")));
  EXPECT_THAT(refusal(folder_.path(), 4), AllOf(HasSubstr(folder_.path()), HasSubstr("is a directory")));
  EXPECT_THAT(refusal(file(""), 4), AllOf(HasSubstr(folder_ / "text"), HasSubstr("is empty")));
  EXPECT_THAT(refusal(file("abcd"), 4), AllOf(HasSubstr("has 4 bytes"), HasSubstr("at most 3")));
  EXPECT_EQ(refusal(file("abcde"), 4), "accepted");
  const std::string pipe = folder_ / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THAT(refusal(pipe, 4), HasSubstr("not a regular file"));
}

TEST_F(CorpusTest, RefusesAFileThatMayNotBeRead) {
  const std::string path = file("abcdefgh");
  ASSERT_EQ(::chmod(path.c_str(), 0), 0);
  if (::access(path.c_str(), R_OK) == 0) GTEST_SKIP() << "root reads everything";
  EXPECT_THAT(refusal(path, 4), HasSubstr("Permission denied"));
}

TEST_F(CorpusTest, TargetsAreInputsOneByteOn) {
  const std::string text = counting_bytes(1000);
  constexpr std::int64_t kSequence = 32;
  const ByteCorpus corpus(file(text), kSequence, 256, 1);
  EXPECT_EQ(corpus.bytes(), 1000);
  ASSERT_EQ(corpus.windows(), 31);  // 31 * 32 + 1 = 993 bytes
  std::vector<std::int32_t> inputs(kSequence), targets(kSequence);
  std::set<std::int64_t> windows;
  for (std::int64_t sample = 0; sample < corpus.windows(); ++sample) {
    const std::int64_t window = corpus.window_of(sample);
    windows.insert(window);
    corpus.fill(sample, inputs, targets);
    for (std::int64_t t = 0; t < kSequence; ++t) {
      const auto at = static_cast<std::size_t>(window * kSequence + t);
      const auto i = static_cast<std::size_t>(t);
      EXPECT_EQ(inputs[i], static_cast<unsigned char>(text[at]));
      EXPECT_EQ(targets[i], static_cast<unsigned char>(text[at + 1]));
    }
  }
  EXPECT_EQ(std::ssize(windows), corpus.windows());  // an epoch shows every window once
}

TEST_F(CorpusTest, EpochsAndSeedsShuffleAnew) {
  const std::string path = file(counting_bytes(4001));
  const ByteCorpus one(path, 4, 256, 1), two(path, 4, 256, 2), again(path, 4, 256, 1);
  int epochs_agree = 0, seeds_agree = 0;
  for (std::int64_t sample = 0; sample < one.windows(); ++sample) {
    EXPECT_EQ(one.window_of(sample), again.window_of(sample));
    epochs_agree += one.window_of(sample) == one.window_of(sample + one.windows()) ? 1 : 0;
    seeds_agree += one.window_of(sample) == two.window_of(sample) ? 1 : 0;
  }
  EXPECT_LE(epochs_agree, 8);
  EXPECT_LE(seeds_agree, 8);
}

TEST_F(CorpusTest, ASmallVocabularyTakesBytesModulo) {
  const std::string path = file(counting_bytes(300));
  std::vector<std::int32_t> inputs(16), targets(16), wide(16), wide_targets(16);
  const ByteCorpus small(path, 16, 65, 1), large(path, 16, 1000, 1);
  bool above = false;
  for (std::int64_t sample = 0; sample < small.windows(); ++sample) {
    small.fill(sample, inputs, targets);
    large.fill(sample, wide, wide_targets);
    for (std::size_t t = 0; t < 16; ++t) {
      EXPECT_EQ(inputs[t], wide[t] % 65);
      EXPECT_EQ(targets[t], wide_targets[t] % 65);
      above = above || wide[t] >= 65;
    }
  }
  EXPECT_TRUE(above);
}

// Longer than the buffer that fill reads through.
TEST_F(CorpusTest, ReadsLongSequencesWhole) {
  const std::string text = counting_bytes(20001);
  const ByteCorpus corpus(file(text), 10000, 256, 1);
  std::vector<std::int32_t> inputs(10000), targets(10000);
  for (std::int64_t sample = 0; sample < 2; ++sample) {
    corpus.fill(sample, inputs, targets);
    const auto first = static_cast<std::size_t>(corpus.window_of(sample) * 10000);
    for (std::size_t t = 0; t < 10000; ++t) {
      ASSERT_EQ(inputs[t], static_cast<unsigned char>(text[first + t]));
      ASSERT_EQ(targets[t], static_cast<unsigned char>(text[first + t + 1]));
    }
  }
}

TEST_F(CorpusTest, NoticesAFileThatShrinks) {
  const std::string path = file(counting_bytes(1000));
  const ByteCorpus corpus(path, 10, 256, 1);
  std::filesystem::resize_file(path, 5);
  std::vector<std::int32_t> inputs(10), targets(10);
  EXPECT_THROW(
      {
        for (std::int64_t sample = 0; sample < 2; ++sample) corpus.fill(sample, inputs, targets);
      },
      DataError);
}

TEST_F(CorpusTest, RefusesSpansOfAnotherLength) {
  const ByteCorpus corpus(file(counting_bytes(100)), 10, 256, 1);
  std::vector<std::int32_t> ten(10), nine(9);
  EXPECT_THROW(corpus.fill(0, nine, ten), UsageError);
  EXPECT_THROW(corpus.fill(0, ten, nine), UsageError);
  EXPECT_THROW(corpus.fill(-1, ten, ten), UsageError);
}

TEST(DefaultCorpus, IsRealText) {
  EXPECT_EQ(default_corpus_path(), GRAINGRAD_TEST_CORPUS);
  const ByteCorpus corpus(default_corpus_path(), 256, 256, 1);
  EXPECT_GT(corpus.bytes(), 1'000'000);
  std::ifstream file(corpus.path());
  const std::string text(std::istreambuf_iterator<char>(file), {});
  EXPECT_THAT(text, HasSubstr("push_back"));
}

}  // namespace
}  // namespace graingrad::apps
