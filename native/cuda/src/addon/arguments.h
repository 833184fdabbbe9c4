// JavaScript values → plain structures, checked. Everything here throws secateur::Error(kInvalidArgument) naming the field.
#pragma once

#include <napi.h>

#include <span>
#include <string>
#include <vector>

#include "secateur/backend.h"

namespace secateur::addon {

Napi::Object to_object(const Napi::Value& value, const char* field);
std::string to_string(const Napi::Value& value, const char* field);
double to_number(const Napi::Value& value, const char* field);
// A whole number from 0 to 2^53 - 1.
std::size_t to_size(const Napi::Value& value, const char* field);
std::span<const std::uint8_t> to_bytes(const Napi::Value& value, const char* field);

Architecture to_architecture(const Napi::Value& value);
// `f32` or `bf16`.
Precision to_precision(const Napi::Value& value);
// Nothing of it is set when the value is undefined.
Placement to_placement(const Napi::Value& value);
// `kept` receives the arrays whose bytes the views point to.
std::vector<TensorView> to_tensors(const Napi::Value& value, std::vector<Napi::Value>& kept);
// Empty when undefined.
Workload to_workload(const Napi::Value& value);
// Mean squares of what projections take in, copied out of bytes of any alignment.
struct OwnedInputSquares {
  std::vector<TensorRole> projections;
  std::vector<std::vector<float>> mean_squares;

  std::vector<ProjectionInputSquares> views() const;
};
OwnedInputSquares to_input_squares(const Napi::Value& value);
// None when undefined.
std::vector<TokenRange> to_token_ranges(const Napi::Value& value);
// Below 2^32.
std::uint32_t to_group_index(const Napi::Value& value);
std::vector<std::uint32_t> to_group_indices(const Napi::Value& value);
InputSites to_input_sites(const Napi::Value& value);
// { sites, holdOut }
GramSites to_gram_sites(const Napi::Value& value);
GroupTokens to_group_tokens(const Napi::Value& value);
// The role of the weight of a projection named as in TypeScript.
TensorRole to_projection(const Napi::Value& value);
InputSite to_input_site(const Napi::Value& value);
ElementType to_element_type(const Napi::Value& value);
// `kept` receives the arrays.
std::vector<std::span<const std::uint8_t>> to_byte_arrays(const Napi::Value& value, const char* field, std::vector<Napi::Value>& kept);
// `kept` receives the arrays whose values it points to.
RepairInput to_repair_input(const Napi::Value& value, std::vector<Napi::Value>& kept);
RepairOptions to_repair_options(const Napi::Value& value);
AllocationOptions to_allocation_options(const Napi::Value& value);
// Those of the same object; empty when it has none.
std::vector<float> to_row_sparsities(const Napi::Value& value);

// Statistics copied out of bytes of any alignment.
struct OwnedStatistics {
  std::size_t samples = 0;
  std::vector<float> mean_squares;
  std::vector<float> quality_inputs;
};
OwnedStatistics to_statistics(const Napi::Value& value);

}  // namespace secateur::addon
