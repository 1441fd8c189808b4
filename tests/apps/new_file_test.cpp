// Files that appear whole or not at all.
#include "apps/support/new_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/apps/folder.h"
#include "value/error.h"

namespace graingrad::apps {
namespace {

using testing::HasSubstr;

class NewFileTest : public testing::Test {
 protected:
  static std::span<const std::byte> bytes(const std::string& text) { return std::as_bytes(std::span(text)); }
  std::string text() const {
    std::ostringstream all;
    all << std::ifstream(path_).rdbuf();
    return all.str();
  }
  std::vector<std::string> names() const {
    std::vector<std::string> all;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path()))
      all.push_back(entry.path().filename().string());
    return all;
  }

  const test::Folder folder_;
  const std::string path_ = folder_ / "saved";
};

TEST_F(NewFileTest, AppearsWithItsRename) {
  std::ofstream(path_) << "old";
  {
    NewFile file(path_, "--save");
    file.write(bytes("new, "));
    file.write(bytes("and whole"));
    EXPECT_EQ(text(), "old");
    file.commit();
    EXPECT_EQ(text(), "new, and whole");
  }
  EXPECT_THAT(names(), testing::ElementsAre("saved"));
}

TEST_F(NewFileTest, LeavesNothingBehind) {
  std::ofstream(path_) << "old";
  {
    NewFile file(path_, "--save");
    file.write(bytes("half"));
  }
  EXPECT_EQ(text(), "old");
  EXPECT_THAT(names(), testing::ElementsAre("saved"));
}

// A limit on the size of files stands for a full disk.
TEST_F(NewFileTest, SaysThatTheDiskIsFull) {
  std::ofstream(path_) << "old";
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{1000, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string message;
  try {
    NewFile file(path_, "--save");
    for (int i = 0; i < 100; ++i) file.write(bytes(std::string(100, 'x')));
    file.commit();
  } catch (const IoError& error) {
    EXPECT_EQ(error.exit_code(), 14);
    message = error.what();
  }
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, handler);
  EXPECT_THAT(message, testing::AllOf(HasSubstr(path_), HasSubstr("--save"), HasSubstr("; ")));
  EXPECT_EQ(text(), "old");
  EXPECT_THAT(names(), testing::ElementsAre("saved"));
}

TEST_F(NewFileTest, RefusesWhatIsNoFile) {
  EXPECT_THROW(NewFile(folder_.path(), "--save"), IoError);
  EXPECT_THROW(NewFile("/dev/null", "--save"), IoError) << "a rename would replace the device";
  EXPECT_THROW(NewFile(folder_ / "no/such/file", "--save"), IoError);
  EXPECT_TRUE(names().empty());
}

}  // namespace
}  // namespace graingrad::apps
