#include "shared_memory_budgets.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace secateur::test {

std::vector<std::string> unlike_budgets(const std::string& budgets_path, const std::map<std::string, std::size_t>& launched_bytes) {
  std::ifstream file(budgets_path);
  const nlohmann::json budgets = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!budgets.contains("kernels")) throw std::runtime_error(budgets_path + " has no budgets of kernels.");
  const nlohmann::json& kernels = budgets["kernels"];
  std::vector<std::string> lines;
  for (const auto& [name, launched] : launched_bytes) {
    const auto budget = kernels.find(name);
    if (budget == kernels.end()) {
      lines.push_back(name + " has no budget.");
      continue;
    }
    const std::size_t budgeted = budget->value("dynamicSharedBytes", std::size_t{0});
    if (budgeted == launched) continue;
    lines.push_back(name + " is launched with " + std::to_string(launched) + " bytes of dynamic shared memory; its budget says " +
                    std::to_string(budgeted) + ".");
  }
  return lines;
}

}  // namespace secateur::test
