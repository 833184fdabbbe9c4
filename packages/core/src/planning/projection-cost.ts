/** Work of allocating a projection's rows, in arbitrary units that compare: the sweep over all weights and samples dominates. */
export function projectionCost(rows: number, columns: number, samples: number): number {
  return rows * columns * samples;
}
