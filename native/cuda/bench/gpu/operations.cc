#include "operations.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <stdexcept>
#include <utility>

#include "cuda/kernels/attention.h"
#include "cuda/kernels/attention_narrow.h"
#include "cuda/kernels/column_sums.h"
#include "cuda/kernels/cross_entropy.h"
#include "cuda/kernels/elementwise.h"
#include "cuda/kernels/embedding.h"
#include "cuda/kernels/mask.h"
#include "cuda/kernels/normalization.h"
#include "cuda/kernels/product_sums.h"
#include "cuda/kernels/quality_curves.h"
#include "cuda/kernels/rotary.h"
#include "cuda/kernels/row_order.h"
#include "cuda/kernels/search_step.h"

namespace secateur::bench {
namespace {

constexpr double kF32 = sizeof(float);
constexpr double kF64 = sizeof(double);
constexpr double kBF16 = 2;

void require(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

// Device memory, or a null pointer where there is no device.
template <class Value>
class Array {
 public:
  Array(bool on_device, std::size_t size) {
    if (on_device) require(cudaMalloc(reinterpret_cast<void**>(&data_), std::max<std::size_t>(size, 1) * sizeof(Value)));
    size_ = size;
  }
  ~Array() { static_cast<void>(cudaFree(data_)); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  Value* data() { return data_; }
  // Values made by `value(index)`.
  template <class Make>
  void fill(const Make& value) {
    if (data_ == nullptr) return;
    std::vector<Value> values(size_);
    for (std::size_t i = 0; i < size_; ++i) values[i] = value(i);
    require(cudaMemcpy(data_, values.data(), size_ * sizeof(Value), cudaMemcpyHostToDevice));
  }

 private:
  Value* data_ = nullptr;
  std::size_t size_ = 0;
};

// Between -1 and 1, in no order.
float scattered(std::size_t i) { return static_cast<float>((i * 2654435761U >> 8) % 65536) / 32768.0F - 1.0F; }

gpu::bfloat16 narrow_scattered(std::size_t i) { return {static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(scattered(i)) >> 16U)}; }

double as_double(std::size_t value) { return static_cast<double>(value); }

}  // namespace

const char* name_of(Arithmetic arithmetic) {
  switch (arithmetic) {
    case Arithmetic::kF32:
      return "f32";
    case Arithmetic::kF64:
      return "f64";
    case Arithmetic::kBF16:
      return "bf16";
  }
  return "";
}

struct Operations::Memory {
  Memory(const BlockShape& shape, bool on_device)
      : states(on_device, shape.tokens * shape.hidden),
        other_states(on_device, shape.tokens * shape.hidden),
        wide_states(on_device, shape.tokens * shape.intermediate),
        other_wide_states(on_device, shape.tokens * shape.intermediate),
        keys(on_device, shape.tokens * shape.key_heads * shape.head_size),
        angles(on_device, shape.window * shape.head_size / 2),
        vector(on_device, std::max(shape.hidden, shape.intermediate)),
        sums(on_device, std::max(product_values(gram_shape(shape.hidden)), shape.intermediate)),
        weights(on_device, shape.hidden * shape.intermediate),
        narrow_weights(on_device, shape.hidden * shape.intermediate),
        narrow_states(on_device, shape.tokens * shape.intermediate),
        ids(on_device, shape.tokens),
        logits(on_device, shape.tokens * shape.words),
        log_sums(on_device, shape.tokens),
        next_logits(on_device, shape.tokens),
        order_scratch{
            {on_device, shape.hidden * shape.hidden}, {on_device, shape.hidden * shape.hidden}, {on_device, shape.hidden * shape.hidden}},
        orders(on_device, shape.hidden * shape.hidden),
        samples(on_device, shape.hidden * shape.samples),
        outputs(on_device, shape.hidden * shape.samples),
        points(on_device, shape.hidden * (shape.hidden + 1)),
        sparsities(on_device, shape.hidden),
        best_sparsities(on_device, shape.hidden),
        output_products(on_device, shape.hidden),
        row_qualities(on_device, shape.hidden),
        moves(on_device, shape.hidden),
        qualities(on_device, 2),
        counts(on_device, shape.hidden),
        mask(on_device, shape.hidden * ((shape.hidden + 7) / 8)),
        flag(on_device, 1) {
    for (Array<float>* const values :
         {&states, &other_states, &wide_states, &other_wide_states, &keys, &angles, &vector, &weights, &logits, &samples, &outputs}) {
      values->fill(scattered);
    }
    narrow_weights.fill(narrow_scattered);
    narrow_states.fill(narrow_scattered);
    ids.fill([&](std::size_t i) { return static_cast<std::int32_t>(i * 17 % shape.words); });
    log_sums.fill([](std::size_t) { return 0.0; });
    sums.fill([](std::size_t) { return 0.0; });
    flag.fill([](std::size_t) { return 0U; });
    sparsities.fill([](std::size_t) { return 0.5F; });
    orders.fill([&](std::size_t i) { return static_cast<std::uint32_t>(i % shape.hidden); });
    counts.fill([&](std::size_t i) { return static_cast<std::int32_t>(i * 31 % (shape.hidden + 1)); });
    mask.fill([](std::size_t i) { return static_cast<std::uint8_t>(i * 37); });
  }

