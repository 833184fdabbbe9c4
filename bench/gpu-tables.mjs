// Tables of what a GPU did, or by its data sheet cannot beat, from the lines that native/cuda/bench/gpu prints.
import { markdownTable } from './table.mjs';

/** @typedef {'f32' | 'f64' | 'bf16'} Arithmetic */
/** @typedef {{ operation: string, arithmetic: Arithmetic, flops: number, bytes: number, ms?: number }} Operation */
/** @typedef {{ step: string, phase: string, ms: number }} Phase */
/** @typedef {{ name: string, gigabytesPerSecond: number, teraflops: Record<Arithmetic, number> }} Gpu */

/**
 * Limits by NVIDIA's data sheets: memory bandwidth, and dense arithmetic without and (bf16) with tensor cores. The first whose pattern fits the
 * device's name counts.
 * @type {readonly (Gpu & { pattern: RegExp })[]}
 */
const gpus = [
  { name: 'h200', pattern: /H200/, gigabytesPerSecond: 4800, teraflops: { f32: 67, f64: 34, bf16: 989 } },
  { name: 'h100', pattern: /H100/, gigabytesPerSecond: 3350, teraflops: { f32: 67, f64: 34, bf16: 989 } },
  { name: 'a100', pattern: /A100/, gigabytesPerSecond: 2039, teraflops: { f32: 19.5, f64: 9.7, bf16: 312 } },
  { name: 'l40s', pattern: /L40S/, gigabytesPerSecond: 864, teraflops: { f32: 91.6, f64: 1.4, bf16: 362 } },
  { name: 'l4', pattern: /\bL4\b/, gigabytesPerSecond: 300, teraflops: { f32: 30.3, f64: 0.47, bf16: 121 } },
];

export const gpuNames = gpus.map(({ name }) => name);

/** By one of gpuNames. @param {string} name @returns {Gpu | undefined} */
export function gpuByName(name) {
  return gpus.find((gpu) => gpu.name === name);
}

/** By what the driver calls the device. @param {string} device @returns {Gpu | undefined} */
export function gpuOfDevice(device) {
  return gpus.find(({ pattern }) => pattern.test(device));
}

/**
 * The least time by the roofline model: every byte once at full bandwidth, or all arithmetic at its peak, whichever takes longer.
 * @param {Operation} operation
 * @param {Gpu} gpu
 */
export function limitMs({ arithmetic, flops, bytes }, gpu) {
  return Math.max(bytes / (gpu.gigabytesPerSecond * 1e9), flops / (gpu.teraflops[arithmetic] * 1e12)) * 1e3;
}

/** @param {number} value */
const figure = (value) => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));

/** @param {readonly Operation[]} operations @param {Gpu | undefined} gpu without one, shares of the limit are unknown */
export function measuredTable(operations, gpu) {
  return markdownTable(
    ['operation', 'ms', 'GB/s', 'TFLOP/s', 'share of the limit'],
    operations.map((operation) => {
      const { ms = Number.NaN } = operation;
      const share = gpu === undefined ? '?' : (limitMs(operation, gpu) / ms).toFixed(2);
      return [operation.operation, figure(ms), figure(operation.bytes / ms / 1e6), figure(operation.flops / ms / 1e9), share];
    }),
  );
}

/** @param {readonly Operation[]} operations @param {Gpu} gpu */
export function predictedTable(operations, gpu) {
  return markdownTable(
    ['operation', 'predicted ms, at best', 'bound by'],
    operations.map((operation) => {
      const memoryMs = operation.bytes / (gpu.gigabytesPerSecond * 1e6);
      const ms = limitMs(operation, gpu);
      return [operation.operation, figure(ms), ms > memoryMs ? `${operation.arithmetic} arithmetic` : 'memory'];
    }),
  );
}

/** The same phases with float32 and with bfloat16 products. @param {readonly Phase[]} phases @param {readonly Phase[]} narrowPhases */
export function phaseTable(phases, narrowPhases) {
  return markdownTable(
    ['step', 'phase', 'ms, f32', 'ms, bf16'],
    phases.map(({ step, phase, ms }) => {
      const narrow = narrowPhases.find((other) => other.step === step && other.phase === phase)?.ms ?? Number.NaN;
      return [step, phase, figure(ms), figure(narrow)];
    }),
  );
}

/** The lines that are JSON. @param {string} output @returns {any[]} */
export function parseLines(output) {
  return output
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line));
}
