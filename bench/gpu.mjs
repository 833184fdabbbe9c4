// Checks and measures the CUDA backend on this machine's GPU: the suite that all backends pass, NVIDIA's compute-sanitizer on it, the time of
// every operation, and a job's phases on one block of Qwen2.5-7B's shape.
//   npm run bench:gpu                                    needs a GPU, its driver and the CUDA toolkit
//   npm run bench:gpu -- --write                         also puts the tables into docs/performance.md
//   npm run bench:gpu -- --built                         with what `scripts/lib/native-build.mjs` built for this machine before
//   npm run bench:gpu -- --job /dev/shm [--write]        only a whole prune of a model of Qwen2.5-7B's shape, written to that folder
//   npm run bench:gpu -- --predict [--device h100]       what the data sheet allows at best; needs no GPU and measures nothing
import { readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { findExecutable } from '../scripts/lib/find-executable.mjs';
import { buildEmulatedCuda, buildForGpu, emulatedCudaBuildFolder, gpuBuildFolder } from '../scripts/lib/native-build.mjs';
import { CommandError, requireCommand, runCommand } from '../scripts/lib/run-command.mjs';
import { workspaceRoot } from '../scripts/lib/workspace-root.mjs';
import { gpuByName, gpuNames, gpuOfDevice, measuredTable, parseLines, phaseTable, predictedTable } from './gpu-tables.mjs';
import { benchGpuJob } from './gpu-job.mjs';
import { writeSection } from './write-section.mjs';

const toolkitFolder = '/usr/local/cuda/bin';

/** Names what is missing or wrong and what to do about it. */
class Missing extends Error {}

/** Runs a program that prints JSON lines; what it says beside them is for people. @param {string} name @param {readonly string[]} args */
async function readLines(name, args = []) {
  const output = await requireCommand(join(gpuBuildFolder, 'bench', name), args, { env: environment(), quiet: true });
  for (const line of output.trim().split('\n')) if (!line.startsWith('{')) console.log(line);
  return parseLines(output);
}

/** @returns {Promise<string>} the device's name */
async function findDevice() {
  if (findExecutable('nvcc', [toolkitFolder]) === undefined && findExecutable('nvcc') === undefined) {
    throw new Missing('There is no nvcc on PATH or in /usr/local/cuda/bin; install the CUDA toolkit.');
  }
  if (findExecutable('nvidia-smi') === undefined) {
    throw new Missing('There is no nvidia-smi on PATH: this machine has no NVIDIA driver. With --predict no GPU is needed.');
  }
  const { code, output } = await runCommand('nvidia-smi', ['--query-gpu=name', '--format=csv,noheader'], { quiet: true });
  const name = output.trim().split('\n')[0] ?? '';
  if (code !== 0 || name === '') throw new Missing(`nvidia-smi finds no GPU: ${output.trim()}`);
  return name;
}

const environment = () => ({ SECATEUR_CUDA_LIBRARY: join(gpuBuildFolder, 'src/cuda/libsecateur_cuda.so') });

const conformance = join(gpuBuildFolder, 'test/conformance/secateur_conformance');

async function checkConformance() {
  console.log('The suite of all backends:');
  await requireCommand(conformance, ['--backend=cuda'], { env: environment() });
  const sanitizer = findExecutable('compute-sanitizer', [toolkitFolder]) ?? findExecutable('compute-sanitizer');
  if (sanitizer === undefined) throw new Missing('There is no compute-sanitizer; it comes with the CUDA toolkit.');
  const count = Number(/\d+\s*$/.exec(await requireCommand(conformance, ['--backend=cpu', '--count'], { quiet: true }))?.[0]);
  for (const tool of ['memcheck', 'racecheck', 'initcheck', 'synccheck']) {
    const startedMs = performance.now();
    await checkCases(sanitizer, tool, count);
    console.log(`compute-sanitizer ${tool}: ${count} cases without a finding, ${((performance.now() - startedMs) / 1000).toFixed(0)} s`);
  }
}

/**
 * Every case in a process of its own, several at a time: under the sanitizer one processor is what a case waits for.
 * @param {string} sanitizer
 * @param {string} tool
 * @param {number} count
 */
async function checkCases(sanitizer, tool, count) {
  let next = 1;
  const check = async () => {
    while (next <= count) {
      const number = String(next++);
      const program = [conformance, '--backend=cuda', `--first=${number}`, `--last=${number}`];
      await requireCommand(sanitizer, ['--tool', tool, '--error-exitcode', '1', ...program], { env: environment(), quiet: true });
    }
  };
  await Promise.all(Array.from({ length: Math.max(1, availableParallelism() - 2) }, check));
}

/** @param {boolean} isBuilt */
async function measure(isBuilt) {
  const device = await findDevice();
  console.log(`GPU: ${device}.${isBuilt ? '' : ' Building.'}`);
  if (!isBuilt) await buildForGpu();
  await checkConformance();
  const operations = await readLines('bench_operations');
  const phases = await readLines('bench_block');
  const narrowPhases = await readLines('bench_block', ['--bf16']);
  const gpu = gpuOfDevice(device);
  if (gpu === undefined) console.log(`The limits of ${device} are not known here; add them to bench/gpu-tables.mjs.`);
  return {
    'gpu-operations': `${device}:\n\n${measuredTable(operations, gpu)}`,
    'gpu-phases': `${device}:\n\n${phaseTable(phases, narrowPhases)}`,
  };
}

/** @param {string} folder */
async function measureJob(folder) {
  const device = await findDevice();
  return { 'gpu-job': `${device}:\n\n${await benchGpuJob(folder)}` };
}

/** @param {string} name */
async function predict(name) {
  const gpu = gpuByName(name);
  if (gpu === undefined) throw new Missing(`The limits of ${name} are not known; choose ${gpuNames.join(', ')}.`);
  await buildEmulatedCuda();
  const program = join(emulatedCudaBuildFolder, 'test/cuda/bench_operations_on_host');
  const operations = parseLines(await requireCommand(program, ['--figures'], { quiet: true }));
  console.log(`PREDICTION from the data sheet of ${name}, not a measurement: no kernel takes less, and ours will take longer.`);
  console.log(predictedTable(operations, gpu));
}

function readOptions() {
  const options = /** @type {const} */ ({
    predict: { type: 'boolean' },
    device: { type: 'string', default: 'h100' },
    write: { type: 'boolean' },
    built: { type: 'boolean' },
    job: { type: 'string' },
  });
  try {
    return parseArgs({ options }).values;
  } catch (error) {
    throw new Missing(
      `${error instanceof Error ? error.message : String(error)}\nOptions: --write, --built, --job FOLDER, or --predict [--device NAME].`,
    );
  }
}

try {
  const options = readOptions();
  if (options.predict) {
    await predict(options.device);
  } else {
    const page = join(workspaceRoot, 'docs/performance.md');
    const tables = options.job === undefined ? await measure(options.built === true) : await measureJob(options.job);
    for (const [name, text] of Object.entries(tables)) {
      console.log(`\n${text}`);
      if (options.write) writeFileSync(page, writeSection(readFileSync(page, 'utf8'), name, text));
    }
  }
} catch (error) {
  if (!(error instanceof Missing || error instanceof CommandError)) throw error;
  if (error instanceof CommandError) console.error(error.output.trimEnd());
  console.error(error.message);
  process.exitCode = error instanceof Missing ? 2 : 1;
}
