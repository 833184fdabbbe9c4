#include "addon/arguments.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <iterator>
#include <utility>

namespace secateur::addon {

namespace {

[[noreturn]] void refuse(const std::string& field, const std::string& accepted) {
  throw Error(ErrorCode::kInvalidArgument, field + " must be " + accepted + ".");
}

template <class Word, std::size_t Count>
Word to_word(const Napi::Value& value, const char* field, const std::array<std::pair<const char*, Word>, Count>& words) {
  const std::string text = to_string(value, field);
  std::string accepted;
  for (const auto& [name, word] : words) {
    if (text == name) return word;
    accepted += (accepted.empty() ? "" : " or ") + std::string(name);
  }
  refuse(field, accepted + ", not " + text);
}

std::vector<float> to_floats(std::span<const std::uint8_t> bytes, std::size_t count, const char* field) {
  if (bytes.size() != count * sizeof(float))
    refuse(field, std::to_string(count * sizeof(float)) + " bytes long, not " + std::to_string(bytes.size()));
  std::vector<float> values(count);
  if (count > 0) std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

Napi::Array to_array(const Napi::Value& value, const char* field) {
  if (!value.IsArray()) refuse(field, "an array");
  return value.As<Napi::Array>();
}

std::vector<double> to_rates(const Napi::Value& value, const char* field) {
  const Napi::Array array = to_array(value, field);
  std::vector<double> rates(array.Length());
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    rates[i] = to_number(array[i], field);
    if (!std::isfinite(rates[i])) refuse(field, "finite");
  }
  return rates;
}

TensorRole to_role(const std::string& name) {
  const auto found = std::find(std::begin(kTensorRoleNames), std::end(kTensorRoleNames), name);
  if (found == std::end(kTensorRoleNames)) refuse("role", "the role of a tensor, not " + name);
  return static_cast<TensorRole>(std::distance(std::begin(kTensorRoleNames), found));
}

bool to_flag(const Napi::Value& value, const char* field) {
  if (!value.IsBoolean()) refuse(field, "true or false");
  return value.As<Napi::Boolean>().Value();
}

void read_rotary_scaling(const Napi::Value& value, Architecture& architecture) {
  if (value.IsNull()) return;
  const Napi::Object object = to_object(value, "rotaryScaling");
  architecture.rotary_scaling = to_word(
      object["kind"], "rotaryScaling.kind",
      std::array<std::pair<const char*, RotaryScaling>, 2>{{{"linear", RotaryScaling::kLinear}, {"llama3", RotaryScaling::kLlama3}}});
  architecture.rotary_factor = to_number(object["factor"], "rotaryScaling.factor");
  architecture.low_frequency_factor = to_number(object["lowFrequencyFactor"], "rotaryScaling.lowFrequencyFactor");
  architecture.high_frequency_factor = to_number(object["highFrequencyFactor"], "rotaryScaling.highFrequencyFactor");
  architecture.original_positions = to_number(object["originalPositions"], "rotaryScaling.originalPositions");
}

Allocation to_allocation(const Napi::Value& value) {
  return to_word(value, "allocation",
                 std::array<std::pair<const char*, Allocation>, 6>{{{"trim", Allocation::kTrim},
                                                                    {"uniform", Allocation::kUniform},
                                                                    {"optimal", Allocation::kOptimal},
                                                                    {"given", Allocation::kGiven},
                                                                    {"matrix", Allocation::kMatrix},
                                                                    {"score-share", Allocation::kScoreShare}}});
}

Repair to_repair(const Napi::Value& value) {
  return to_word(value, "repair",
                 std::array<std::pair<const char*, Repair>, 4>{
                     {{"none", Repair::kNone}, {"fit", Repair::kFit}, {"admm", Repair::kAdmm}, {"sparsegpt", Repair::kSparseGpt}}});
}

LayerQuality to_layer_quality(const Napi::Value& value) {
  return to_word(value, "layerQuality",
                 std::array<std::pair<const char*, LayerQuality>, 11>{{{"cosim-flat", LayerQuality::kCosimFlat},
                                                                       {"cosim-dim", LayerQuality::kCosimDim},
                                                                       {"cosim-sample", LayerQuality::kCosimSample},
                                                                       {"mse", LayerQuality::kMse},
                                                                       {"mse-dim", LayerQuality::kMseDim},
                                                                       {"mae", LayerQuality::kMae},
                                                                       {"snr", LayerQuality::kSnr},
                                                                       {"psnr-flat", LayerQuality::kPsnrFlat},
                                                                       {"psnr-dim", LayerQuality::kPsnrDim},
                                                                       {"psnr-sample", LayerQuality::kPsnrSample},
                                                                       {"pass", LayerQuality::kPass}}});
}

RowQuality to_row_quality(const Napi::Value& value) {
  return to_word(value, "rowQuality",
                 std::array<std::pair<const char*, RowQuality>, 3>{
                     {{"cosim", RowQuality::kCosim}, {"mse", RowQuality::kMse}, {"psnr", RowQuality::kPsnr}}});
}

TensorLayout to_layout(const Napi::Object& object) {
  TensorLayout tensor;
  tensor.role = to_role(to_string(object["role"], "role"));
  tensor.element_type = to_element_type(object["elementType"]);
  const Napi::Array sizes = to_array(object["shape"], "shape");
  for (std::uint32_t axis = 0; axis < sizes.Length(); ++axis) tensor.shape.push_back(to_size(sizes[axis], "shape"));
  return tensor;
}

std::vector<TensorLayout> to_layouts(const Napi::Value& value, const char* field) {
  const Napi::Array array = to_array(value, field);
  std::vector<TensorLayout> layouts(array.Length());
  for (std::uint32_t i = 0; i < array.Length(); ++i) layouts[i] = to_layout(to_object(array[i], "tensor"));
  return layouts;
}

}  // namespace

Napi::Object to_object(const Napi::Value& value, const char* field) {
  if (!value.IsObject()) refuse(field, "an object");
  return value.As<Napi::Object>();
}

std::string to_string(const Napi::Value& value, const char* field) {
  if (!value.IsString()) refuse(field, "a string");
  return value.As<Napi::String>().Utf8Value();
}

double to_number(const Napi::Value& value, const char* field) {
  if (!value.IsNumber()) refuse(field, "a number");
  return value.As<Napi::Number>().DoubleValue();
}

std::size_t to_size(const Napi::Value& value, const char* field) {
  constexpr double kMaximum = 9007199254740991.0;
  const double number = to_number(value, field);
  if (!(number >= 0 && number <= kMaximum) || number != std::floor(number)) refuse(field, "a whole number from 0");
  return static_cast<std::size_t>(number);
}

std::span<const std::uint8_t> to_bytes(const Napi::Value& value, const char* field) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) refuse(field, "a Uint8Array");
  const Napi::Uint8Array array = value.As<Napi::Uint8Array>();
  return {array.Data(), array.ByteLength()};
}

