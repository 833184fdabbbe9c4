// The table of the loops of one instruction set: included once by a source file compiled for it.
#include "cpu/attention_loops.h"
#include "cpu/spectrum_loops.h"
#include "cpu/vector_math.h"

namespace secateur::cpu::SECATEUR_VECTOR_NAMESPACE {

extern const VectorMath kVectorMath;
const VectorMath kVectorMath = {
    .rms_norm = rms_norm,
    .layer_norm = layer_norm,
    .add = add,
    .relu = relu,
    .silu_multiply = silu_multiply,
    .rotate = rotate,
    .softmax = softmax,
    .log_sum_exp = log_sum_exp,
    .attend = attend,
    .add_squares = add_squares,
    .add_signed = add_signed,
    .all_finite = all_finite,
    .count_zeros = count_zeros,
    .drop = drop,
    .gather_kept = gather_kept,
    .widen_bf16 = widen_bf16,
    .widen_f16 = widen_f16,
    .narrow_bf16 = narrow_bf16,
    .transpose = transpose,
    .add_sparse_products = add_sparse_products,
    .sum_scores = sum_scores,
    .count_scores_above = count_scores_above,
    .add_outer_products = add_outer_products,
    .update_row = update_row,
    .count_below = count_below,
    .exponential = exponential,
};

}  // namespace secateur::cpu::SECATEUR_VECTOR_NAMESPACE
