const LANES = 8;
const STRANDS = 4 * LANES;
const RUN = 16;
const LEVELS = 4;

/**
 * Float32 sum in the order of vectorised tensor libraries, which the recorded decisions of the published code show (docs/algorithms.md):
 * 32 interleaved strands, each summed in runs of 16, these in runs of 16 again; the four strands of a lane; the lanes, after the last values
 * that fill no lane. A count that hangs on the last bit of a mean then falls the same way.
 */
export function sumFloat32(values: Float32Array): number {
  const terms = Math.floor(values.length / STRANDS);
  const inLanes = values.length - (values.length % LANES);
  let total = addAll(values.subarray(inLanes));
  for (let lane = 0; lane < LANES; lane++) {
    let laneTotal = sumStrand(values, lane, terms);
    for (let rest = terms * STRANDS + lane; rest < inLanes; rest += LANES) laneTotal = Math.fround(laneTotal + values[rest]!);
    for (let strand = lane + LANES; strand < STRANDS; strand += LANES)
      laneTotal = Math.fround(laneTotal + sumStrand(values, strand, terms));
    total = Math.fround(total + laneTotal);
  }
  return total;
}

function sumStrand(values: Float32Array, first: number, terms: number): number {
  const open = new Float32Array(LEVELS);
  for (let term = 0; term < terms; term++) {
    open[0]! += values[first + term * STRANDS]!;
    let closed = term + 1;
    for (let level = 0; level + 1 < LEVELS && closed % RUN === 0; level++, closed /= RUN) {
      open[level + 1]! += open[level]!;
      open[level] = 0;
    }
  }
  return addAll(open);
}

function addAll(values: Float32Array): number {
  return values.reduce((total, value) => Math.fround(total + value), 0);
}