Architecture to_architecture(const Napi::Value& value) {
  const Napi::Object object = to_object(value, "architecture");
  Architecture a;
  a.hidden_size = to_size(object["hiddenSize"], "hiddenSize");
  a.intermediate_size = to_size(object["intermediateSize"], "intermediateSize");
  a.attention_heads = to_size(object["attentionHeads"], "attentionHeads");
  a.key_value_heads = to_size(object["keyValueHeads"], "keyValueHeads");
  a.head_dimension = to_size(object["headDimension"], "headDimension");
  a.vocabulary_size = to_size(object["vocabularySize"], "vocabularySize");
  a.maximum_positions = to_size(object["maximumPositions"], "maximumPositions");
  a.normalization =
      to_word(object["normalization"], "normalization",
              std::array<std::pair<const char*, Normalization>, 2>{{{"rms", Normalization::kRms}, {"layer", Normalization::kLayer}}});
  a.normalization_epsilon = to_number(object["normalizationEpsilon"], "normalizationEpsilon");
  a.position_encoding = to_word(object["positionEncoding"], "positionEncoding",
                                std::array<std::pair<const char*, PositionEncoding>, 2>{
                                    {{"rotary", PositionEncoding::kRotary}, {"learned", PositionEncoding::kLearned}}});
  a.rotary_base = to_number(object["rotaryBase"], "rotaryBase");
  a.learned_position_offset = to_size(object["learnedPositionOffset"], "learnedPositionOffset");
  a.feed_forward =
      to_word(object["feedForward"], "feedForward",
              std::array<std::pair<const char*, FeedForward>, 2>{{{"gated-silu", FeedForward::kGatedSilu}, {"relu", FeedForward::kRelu}}});
  a.post_normalization = to_flag(object["postNormalization"], "postNormalization");
  a.final_normalization = to_flag(object["finalNormalization"], "finalNormalization");
  a.embedding_size = to_size(object["embeddingSize"], "embeddingSize");
  read_rotary_scaling(object["rotaryScaling"], a);
  return a;
}

