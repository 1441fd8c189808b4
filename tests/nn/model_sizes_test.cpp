// Counts of parameters and work of models with published sizes, from the model's own descriptions.
#include <gtest/gtest.h>

#include "nn/gpt.h"

namespace graingrad::nn {
namespace {

std::int64_t parameters_of(const Gpt& model) {
  std::int64_t count = 0;
  for (const ParameterDescription& p : model.parameters()) count += p.spec().shape.size();
  return count;
}

GptConfig config_of(std::int64_t layers, std::int64_t heads, std::int64_t width) {
  return {.layers = layers,
          .heads = heads,
          .width = width,
          .sequence = 1024,
          .vocab = 50257,
          .tied = true,
          .kind = Layers::gpt};
}

TEST(ModelSizes, OfGpt2) {
  EXPECT_EQ(parameters_of(Gpt(config_of(12, 12, 768))), 124'439'808);
  EXPECT_EQ(parameters_of(Gpt(config_of(24, 16, 1024))), 354'823'168);
  EXPECT_EQ(parameters_of(Gpt(config_of(36, 20, 1280))), 774'030'080);
  EXPECT_EQ(parameters_of(Gpt(config_of(48, 25, 1600))), 1'557'611'200);
}

// The seven models of a published memory table (tensor parallelism of an image GPT: vocab 512, 32 x 32
// pixels). It prints them with seven digits.
TEST(ModelSizes, OfImageGpts) {
  struct Row {
    std::int64_t layers, heads, width;
    double printed;
  };
  for (const Row& row : std::initializer_list<Row>{{12, 8, 256, 1.000166e7},
                                                   {24, 8, 256, 1.947878e7},
                                                   {32, 8, 256, 2.579686e7},
                                                   {32, 8, 512, 1.019254e8},
                                                   {48, 8, 512, 1.523635e8},
                                                   {64, 8, 512, 2.028017e8},
                                                   {64, 32, 1024, 8.082565e8}}) {
    GptConfig config = config_of(row.layers, row.heads, row.width);
    config.vocab = 512;
    config.sequence = 1023;
    config.tied = false;
    const std::int64_t c = row.width, count = parameters_of(Gpt(config));
    EXPECT_EQ(count, 512 * c + 1023 * c + 2 * c + 512 * c + row.layers * (12 * c * c + 13 * c));
    EXPECT_NEAR(static_cast<double>(count), row.printed, row.printed * 5e-7);
  }
}

TEST(ModelSizes, CountTheirWork) {
  // 6 for each weight of a product, and 6 * sequence * width a layer.
  const double products = 12.0 * (12 * 768 * 768) + 50257.0 * 768, attention = 6.0 * 12 * 1024 * 768;
  GptConfig config = config_of(12, 12, 768);
  EXPECT_EQ(Gpt(config).flops_per_token(), 6 * products + attention);
  config.tied = false;
  EXPECT_EQ(Gpt(config).flops_per_token(), 6 * products + attention) << "the lookup is no product";
}

}  // namespace
}  // namespace graingrad::nn
