// What kernel-budgets.json says of dynamic shared memory, against what launches ask for: how many blocks are resident follows from it.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace secateur::test {

// A line for each kernel whose budget is not the most that a launch of it asked for; kernels are `file/kernel`, as in the budgets.
// Throws std::runtime_error naming the file when it cannot be read.
std::vector<std::string> unlike_budgets(const std::string& budgets_path, const std::map<std::string, std::size_t>& launched_bytes);

}  // namespace secateur::test