Precision to_precision(const Napi::Value& value) {
  const Napi::Object object = to_object(value, "precision");
  const Compute compute =
      to_word(object["compute"], "compute",
              std::array<std::pair<const char*, Compute>, 3>{{{"f32", Compute::kF32}, {"bf16", Compute::kBF16}, {"f16", Compute::kF16}}});
  const HiddenStates hidden_states =
      to_word(object["hiddenStates"], "hiddenStates",
              std::array<std::pair<const char*, HiddenStates>, 2>{{{"f32", HiddenStates::kF32}, {"bf16", HiddenStates::kBF16}}});
  return {compute, hidden_states};
}

Placement to_placement(const Napi::Value& value) {
  Placement placement;
  if (value.IsUndefined()) return placement;
  const Napi::Object object = to_object(value, "placement");
  const Napi::Array processors = to_array(object["cpus"], "cpus");
  for (std::uint32_t i = 0; i < processors.Length(); ++i) placement.processors.push_back(to_size(processors[i], "cpus"));
  const Napi::Value node = object["numaNode"];
  if (!node.IsUndefined()) placement.memory_node = to_size(node, "numaNode");
  return placement;
}

std::vector<TensorView> to_tensors(const Napi::Value& value, std::vector<Napi::Value>& kept) {
  const Napi::Array array = to_array(value, "tensors");
  std::vector<TensorView> tensors(array.Length());
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Object object = to_object(array[i], "tensor");
    const Napi::Value bytes = object["bytes"];
    tensors[i] = {to_layout(object), to_bytes(bytes, "bytes")};
    kept.push_back(bytes);
  }
  return tensors;
}

Workload to_workload(const Napi::Value& value) {
  Workload workload;
  if (value.IsUndefined()) return workload;
  const Napi::Object object = to_object(value, "workload");
  workload.embedding = to_layouts(object["embedding"], "embedding");
  workload.block = to_layouts(object["block"], "block");
  workload.head = to_layouts(object["head"], "head");
  workload.groups = to_size(object["groups"], "groups");
  workload.samples_per_group = to_size(object["samplesPerGroup"], "samplesPerGroup");
  workload.sequence_length = to_size(object["sequenceLength"], "sequenceLength");
  workload.tokens = to_size(object["tokens"], "tokens");
  workload.allocation_samples = to_size(object["allocationSamples"], "allocationSamples");
  workload.sketches = to_size(object["sketches"], "sketches");
  workload.allocation = to_allocation(object["allocation"]);
  workload.layer_quality = to_layer_quality(object["layerQuality"]);
  workload.row_quality = to_row_quality(object["rowQuality"]);
  workload.sparsity = to_number(object["sparsity"], "sparsity");
  workload.metric = to_word(object["metric"], "metric",
                            std::array<std::pair<const char*, BlockMetric>, 4>{{{"none", BlockMetric::kNone},
                                                                                {"outliers", BlockMetric::kOutliers},
                                                                                {"spectrum", BlockMetric::kSpectrum},
                                                                                {"sensitivity", BlockMetric::kSensitivity}}});
  workload.repair = to_repair(object["repair"]);
  workload.swaps = to_flag(object["swaps"], "swaps");
  workload.masked_in_stages = to_flag(object["maskedInStages"], "maskedInStages");
  workload.dense_targets = to_flag(object["denseTargets"], "denseTargets");
  if (workload.empty()) refuse("block", "the tensors of a block");
  return workload;
}

std::vector<TokenRange> to_token_ranges(const Napi::Value& value) {
  std::vector<TokenRange> ranges;
  if (value.IsUndefined()) return ranges;
  const Napi::Array array = to_array(value, "ranges");
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Object range = to_object(array[i], "ranges");
    ranges.push_back({to_size(range["first"], "first"), to_size(range["end"], "end")});
  }
  return ranges;
}

