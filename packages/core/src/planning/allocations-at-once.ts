/**
 * Projections that a node allocates at a time: what one of them is allocated by is pulled, and the answer to the other checked, while its engine works.
 * One where they are swapped or repaired by Gram matrices: the answers are whole weights then.
 */
export function allocationsAtOnce({ usesGramMatrices }: { readonly usesGramMatrices: boolean }): number {
  return usesGramMatrices ? 1 : 2;
}
