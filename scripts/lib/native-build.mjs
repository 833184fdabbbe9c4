import { readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { requireCommand, runCommand } from './run-command.mjs';
import { workspaceRoot } from './workspace-root.mjs';

export const nativeFolder = join(workspaceRoot, 'native', 'cuda');
export const addonBuildFolder = join(nativeFolder, 'build');
export const cppTestsBuildFolder = join(addonBuildFolder, 'tests');
/** The CUDA backend as tests load it where there is no GPU. */
export const emulatedCudaBuildFolder = join(addonBuildFolder, 'cuda-on-host');
/** The CUDA backend and what measures it, on a machine that has a GPU. */
export const gpuBuildFolder = join(addonBuildFolder, 'gpu');
/** The CUDA kernels and their tests under ThreadSanitizer. */
export const raceCheckBuildFolder = join(addonBuildFolder, 'cuda-race-check');

const jobs = String(Math.max(1, cpus().length));

/** Builds the addon that Node loads. */
export async function buildAddon() {
  forgetMovedBuild(addonBuildFolder);
  const program = createRequire(join(nativeFolder, 'package.json')).resolve('cmake-js/bin/cmake-js');
  await requireCommand(process.execPath, [program, 'build', '--parallel', jobs], { cwd: nativeFolder, quiet: true });
}

/** Builds the C++ tests with the address and undefined-behaviour sanitizers. */
export async function buildCppTests() {
  forgetMovedBuild(cppTestsBuildFolder);
  const configuration = ['-DCMAKE_BUILD_TYPE=RelWithDebInfo', '-DSECATEUR_TESTS=ON', '-DSECATEUR_SANITIZE=ON', '-DSECATEUR_CUDA=OFF'];
  await configure(cppTestsBuildFolder, configuration);
  await requireCommand('cmake', ['--build', cppTestsBuildFolder, '--parallel', jobs], { quiet: true });
}

/** Builds the CUDA backend for the host, at full speed: whole jobs and the suite of all backends run on it. Also what measures GPUs. */
export async function buildEmulatedCuda() {
  forgetMovedBuild(emulatedCudaBuildFolder);
  const options = ['-DCMAKE_BUILD_TYPE=Release', '-DSECATEUR_TESTS=ON', '-DSECATEUR_BENCH=ON', '-DSECATEUR_CUDA=OFF'];
  await configure(emulatedCudaBuildFolder, options);
  const targets = ['--target', 'secateur_cuda_on_host_backend', 'secateur_conformance', 'bench_operations_on_host', 'bench_block'];
  await requireCommand('cmake', ['--build', emulatedCudaBuildFolder, '--parallel', jobs, ...targets], { quiet: true });
}

/** Builds for a GPU: the CUDA backend, what measures it, and the suite that all backends pass. Needs nvcc. */
export async function buildForGpu() {
  forgetMovedBuild(gpuBuildFolder);
  await configure(gpuBuildFolder, ['-DCMAKE_BUILD_TYPE=Release', '-DSECATEUR_TESTS=ON', '-DSECATEUR_BENCH=ON', '-DSECATEUR_CUDA=ON']);
  const targets = ['--target', 'secateur_cuda', 'secateur_conformance', 'bench_operations', 'bench_block'];
  await requireCommand('cmake', ['--build', gpuBuildFolder, '--parallel', jobs, ...targets], { quiet: true });
}

/** Builds the tests of the CUDA kernels so that races are found. */
export async function buildRaceCheck() {
  forgetMovedBuild(raceCheckBuildFolder);
  const configuration = ['-DCMAKE_BUILD_TYPE=Release', '-DSECATEUR_TESTS=ON', '-DSECATEUR_CUDA=OFF', '-DSECATEUR_CUDA_RACE_CHECK=ON'];
  await configure(raceCheckBuildFolder, configuration);
  const target = ['--target', 'secateur_cuda_kernels_test'];
  await requireCommand('cmake', ['--build', raceCheckBuildFolder, '--parallel', jobs, ...target], { quiet: true });
}

/** @param {string} folder @param {readonly string[]} options */
async function configure(folder, options) {
  const hasNinja = (await runCommand('ninja', ['--version'], { quiet: true })).code === 0;
  await requireCommand('cmake', ['-S', nativeFolder, '-B', folder, ...(hasNinja ? ['-G', 'Ninja'] : []), ...options], { quiet: true });
}

/** CMake refuses a build folder that was configured under another path. @param {string} folder */
function forgetMovedBuild(folder) {
  let cache;
  try {
    cache = readFileSync(join(folder, 'CMakeCache.txt'), 'utf8');
  } catch {
    return;
  }
  if (/^CMAKE_CACHEFILE_DIR:INTERNAL=(.*)$/m.exec(cache)?.[1] !== folder) rmSync(folder, { recursive: true });
}
