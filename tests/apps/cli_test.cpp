#include "apps/support/cli.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <vector>

#include "apps/support/build_info.h"
#include "tests/apps/folder.h"
#include "value/error.h"

namespace graingrad::apps {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

struct Settings {
  std::int64_t layers = 1;
  std::int64_t seed = 1;
  double lr = 0.1;
  std::string reduce = "tree";
  std::string data;
  bool untie = false;
};

class CliTest : public testing::Test {
 protected:
  CliTest() : cli_("trainer", "Trains a model.", {"--layers 2", "--reduce allreduce"}) {
    cli_.integer("--layers", settings_.layers, "Layers", {1, 1000});
    cli_.integer("--seed", settings_.seed, "Seed");
    cli_.real("--lr", settings_.lr, "Learning rate", {.minimum = 0.0});
    cli_.choice("--reduce", settings_.reduce, "How to add gradients",
                {"tree", "allreduce", "gather-broadcast"});
    cli_.text("--data", settings_.data, "Text to train on", "FILE");
    cli_.toggle("--untie", settings_.untie, "Untie the head");
    write_config("");
  }

  Cli::Next parse(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "trainer");
    return cli_.parse(static_cast<int>(arguments.size()), arguments.data());
  }
  std::string refusal(const std::vector<const char*>& arguments) {
    try {
      (void)parse(arguments);
      return "accepted";
    } catch (const UsageError& error) {
      EXPECT_EQ(error.exit_code(), 2);
      EXPECT_THAT(error.what(), Not(HasSubstr("\n")));
      return error.what();
    }
  }
  void write_config(const std::string& text) const { std::ofstream(config_) << text; }

  Settings settings_;
  Cli cli_;
  const test::Folder folder_;
  const std::string config_ = folder_ / "config";
};

TEST_F(CliTest, DefaultsStay) {
  EXPECT_EQ(parse({}), Cli::Next::run);
  EXPECT_EQ(settings_.layers, 1);
  EXPECT_EQ(settings_.reduce, "tree");
  EXPECT_FALSE(cli_.given("--layers"));
}

TEST_F(CliTest, SetsEveryKind) {
  EXPECT_EQ(parse({"--layers", "12", "--lr=2.5e-3", "--reduce", "allreduce", "--data", "a b.txt", "--untie",
                   "--seed", "-3"}),
            Cli::Next::run);
  EXPECT_EQ(settings_.layers, 12);
  EXPECT_EQ(settings_.seed, -3);
  EXPECT_EQ(settings_.lr, 2.5e-3);
  EXPECT_EQ(settings_.reduce, "allreduce");
  EXPECT_EQ(settings_.data, "a b.txt");
  EXPECT_TRUE(settings_.untie);
  EXPECT_TRUE(cli_.given("--layers"));
}

TEST_F(CliTest, UnknownFlagNamesTheNearest) {
  EXPECT_EQ(refusal({"--layer", "3"}), "unknown flag --layer; did you mean --layers?");
}
TEST_F(CliTest, UnknownFlagWithAValueNamesTheNearest) {
  EXPECT_EQ(refusal({"--layers", "3", "--reduc=tree"}), "unknown flag --reduc; did you mean --reduce?");
}
TEST_F(CliTest, UnknownFlagWithoutANearOneNamesHelp) {
  EXPECT_EQ(refusal({"--zzzzzz"}), "unknown flag --zzzzzz; `trainer --help` lists what there is");
}
TEST_F(CliTest, PositionalArgumentIsRefused) {
  EXPECT_THAT(refusal({"text.txt"}), HasSubstr("argument 'text.txt'"));
}
TEST_F(CliTest, MissingValueIsRefused) { EXPECT_THAT(refusal({"--layers"}), HasSubstr("--layers")); }
TEST_F(CliTest, FlagGivenTwiceIsRefused) {
  EXPECT_THAT(refusal({"--layers", "1", "--layers", "2"}), AllOf(HasSubstr("--layers"), HasSubstr("once")));
}

TEST_F(CliTest, BadNumbersAreRefused) {
  for (const char* bad : {"abc", "1.5", "3x", "", "99999999999999999999", "0", "1001"})
    EXPECT_THAT(refusal({"--layers", bad}), HasSubstr("give a whole number from 1 to 1000")) << bad;
  for (const char* bad : {"nan", "inf", "-0.5", "0.1.2"})
    EXPECT_THAT(refusal({"--lr", bad}), HasSubstr("give a number of at least 0")) << bad;
}