std::uint32_t to_group_index(const Napi::Value& value) {
  const std::size_t index = to_size(value, "groupIndex");
  if (index > UINT32_MAX) throw Error(ErrorCode::kInvalidArgument, "groupIndex must be below 2^32.");
  return static_cast<std::uint32_t>(index);
}

std::vector<std::uint32_t> to_group_indices(const Napi::Value& value) {
  const Napi::Array array = to_array(value, "groupIndices");
  std::vector<std::uint32_t> indices;
  for (std::uint32_t i = 0; i < array.Length(); ++i) indices.push_back(to_group_index(array[i]));
  return indices;
}

InputSites to_input_sites(const Napi::Value& value) {
  const Napi::Array array = to_array(value, "sites");
  InputSites sites = {};
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    sites.add(to_input_site(array[i]));
  }
  return sites;
}

GramSites to_gram_sites(const Napi::Value& value) {
  const Napi::Object object = to_object(value, "grams");
  return {to_input_sites(object["sites"]), to_flag(object["holdOut"], "holdOut")};
}

GroupTokens to_group_tokens(const Napi::Value& value) {
  const Napi::Object object = to_object(value, "group");
  GroupTokens group;
  const std::size_t index = to_size(object["index"], "index");
  if (index > UINT32_MAX) refuse("index", "below 2^32");
  group.index = static_cast<std::uint32_t>(index);
  group.samples = to_size(object["samples"], "samples");
  group.sequence_length = to_size(object["sequenceLength"], "sequenceLength");
  const Napi::Value ids = object["tokenIds"];
  if (!ids.IsTypedArray() || ids.As<Napi::TypedArray>().TypedArrayType() != napi_int32_array) refuse("tokenIds", "an Int32Array");
  const Napi::Int32Array array = ids.As<Napi::Int32Array>();
  group.ids.assign(array.Data(), array.Data() + array.ElementLength());
  return group;
}

TensorRole to_projection(const Napi::Value& value) { return to_role(to_string(value, "projection") + "-weight"); }

InputSite to_input_site(const Napi::Value& value) {
  const std::string name = to_string(value, "site");
  const auto found = std::ranges::find(kInputSiteNames, name);
  if (found == std::end(kInputSiteNames)) refuse("site", "the name of an input site, not " + name);
  return static_cast<InputSite>(found - std::begin(kInputSiteNames));
}

ElementType to_element_type(const Napi::Value& value) {
  return to_word(value, "elementType",
                 std::array<std::pair<const char*, ElementType>, 3>{
                     {{"F32", ElementType::kF32}, {"F16", ElementType::kF16}, {"BF16", ElementType::kBF16}}});
}

std::vector<std::span<const std::uint8_t>> to_byte_arrays(const Napi::Value& value, const char* field, std::vector<Napi::Value>& kept) {
  const Napi::Array array = to_array(value, field);
  std::vector<std::span<const std::uint8_t>> spans(array.Length());
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Value bytes = array[i];
    spans[i] = to_bytes(bytes, field);
    kept.push_back(bytes);
  }
  return spans;
}

namespace {

// The bytes themselves, whose address must suit.
std::span<const float> view_floats(const Napi::Value& value, const char* field) {
  const std::span<const std::uint8_t> bytes = to_bytes(value, field);
  if (bytes.size() % sizeof(float) != 0 || reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(float) != 0) {
    refuse(field, "float32 values at an address that is a multiple of 4");
  }
  return {reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float)};
}

}  // namespace

RepairInput to_repair_input(const Napi::Value& value, std::vector<Napi::Value>& kept) {
  const Napi::Object object = to_object(value, "input");
  const Napi::Value gram = object["gram"];
  const Napi::Value held_out = object["heldOutGram"];
  const Napi::Value mask = object["mask"];
  RepairInput input;
  input.samples = to_size(object["samples"], "samples");
  input.gram = view_floats(gram, "gram");
  if (!held_out.IsNull()) {
    input.held_out_gram = view_floats(held_out, "heldOutGram");
    kept.push_back(held_out);
  }
  const Napi::Value drift = object["drift"];
  if (!drift.IsNull()) {
    input.drift = view_floats(drift, "drift");
    kept.push_back(drift);
  }
  input.mask = to_bytes(mask, "mask");
  input.stored = to_element_type(object["elementType"]);
  kept.push_back(gram);
  kept.push_back(mask);
  return input;
}

