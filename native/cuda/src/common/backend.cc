#include "secateur/backend.h"

namespace secateur {

namespace {

[[noreturn]] void refuse_repair() { throw Error(ErrorCode::kFailedPrecondition, "This backend repairs no weights; use one on the CPU."); }

}  // namespace

double Backend::measure_product_speed(Compute, CallContext&) { return 0; }

std::vector<SiteStatistics> BackendSession::collect_with_gram(const std::string&, std::uint32_t, InputSites, GramSites, std::size_t,
                                                              CallContext&) {
  refuse_repair();
}

void BackendSession::propagate_dense(const std::string&, std::uint32_t, CallContext&) { refuse_repair(); }

GramPart BackendSession::take_gram_sums(const std::string&, InputSite) { refuse_repair(); }

std::vector<float> BackendSession::reduce_gram(std::size_t, std::size_t, std::span<const std::span<const std::uint8_t>>, CallContext&) {
  refuse_repair();
}

RepairedRows BackendSession::repair_rows(const std::string&, TensorRole, RepairInput, const RepairOptions&, CallContext&) {
  refuse_repair();
}

void BackendSession::replace_weights(const std::string&, TensorRole, ElementType, std::span<const std::uint8_t>, CallContext&) {
  refuse_repair();
}

}  // namespace secateur