TEST_F(CliTest, BadChoiceNamesTheNearest) {
  EXPECT_EQ(refusal({"--reduce", "allreduc"}),
            "--reduce: 'allreduc' is none of tree, allreduce, gather-broadcast; did you mean allreduce?");
}

TEST_F(CliTest, HelpShowsDefaultsAndExamples) {
  testing::internal::CaptureStdout();
  EXPECT_EQ(parse({"--help"}), Cli::Next::leave);
  const std::string help = testing::internal::GetCapturedStdout();
  EXPECT_THAT(help, AllOf(HasSubstr("--layers INT"), HasSubstr("=1"), HasSubstr("=0.1"), HasSubstr("=tree"),
                          HasSubstr("Examples:\n  trainer --layers 2")));
}

TEST_F(CliTest, VersionNamesTheCommit) {
  testing::internal::CaptureStdout();
  EXPECT_EQ(parse({"--version"}), Cli::Next::leave);
  EXPECT_THAT(testing::internal::GetCapturedStdout(), AllOf(HasSubstr(version()), HasSubstr(commit())));
}

TEST_F(CliTest, SilentRanksPrintNothing) {
  const char* arguments[] = {"trainer", "--help"};
  testing::internal::CaptureStdout();
  EXPECT_EQ(cli_.parse(2, arguments, false), Cli::Next::leave);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
}

TEST_F(CliTest, ConfigSetsAndTheCommandLineWins) {
  write_config("layers = 4\nlr = 0.5\nreduce = \"allreduce\"\nuntie = true\n");
  EXPECT_EQ(parse({"--config", config_.c_str(), "--lr", "0.25"}), Cli::Next::run);
  EXPECT_EQ(settings_.layers, 4);
  EXPECT_EQ(settings_.lr, 0.25);
  EXPECT_EQ(settings_.reduce, "allreduce");
  EXPECT_TRUE(settings_.untie);
  EXPECT_TRUE(cli_.given("--layers"));
}

TEST_F(CliTest, UnknownConfigKeyNamesTheNearest) {
  write_config("layers = 4\nreduc = \"tree\"\n");
  EXPECT_EQ(refusal({"--config", config_.c_str()}), config_ + ": unknown key 'reduc'; did you mean reduce?");
}
TEST_F(CliTest, ConfigKeyInASectionIsUnknown) {
  write_config("[model]\nlayers = 4\n");
  EXPECT_THAT(refusal({"--config", config_.c_str()}), HasSubstr("unknown key 'model.layers'"));
}
TEST_F(CliTest, BadConfigValueIsRefused) {
  write_config("layers = \"many\"\n");
  EXPECT_THAT(refusal({"--config", config_.c_str()}), HasSubstr("--layers: 'many'"));
}
TEST_F(CliTest, MissingConfigIsRefused) {
  EXPECT_THAT(refusal({"--config", "/nonexistent/config.toml"}), HasSubstr("/nonexistent/config.toml"));
}

TEST_F(CliTest, ResolvedReadsBack) {
  EXPECT_EQ(parse({"--layers", "7", "--untie", "--data", "some file.txt"}), Cli::Next::run);
  write_config(cli_.resolved());
  EXPECT_THAT(cli_.resolved(),
              AllOf(HasSubstr("layers=7"), HasSubstr("lr=0.1"), HasSubstr("reduce=\"tree\"")));
  Settings again;
  Cli reader("trainer", "", {});
  reader.integer("--layers", again.layers, "");
  reader.integer("--seed", again.seed, "");
  reader.real("--lr", again.lr, "");
  reader.choice("--reduce", again.reduce, "", {"tree", "allreduce"});
  reader.text("--data", again.data, "", "FILE");
  reader.toggle("--untie", again.untie, "");
  const char* arguments[] = {"trainer", "--config", config_.c_str()};
  EXPECT_EQ(reader.parse(3, arguments), Cli::Next::run);
  EXPECT_EQ(again.layers, 7);
  EXPECT_EQ(again.data, "some file.txt");
  EXPECT_TRUE(again.untie);
  EXPECT_EQ(again.lr, 0.1);
}

}  // namespace
}  // namespace graingrad::apps