RepairOptions to_repair_options(const Napi::Value& value) {
  const Napi::Object object = to_object(value, "repair");
  RepairOptions options;
  options.method = to_repair(object["method"]);
  options.damping = to_number(object["damping"], "damping");
  const std::size_t iterations = to_size(object["iterations"], "iterations");
  if (iterations > 10'000) refuse("iterations", "at most 10000");
  options.iterations = static_cast<int>(iterations);
  options.across_rows = to_flag(object["acrossRows"], "acrossRows");
  options.swaps = to_size(object["swaps"], "swaps");
  return options;
}

AllocationOptions to_allocation_options(const Napi::Value& value) {
  const Napi::Object object = to_object(value, "allocation");
  AllocationOptions options;
  options.score = to_word(object["score"], "score",
                          std::array<std::pair<const char*, Score>, 2>{{{"wanda", Score::kWanda}, {"magnitude", Score::kMagnitude}}});
  options.allocation = to_allocation(object["allocation"]);
  options.layer_quality = to_layer_quality(object["layerQuality"]);
  options.row_quality = to_row_quality(object["rowQuality"]);
  const std::size_t iterations = to_size(object["iterations"], "iterations");
  if (iterations == 0 || iterations > 1'000'000) refuse("iterations", "from 1 to 1000000");
  options.iterations = static_cast<int>(iterations);
  options.learning_rates = to_rates(object["learningRates"], "learningRates");
  options.negative_learning_rates = to_rates(object["negativeLearningRates"], "negativeLearningRates");
  const Napi::Value pattern = object["pattern"];
  if (!pattern.IsNull()) {
    const Napi::Object fields = to_object(pattern, "pattern");
    options.pattern = {.dropped = to_size(fields["dropped"], "dropped"), .group = to_size(fields["group"], "group")};
    if (!options.pattern.is_structured()) refuse("group", "above 0");
  }
  return options;
}

std::vector<float> to_row_sparsities(const Napi::Value& value) {
  const Napi::Value bytes = to_object(value, "allocation")["rowSparsities"];
  if (bytes.IsNull()) return {};
  const std::span<const std::uint8_t> given = to_bytes(bytes, "rowSparsities");
  return to_floats(given, given.size() / sizeof(float), "rowSparsities");
}

std::vector<ProjectionInputSquares> OwnedInputSquares::views() const {
  std::vector<ProjectionInputSquares> inputs;
  for (std::size_t i = 0; i < projections.size(); ++i) inputs.push_back({projections[i], mean_squares[i]});
  return inputs;
}

OwnedInputSquares to_input_squares(const Napi::Value& value) {
  OwnedInputSquares inputs;
  const Napi::Array array = to_array(value, "projections");
  for (std::uint32_t i = 0; i < array.Length(); ++i) {
    const Napi::Object input = to_object(array[i], "projections");
    inputs.projections.push_back(to_projection(input["projection"]));
    const std::span<const std::uint8_t> bytes = to_bytes(input["meanSquares"], "meanSquares");
    inputs.mean_squares.push_back(to_floats(bytes, bytes.size() / sizeof(float), "meanSquares"));
  }
  return inputs;
}

OwnedStatistics to_statistics(const Napi::Value& value) {
  constexpr std::size_t kMaximum = std::size_t{1} << 32;
  const Napi::Object object = to_object(value, "statistics");
  OwnedStatistics statistics;
  statistics.samples = to_size(object["samples"], "samples");
  const std::size_t columns = to_size(object["columns"], "columns");
  if (statistics.samples == 0 || columns == 0 || statistics.samples > kMaximum / columns)
    refuse("samples and columns", "above 0 and of a sane size");
  statistics.mean_squares = to_floats(to_bytes(object["meanSquares"], "meanSquares"), columns, "meanSquares");
  statistics.quality_inputs = to_floats(to_bytes(object["qualityInputs"], "qualityInputs"), statistics.samples * columns, "qualityInputs");
  return statistics;
}

}  // namespace secateur::addon
