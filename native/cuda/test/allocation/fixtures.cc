#include "fixtures.h"

#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace secateur::test {
namespace {

using nlohmann::json;

std::vector<char> read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot open " + path);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

class Safetensors {
 public:
  explicit Safetensors(const std::string& path) : bytes_(read_bytes(path)) {
    std::uint64_t header_bytes = 0;
    std::memcpy(&header_bytes, bytes_.data(), sizeof header_bytes);
    data_ = sizeof header_bytes + header_bytes;
    header_ = json::parse(bytes_.data() + sizeof header_bytes, bytes_.data() + data_);
  }

  template <class T>
  std::vector<T> read(const std::string& name, const std::string& element_type) const {
    const json& tensor = header_.at(name);
    if (tensor.at("dtype") != element_type) throw std::runtime_error(name + " is not " + element_type);
    const auto begin = tensor.at("data_offsets").at(0).get<std::size_t>();
    const auto end = tensor.at("data_offsets").at(1).get<std::size_t>();
    std::vector<T> values((end - begin) / sizeof(T));
    std::memcpy(values.data(), bytes_.data() + data_ + begin, end - begin);
    return values;
  }

 private:
  std::vector<char> bytes_;
  std::size_t data_ = 0;
  json header_;
};

// As the published code names them.
const std::map<std::string, LayerQuality> kLayerQualities = {{"cosim_flat", LayerQuality::kCosimFlat},
                                                             {"cosim_dim", LayerQuality::kCosimDim},
                                                             {"mse", LayerQuality::kMse},
                                                             {"mse_dim", LayerQuality::kMseDim},
                                                             {"snr", LayerQuality::kSnr},
                                                             {"psnr_flat", LayerQuality::kPsnrFlat},
                                                             {"psnr_sample", LayerQuality::kPsnrSample},
                                                             {"pass", LayerQuality::kPass}};
const std::map<std::string, RowQuality> kRowQualities = {
    {"cosim", RowQuality::kCosim}, {"mse", RowQuality::kMse}, {"psnr", RowQuality::kPsnr}};

}  // namespace

AllocationInput TrimCase::input() const {
  return {.rows = rows,
          .columns = columns,
          .samples = samples,
          .weights = weights,
          .mean_squares = mean_squares,
          .quality_inputs = quality_inputs,
          .target_sparsity = target};
}

AllocationOptions TrimCase::options() const {
  AllocationOptions options;
  options.score = magnitude ? Score::kMagnitude : Score::kWanda;
  options.layer_quality = layer_quality;
  options.row_quality = row_quality;
  options.iterations = iterations;
  if (forbid_negative_rates) options.negative_learning_rates.clear();
  return options;
}

std::vector<TrimCase> load_trim_cases(const std::string& folder) {
  const std::vector<char> text = read_bytes(folder + "/cases.json");
  const json cases = json::parse(text.begin(), text.end());
  std::vector<TrimCase> loaded;
  for (const json& entry : cases.at("cases")) {
    const json& options = entry.at("options");
    const json& expected = entry.at("expected");
    TrimCase one;
    one.file = entry.at("file").get<std::string>();
    one.rows = entry.at("rows").get<std::size_t>();
    one.columns = entry.at("columns").get<std::size_t>();
    one.samples = entry.at("samples").get<std::size_t>();
    one.magnitude = options.at("score") == "magnitude";
    one.layer_quality = kLayerQualities.at(options.at("qmetric").get<std::string>());
    one.row_quality = kRowQualities.at(options.at("qmetric_dimwise").get<std::string>());
    one.forbid_negative_rates = options.at("forbid_neg_lr").get<bool>();
    one.iterations = options.at("iterations").get<int>();
    one.target = options.at("target").get<double>();
    one.baseline_quality = expected.at("baseline_metric").get<double>();
    one.best_quality = expected.at("best_metric").get<double>();
    if (!expected.at("learning_rate").is_null()) one.learning_rate = expected.at("learning_rate").get<double>();
    one.best_step = static_cast<int>(expected.at("best_iter").get<double>());
    one.variance_before = expected.at("starting_var").get<double>();
    one.variance_after = expected.at("ending_var").get<double>();

    const Safetensors tensors(folder + "/" + one.file);
    one.weights = tensors.read<float>("W", "F32");
    one.mean_squares = tensors.read<float>("scaler", "F32");
    const std::vector<float> inputs = tensors.read<float>("X", "F32");  // [columns, samples]
    one.quality_inputs.resize(inputs.size());
    for (std::size_t column = 0; column < one.columns; ++column) {
      for (std::size_t sample = 0; sample < one.samples; ++sample) {
        one.quality_inputs[sample * one.columns + column] = inputs[column * one.samples + sample];
      }
    }
    one.row_sparsities = tensors.read<float>("expected.row_sparsities", "F32");
    one.dropped_per_row = tensors.read<std::int32_t>("expected.dropped_per_row", "I32");
    one.mask = tensors.read<std::uint8_t>("expected.mask", "U8");
    loaded.push_back(std::move(one));
  }
  return loaded;
}

}  // namespace secateur::test
