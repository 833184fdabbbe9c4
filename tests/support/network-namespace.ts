import { execFile, spawnSync } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Why there can be no network namespaces here; undefined where there can. */
export const namespaceProblem: string | undefined = findProblem();

function findProblem(): string | undefined {
  if (process.platform !== 'linux') return 'only Linux has network namespaces';
  if (process.getuid?.() !== 0) return 'only root may make network namespaces';
  const name = `secateur-probe-${process.pid}`;
  const made = spawnSync('ip', ['netns', 'add', name], { encoding: 'utf8' });
  if (made.status !== 0) return `ip makes no network namespace: ${made.error?.message ?? made.stderr}`;
  const filtered = spawnSync('ip', ['netns', 'exec', name, 'nft', 'flush', 'ruleset'], { encoding: 'utf8' });
  spawnSync('ip', ['netns', 'delete', name]);
  return filtered.status === 0 ? undefined : `nft does not work: ${filtered.stderr}`;
}

/** As its processes see it: to them, or from them. */
export type Way = 'there' | 'back';

/** A network of its own for processes, joined to that of this machine by a cable on which the kernel drops packets. */
export class NetworkNamespace implements AsyncDisposable {
  private constructor(
    private readonly name: string,
    /** Addresses at both ends of the cable. */
    readonly outside: string,
    readonly inside: string,
  ) {}

  static async open(): Promise<NetworkNamespace> {
    const id = randomInt(1 << 14);
    // The network for tests of devices, in parts of four addresses.
    const network = (198 << 24) | (18 << 16) | (id << 2);
    const address = (host: number): string => [24, 16, 8, 0].map((shift) => ((network + host) >>> shift) & 0xff).join('.');
    const namespace = new NetworkNamespace(`secateur-${id}`, address(1), address(2));
    const { name, outside, inside } = namespace;
    await ip('netns', 'add', name);
    try {
      await ip('link', 'add', name, 'type', 'veth', 'peer', 'name', 'cable', 'netns', name);
      await ip('address', 'add', `${outside}/30`, 'dev', name);
      await ip('-n', name, 'address', 'add', `${inside}/30`, 'dev', 'cable');
      await ip('link', 'set', name, 'up');
      for (const device of ['lo', 'cable']) await ip('-n', name, 'link', 'set', device, 'up');
      return namespace;
    } catch (error) {
      await namespace[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** What is put before a command that is to run inside. */
  get launcher(): readonly string[] {
    return ['ip', 'netns', 'exec', this.name];
  }

  /** Of this many packets one is lost, each way. */
  loseOneIn(packets: number): Promise<void> {
    return this.filter({ there: `numgen inc mod ${packets} 0`, back: `numgen inc mod ${packets} 0` });
  }

  /** No packet comes through that way any more. */
  silence(way: Way): Promise<void> {
    return this.filter({ [way]: '' });
  }

  heal(): Promise<void> {
    return this.filter({});
  }

  /** Packets that the present filter has dropped. */
  async dropped(): Promise<number> {
    const { stdout } = await run('ip', ['netns', 'exec', this.name, 'nft', 'list', 'ruleset']);
    return [...stdout.matchAll(/counter packets (\d+)/g)].reduce((sum, [, packets]) => sum + Number(packets), 0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await ip('netns', 'delete', this.name);
  }

  /** Drops the packets that the rules match, by the way they go. */
  private async filter(rules: Readonly<Partial<Record<Way, string>>>): Promise<void> {
    const chains = Object.entries(rules).map(([way, match]) => {
      const [hook, device] = way === 'there' ? ['input', 'iifname'] : ['output', 'oifname'];
      return `chain ${way} {\n type filter hook ${hook} priority 0\n ${device} cable ${match} counter drop\n}`;
    });
    const [command, ...args] = [...this.launcher, 'nft', '-f', '-'];
    const applied = run(command, args);
    applied.child.stdin?.end(`flush ruleset\ntable inet faults {\n${chains.join('\n')}\n}\n`);
    await applied;
  }
}

async function ip(...args: readonly string[]): Promise<void> {
  await run('ip', args);
}
