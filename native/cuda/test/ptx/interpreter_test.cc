// What the interpreter does not know, and what kernels must not do, is named with its line.
#include "ptx/interpreter.h"

#include <doctest/doctest.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace secateur::test {
namespace {

// A kernel of one parameter, the address of an array, in %rd1; %r1 is the thread's index.
std::string module_of(const std::string& code) {
  return R"(.version 9.0
.target sm_80
.address_size 64
.entry kernel(
	.param .u64 kernel_param_0
)
.maxntid 64, 1, 1
{
	.reg .b32 	%r<8>;
	.reg .b64 	%rd<8>;
	.shared .align 4 .b8 values[16];
	ld.param.u64 	%rd1, [kernel_param_0];
	mov.u32 	%r1, %tid.x;
	mov.u32 	%r2, 0;
	setp.lt.u32 	%p1, %r1, 33;
)" + code +
         "\n\tret;\n}\n";
}

// Of 64 threads on an array of 64 32-bit values; the error, or nothing.
std::string run(const std::string& code, std::vector<std::uint32_t>& values) {
  try {
    const std::vector<ptx::Kernel> kernels = ptx::parse_module(module_of(code));
    const auto address = reinterpret_cast<std::uintptr_t>(values.data());
    std::vector<std::byte> parameter(sizeof address);
    std::memcpy(parameter.data(), &address, sizeof address);
    ptx::execute(kernels.at(0), {.grid = {},
                                 .block = {64, 1, 1},
                                 .dynamic_shared_bytes = 0,
                                 .parameters = {parameter},
                                 .memory = {std::as_writable_bytes(std::span(values))}});
    return "";
  } catch (const std::runtime_error& error) {
    return error.what();
  }
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("the interpreter runs what it knows") {
  std::vector<std::uint32_t> values(64);
  const std::string code = R"(
	mul.wide.u32 	%rd2, %r1, 4;
	add.s64 	%rd3, %rd1, %rd2;
	shfl.sync.bfly.b32 	%r3|%p2, %r1, 1, 31, -1;
	mad.lo.s32 	%r4, %r3, 10, %r1;
	st.global.u32 	[%rd3], %r4;)";
  CHECK(run(code, values) == "");
  CHECK(values[4] == 54);
  CHECK(values[63] == 683);
}

TEST_CASE("the interpreter rounds float32 values to whole numbers") {
  std::vector<std::uint32_t> values(64);
  const auto converted = [&](const std::string& value) {
    const std::string code = "\tmov.f32 %f1, " + value + ";\n\tcvt.rmi.f32.f32 %f2, %f1;\n\tcvt.rzi.s64.f32 %rd2, %f2;\n";
    CHECK(contains(run(code, values), "a conversion to signed integers"));
    CHECK(run("\tmov.f32 %f1, " + value + ";\n\tcvt.rzi.u32.f32 %r3, %f1;\n\tst.global.u32 [%rd1], %r3;\n", values) == "");
    return values[0];
  };
  CHECK(converted("0f40700000") == 3);           // 3.75
  CHECK(converted("0fC0700000") == 0);           // -3.75
  CHECK(converted("0f7FC00000") == 0);           // NaN
  CHECK(converted("0f501502F9") == 0xffffffff);  // 1e10
  CHECK(run("\tmov.f32 %f1, 0fC0700000;\n\tcvt.rmi.f32.f32 %f2, %f1;\n\tst.global.f32 [%rd1], %f2;\n", values) == "");
  CHECK(values[0] == 0xc0800000);  // -4
}

TEST_CASE("the interpreter names what it does not know") {
  std::vector<std::uint32_t> values(64);
  CHECK(contains(run("\tfrobnicate.u32 %r3, %r1;", values), "PTX line 16: unknown instruction frobnicate.u32"));
  CHECK(contains(run("\tadd.wrap.u32 %r3, %r1, 1;", values), "PTX line 16: unknown modifier .wrap of add.wrap.u32"));
  CHECK(contains(run("\tbra $L__nowhere;", values), "PTX line 16: unknown label $L__nowhere"));
  CHECK(contains(run("\tld.shared.u32 %r3, [nothing];", values), "PTX line 16: unknown variable nothing"));
  CHECK(contains(run("\t.local .align 4 .b8 stack[16];", values), "PTX line 16: not supported: .local"));
}

TEST_CASE("the interpreter names accesses that are wrong") {
  std::vector<std::uint32_t> values(64);
  const std::string own = "\tmul.wide.u32 %rd2, %r1, 4;\n\tadd.s64 %rd3, %rd1, %rd2;\n";
  CHECK(run(own + "\tld.global.u32 %r3, [%rd3];", values) == "");
  CHECK(contains(run(own + "\tld.global.u32 %r3, [%rd3+4];", values), "PTX line 18: access outside of global memory"));
  CHECK(contains(run(own + "\tst.global.u32 [%rd3+-4], %r3;", values), "PTX line 18: access outside of global memory"));
  CHECK(contains(run(own + "\tld.global.u32 %r3, [%rd3+2];", values), "PTX line 18: misaligned access to global memory"));
  CHECK(run("\tst.shared.u32 [values+12], %r1;", values) == "");
  CHECK(contains(run("\tst.shared.u32 [values+16], %r1;", values), "PTX line 16: access outside of shared memory"));
  CHECK(contains(run("\tdiv.u32 %r3, %r1, %r2;", values), "PTX line 16: division by zero"));
  CHECK(contains(run("\tatom.global.add.f32 %r3, [%rd1], %r1;", values), "no fixed order"));
}

TEST_CASE("the interpreter names threads that cannot meet") {
  std::vector<std::uint32_t> values(64);
  CHECK(run("\tbar.sync 0;", values) == "");
  CHECK(contains(run("\t@%p1 bar.sync 0;", values), "divergent barrier"));
  CHECK(contains(run("\t@%p1 bra $L1;\n\tbar.sync 0;\n\tret;\n$L1:\n\tbar.sync 0;", values), "divergent barrier"));
  CHECK(contains(run("\t@%p1 vote.sync.ballot.b32 %r3, %p1, -1;", values), "waits for lane 1, which has ended"));
  CHECK(contains(run("\tvote.sync.ballot.b32 %r3, %p1, 1;", values), "a lane is not in its own mask"));
  CHECK(contains(run("\t@%p1 bra $L1;\n\tbar.warp.sync -1;\n\tret;\n$L1:\n\tshfl.sync.idx.b32 %r3, %r1, 0, 31, -1;", values), "for ever"));
}

TEST_CASE("traffic is counted by sector and bank") {
  std::vector<std::uint32_t> values(256);
  const auto count = [&](const std::string& code) {
    const std::vector<ptx::Kernel> kernels = ptx::parse_module(module_of(code));
    const auto address = reinterpret_cast<std::uintptr_t>(values.data()) / 32 * 32 + 32;
    std::vector<std::byte> parameter(sizeof address);
    std::memcpy(parameter.data(), &address, sizeof address);
    ptx::Traffic traffic;
    ptx::execute(kernels.at(0),
                 {.grid = {},
                  .block = {32, 1, 1},
                  .dynamic_shared_bytes = 4096,
                  .parameters = {parameter},
                  .memory = {std::as_writable_bytes(std::span(values))}},
                 &traffic);
    return traffic;
  };
  const std::string own = "\tmul.wide.u32 %rd2, %r1, 4;\n\tadd.s64 %rd3, %rd1, %rd2;\n";
  ptx::Traffic traffic = count(own + "\tld.global.u32 %r3, [%rd3];");
  CHECK(traffic.global().read_bytes == 128);
  CHECK(traffic.global().read_sectors == 4);
  traffic = count(own + "\tst.global.u32 [%rd3+4], %r1;");
  CHECK(traffic.global().written_bytes == 128);
  CHECK(traffic.global().written_sectors == 5);
  CHECK(traffic.bank_conflicts() == 0);
  const auto conflicts = [&](unsigned words) {
    return count("\tmul.lo.s32 %r3, %r1, " + std::to_string(4 * words) + ";\n\tst.shared.u32 [%r3+16], %r1;").bank_conflicts();
  };
  CHECK(conflicts(0) == 0);
  CHECK(conflicts(1) == 0);
  CHECK(conflicts(2) == 1);
  CHECK(conflicts(16) == 15);
  CHECK(conflicts(32) == 31);
  // Lanes go round a loop as often as their index says, and store together after it; and they store each in its own round.
  const std::string loop = "\tmov.u32 %r3, 0;\n$again:\n\tadd.s32 %r3, %r3, 1;\n\tsetp.lt.u32 %p1, %r3, %r1;\n\t@%p1 bra $again;\n";
  CHECK(count(own + loop + "\tst.global.u32 [%rd3], %r1;").global().written_sectors == 4);
  const std::string own_round =
      "\tmov.u32 %r3, 0;\n$again:\n\tsetp.ne.u32 %p1, %r3, %r1;\n\t@%p1 bra $other;\n"
      "\tst.global.u32 [%rd3], %r1;\n$other:\n\tadd.s32 %r3, %r3, 1;\n\tsetp.lt.u32 %p1, %r3, 32;\n"
      "\t@%p1 bra $again;\n";
  CHECK(count(own + own_round).global().written_sectors == 32);
  // Four words a lane: eight lanes at a time.
  CHECK(count("\tmul.lo.s32 %r3, %r1, 16;\n\tld.shared.v4.u32 {%r4, %r5, %r6, %r7}, [%r3+16];").bank_conflicts() == 0);
}

}  // namespace secateur::test
