import { readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { requireCommand, runCommand } from './run-command.mjs';
import { workspaceRoot } from './workspace-root.mjs';

export const nativeFolder = join(workspaceRoot, 'native', 'cuda');
export const addonBuildFolder = join(nativeFolder, 'build');
export const cppTestsBuildFolder = join(addonBuildFolder, 'tests');

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
  const hasNinja = (await runCommand('ninja', ['--version'], { quiet: true })).code === 0;
  const configuration = ['-DCMAKE_BUILD_TYPE=RelWithDebInfo', '-DSECATEUR_TESTS=ON', '-DSECATEUR_SANITIZE=ON'];
  await requireCommand('cmake', ['-S', nativeFolder, '-B', cppTestsBuildFolder, ...(hasNinja ? ['-G', 'Ninja'] : []), ...configuration], {
    quiet: true,
  });
  await requireCommand('cmake', ['--build', cppTestsBuildFolder, '--parallel', jobs], { quiet: true });
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
