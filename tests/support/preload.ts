import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, realpathSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { repositoryRoot } from './paths.js';

const FAILING_DISK = 'failing-disk';
const SHIFTED_CLOCK = 'shifted-clock';

/** Why libraries cannot be put before libc here; undefined where they can. */
export const preloadProblem: string | undefined =
  process.platform !== 'linux'
    ? 'LD_PRELOAD is of Linux'
    : spawnSync('cc', ['--version']).status === 0
      ? undefined
      : 'there is no C compiler (cc)';

/** Compiles tests/support/preload/NAME.c into a folder. */
function compile(name: string, folder: string): string {
  const library = join(folder, `${name}.so`);
  const source = join(repositoryRoot, 'tests/support/preload', `${name}.c`);
  const made = spawnSync('cc', ['-shared', '-fPIC', '-O1', '-Wall', '-Werror', '-o', library, source, '-ldl'], { encoding: 'utf8' });
  if (made.status !== 0) throw new Error(`cc failed: ${made.stderr}`);
  return library;
}

/** As many as a process under test reads, at most. */
const CONTROL_NUMBERS = 4;
/** More operations than there are. */
const ALL = Number.MAX_SAFE_INTEGER;

/** Numbers in a file that a process under test reads while it runs. */
class Control {
  readonly path: string;

  constructor(folder: string, name: string) {
    this.path = join(folder, `${name}.control`);
    writeFileSync(this.path, new BigInt64Array(CONTROL_NUMBERS));
  }

  write(...values: readonly number[]): void {
    const bytes = new Uint8Array(BigInt64Array.from(values, BigInt).buffer);
    const handle = openSync(this.path, 'r+');
    // All at once: the process sees either the old values or the new ones.
    writeSync(handle, bytes, 0, bytes.byteLength, 0);
    closeSync(handle);
  }
}

export type DiskError = 'ENOSPC' | 'EROFS';

/** A folder in which a process that was started with `environment` can be kept from writing. */
export class FailingDisk {
  readonly environment: Readonly<Record<string, string>>;
  private readonly control: Control;
  private readonly journal: string;

  /** `tools`: a folder for what the disk itself needs, outside of `root`. */
  constructor(tools: string, root: string) {
    this.control = new Control(tools, FAILING_DISK);
    this.journal = join(tools, 'operations');
    writeFileSync(this.journal, '');
    this.environment = {
      LD_PRELOAD: compile(FAILING_DISK, tools),
      TEST_DISK_ROOT: realpathSync(root),
      TEST_DISK_CONTROL: this.control.path,
      TEST_DISK_JOURNAL: this.journal,
    };
  }

  /** From the operation with that number on, counted from now and from 0, every one fails. Removing files works on a full disk. */
  failFrom(operation: number, error: DiskError): void {
    this.control.write(1, operation, constants.errno[error], ALL);
  }

  /** The operation with that number, counted as above, fails, and everything else works. */
  failOnly(operation: number, error: DiskError): void {
    this.control.write(1, operation, constants.errno[error], 1);
  }

  /** From the operation with that number on every one hangs, until the disk fails otherwise or is mended. */
  hangFrom(operation: number): void {
    this.control.write(1, operation, 0, ALL);
  }

  /** Everything works again. `error`: whose operations are counted. */
  mend(error: DiskError = 'ENOSPC'): void {
    this.control.write(0, 0, constants.errno[error], 0);
  }

  /** What was tried since this was last asked: `write /path`, below the folder. */
  operations(): string[] {
    const lines = readFileSync(this.journal, 'utf8').split('\n').slice(0, -1);
    truncateSync(this.journal);
    return lines;
  }
}

/** A time of day that can be changed under processes that were started with `environment`. */
export class ShiftedClock {
  readonly environment: Readonly<Record<string, string>>;
  private readonly control: Control;

  constructor(tools: string) {
    this.control = new Control(tools, SHIFTED_CLOCK);
    this.environment = { LD_PRELOAD: compile(SHIFTED_CLOCK, tools), TEST_CLOCK_CONTROL: this.control.path };
  }

  /** From now on the time of day is off by so much. */
  shift(seconds: number): void {
    this.control.write(seconds);
  }
}