  Array<float> states, other_states, wide_states, other_wide_states, keys, angles, vector;
  Array<double> sums;
  Array<float> weights;
  Array<gpu::bfloat16> narrow_weights, narrow_states;
  Array<std::int32_t> ids;
  Array<float> logits;
  Array<double> log_sums;
  Array<float> next_logits;
  Array<std::uint32_t> order_scratch[3];
  Array<std::uint32_t> orders;
  Array<float> samples, outputs;
  Array<gpu::CurvePoint> points;
  Array<float> sparsities, best_sparsities;
  Array<gpu::OutputProducts> output_products;
  Array<double> row_qualities, moves, qualities;
  Array<std::int32_t> counts;
  Array<std::uint8_t> mask;
  Array<unsigned> flag;
};

Operations::Operations(const BlockShape& shape, bool on_device, Products library) : memory_(std::make_unique<Memory>(shape, on_device)) {
  add_rows(shape);
  add_products(shape, library);
  add_allocation(shape);
}

Operations::~Operations() = default;

void Operations::add(std::string name, Arithmetic arithmetic, double flops, double bytes, std::function<cudaError_t(cudaStream_t)> start) {
  all_.push_back({std::move(name), arithmetic, flops, bytes, std::move(start)});
}

void Operations::add_rows(const BlockShape& shape) {
  Memory& m = *memory_;
  const double values = as_double(shape.tokens * shape.hidden);
  const double wide_values = as_double(shape.tokens * shape.intermediate);
  add("embedding", Arithmetic::kF32, 0, values * 2 * kF32, [=, &m](cudaStream_t stream) {
    return gpu::embed(
        {shape.tokens, shape.window, shape.hidden, m.ids.data(), m.weights.data(), gpu::StoredType::kF32, nullptr, m.states.data()},
        stream);
  });
  add("RMS norm", Arithmetic::kF64, 3 * values, values * 2 * kF32, [=, &m](cudaStream_t stream) {
    return gpu::rms_norm({shape.tokens, shape.hidden, 1e-6, m.states.data(), m.vector.data(), nullptr, m.other_states.data()}, stream);
  });
  add("layer norm", Arithmetic::kF64, 6 * values, values * 2 * kF32, [=, &m](cudaStream_t stream) {
    return gpu::layer_norm({shape.tokens, shape.hidden, 1e-6, m.states.data(), m.vector.data(), m.vector.data(), m.other_states.data()},
                           stream);
  });
  add("rotary positions", Arithmetic::kF32, 3 * values, values * 2 * kF32, [=, &m](cudaStream_t stream) {
    return gpu::rotate(
        {shape.tokens, shape.window, shape.hidden / shape.head_size, shape.head_size, m.angles.data(), m.angles.data(), m.states.data()},
        stream);
  });
  const double query_values = as_double(shape.tokens * shape.heads * shape.head_size);
  const double key_values = as_double(shape.tokens * shape.key_heads * shape.head_size);
  // Half of the scores are of later tokens.
  const double attention = 2 * query_values * as_double(shape.window + 1);
  add("attention", Arithmetic::kF32, attention, (2 * query_values + 2 * key_values) * kF32, [=, &m](cudaStream_t stream) {
    return gpu::attend({shape.tokens / shape.window, shape.window, shape.heads, shape.key_heads, shape.head_size, m.states.data(),
                        m.keys.data(), m.keys.data(), m.other_states.data()},
                       stream);
  });
  add("attention, bf16", Arithmetic::kBF16, attention, 2 * query_values * kF32 + 2 * key_values * kBF16, [=, &m](cudaStream_t stream) {
    return gpu::attend_narrow({shape.tokens / shape.window, shape.window, shape.heads, shape.key_heads, shape.head_size, m.states.data(),
                               m.narrow_states.data(), m.narrow_states.data(), m.other_states.data()},
                              stream);
  });
  add("residual", Arithmetic::kF32, values, values * 3 * kF32,
      [=, &m](cudaStream_t stream) { return gpu::add(m.states.data(), m.other_states.data(), shape.tokens * shape.hidden, stream); });
  add("SiLU and product", Arithmetic::kF32, 5 * wide_values, wide_values * 3 * kF32, [=, &m](cudaStream_t stream) {
    return gpu::silu_multiply(m.wide_states.data(), m.other_wide_states.data(), shape.tokens * shape.intermediate, stream);
  });
  add("ReLU", Arithmetic::kF32, wide_values, wide_values * 2 * kF32,
      [=, &m](cudaStream_t stream) { return gpu::relu(m.wide_states.data(), shape.tokens * shape.intermediate, stream); });
  add("narrowing to bfloat16", Arithmetic::kF32, 0, wide_values * (kF32 + kBF16), [=, &m](cudaStream_t stream) {
    return gpu::narrow(m.wide_states.data(), m.narrow_states.data(), shape.tokens * shape.intermediate, stream);
  });
  add("widening from bfloat16", Arithmetic::kF32, 0, wide_values * (kF32 + kBF16), [=, &m](cudaStream_t stream) {
    return gpu::widen(m.narrow_states.data(), m.wide_states.data(), shape.tokens * shape.intermediate, stream);
  });
  add("search for NaN", Arithmetic::kF32, 0, values * kF32,
      [=, &m](cudaStream_t stream) { return gpu::flag_non_finite(m.states.data(), shape.tokens * shape.hidden, m.flag.data(), stream); });
  add("column sums of squares", Arithmetic::kF64, 2 * wide_values, wide_values * kF32, [=, &m](cudaStream_t stream) {
    return gpu::column_sums_of_squares({1, shape.tokens, shape.intermediate, m.wide_states.data(), m.sums.data()}, stream);
  });
  add("last tokens", Arithmetic::kF32, 0, as_double(shape.tokens / shape.window * shape.hidden) * 2 * kF32, [=, &m](cudaStream_t stream) {
    return gpu::gather_last(m.states.data(), shape.tokens / shape.window, shape.window, shape.hidden, m.samples.data(), stream);
  });
  const double logits = as_double(shape.tokens * shape.words);
  add("cross-entropy", Arithmetic::kF64, 4 * logits, logits * kF32, [=, &m](cudaStream_t stream) {
    return gpu::accumulate_cross_entropy(
        {shape.tokens, shape.words, 0, m.logits.data(), m.ids.data(), m.log_sums.data(), m.next_logits.data()}, stream);
  });
}

void Operations::add_products(const BlockShape& shape, const Products& library) {
  Memory& m = *memory_;
  struct Projection {
    const char* name;
    std::size_t rows;
    std::size_t columns;
  };
  const Projection projections[] = {{"query", shape.hidden, shape.hidden},
                                    {"key", shape.key_heads * shape.head_size, shape.hidden},
                                    {"gate", shape.intermediate, shape.hidden},
                                    {"down", shape.hidden, shape.intermediate}};
  for (const auto& [name, rows, columns] : projections) {
    const double flops = 2 * as_double(shape.tokens * rows) * as_double(columns);
    const double operands = as_double((shape.tokens + rows) * columns);
    const double result = as_double(shape.tokens * rows) * kF32;
    const gpu::MatrixProductF32 f32{
        shape.tokens, rows, columns, m.wide_states.data(), m.weights.data(), nullptr, m.other_wide_states.data()};
    const gpu::MatrixProductNarrow bf16{
        shape.tokens, rows, columns, m.narrow_states.data(), m.narrow_weights.data(), nullptr, m.other_wide_states.data()};
    const std::string projection = std::string(name) + " projection";
    add(projection + ", f32", Arithmetic::kF32, flops, operands * kF32 + result,
        [=](cudaStream_t stream) { return gpu::matrix_product_f32(f32, stream); });
    if (library.f32)
      add(projection + ", f32, cuBLASLt", Arithmetic::kF32, flops, operands * kF32 + result,
          [=](cudaStream_t stream) { return library.f32(f32, stream); });
    add(projection + ", bf16", Arithmetic::kBF16, flops, operands * kBF16 + result,
        [=](cudaStream_t stream) { return gpu::matrix_product_narrow(bf16, stream); });
    if (library.bf16)
      add(projection + ", bf16, cuBLASLt", Arithmetic::kBF16, flops, operands * kBF16 + result,
          [=](cudaStream_t stream) { return library.bf16(bf16, stream); });
  }
  const double columns = as_double(shape.hidden);
  add("Gram matrix", Arithmetic::kF32, as_double(shape.tokens) * columns * (columns + 1),
      as_double(shape.tokens) * columns * kF32 + 2 * as_double(product_values(gram_shape(shape.hidden))) * kF64,
      [=, &m](cudaStream_t stream) {
        return gpu::add_product_sums({shape.tokens, gram_shape(shape.hidden), m.states.data(), m.states.data(), m.sums.data()}, stream);
      });
}

// Of a projection of hidden x hidden.
void Operations::add_allocation(const BlockShape& shape) {
  Memory& m = *memory_;
  const std::size_t rows = shape.hidden;
  const std::size_t columns = shape.hidden;
  const double entries = as_double(rows * columns);
  // Keys and columns are read and written in each of four passes, keys once more to be counted.
  add("row order", Arithmetic::kF32, entries, entries * (kF32 + 4 * 5 * 4), [=, &m](cudaStream_t stream) {
    return gpu::order_rows({rows, columns, m.weights.data(), m.vector.data(), m.order_scratch[0].data(), m.order_scratch[1].data(),
                            m.order_scratch[2].data(), m.orders.data()},
                           stream);
  });
  const double samples = as_double(shape.samples);
  add("quality curves", Arithmetic::kF64, 6 * entries * samples,
      entries * (kF32 + 4 + sizeof(gpu::CurvePoint)) + as_double(rows + columns) * samples * kF32, [=, &m](cudaStream_t stream) {
        return gpu::quality_curves({rows, columns, shape.samples, m.weights.data(), m.orders.data(), m.samples.data(), m.outputs.data(),
                                    nullptr, m.points.data(), m.sums.data()},
                                   stream);
      });
  const gpu::DeviceCandidate candidate{m.sparsities.data(), m.output_products.data(), m.row_qualities.data()};
  constexpr double kMeasured = sizeof(gpu::OutputProducts) + kF64;
  // A point is in a sector of its own.
  add("measuring a candidate", Arithmetic::kF64, 20 * as_double(rows), as_double(rows) * (32 + kF32 + kF64 + kMeasured),
      [=, &m](cudaStream_t stream) {
        return gpu::measure_rows({rows, columns, m.points.data(), m.sums.data()}, candidate, stream);
      });
  // The additions come one after the other, whatever the device could do at once.
  add("moving sparsities", Arithmetic::kF64, 10 * as_double(rows), as_double(rows) * (kMeasured + 2 * kF32), [=, &m](cudaStream_t stream) {
    return gpu::move_rows({rows, 0.5F, 0.01, candidate, m.qualities.data(), true, m.qualities.data() + 1, m.best_sparsities.data(),
                           m.moves.data(), m.sparsities.data()},
                          stream);
  });
  add("packing a mask", Arithmetic::kF32, 0, entries * 4 + entries / 8,
      [=, &m](cudaStream_t stream) { return gpu::pack_mask(m.orders.data(), m.counts.data(), rows, columns, m.mask.data(), stream); });
  add("applying a mask", Arithmetic::kF32, 0, entries / 8 + entries / 2 * kF32,
      [=, &m](cudaStream_t stream) { return gpu::apply_mask(m.weights.data(), m.mask.data(), rows, columns, stream); });
}

}  // namespace secateur::bench
