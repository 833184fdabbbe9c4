import { readFile } from 'node:fs/promises';
import { isAbsolute } from 'node:path';
import { isStoreUrl, parseStoreUrl } from '@secateur/checkpoint';
import { SecateurError } from '@secateur/core';
import type { RunningLimits } from '../store/job-store.js';

const MAXIMUM_PRIORITY = 1_000;
const MAXIMUM_UNENDED_JOBS = 100_000;
const NO_LIMIT = 2 ** 31 - 1;

/** What the jobs of a tenant may do. */
export interface TenantRules {
  /** Jobs that run at once. */
  readonly runningJobs: number;
  /** Jobs that run or wait. */
  readonly unendedJobs: number;
  /** The highest priority it may ask for. */
  readonly maximumPriority: number;
  /** Folders, and prefixes of stores, that its jobs may use. */
  readonly roots: readonly string[];
}

/** The rules of all tenants. Those without rules of their own have the default ones. */
export class Tenants {
  private constructor(
    private readonly others: TenantRules,
    private readonly named: ReadonlyMap<string, TenantRules>,
  ) {}

  /** The same for everybody: no limits but those of the service. */
  static alike(roots: readonly string[]): Tenants {
    return new Tenants({ runningJobs: NO_LIMIT, unendedJobs: MAXIMUM_UNENDED_JOBS, maximumPriority: MAXIMUM_PRIORITY, roots }, new Map());
  }

  /** From a JSON file: `{ "default": RULES, "tenants": { NAME: RULES } }`, where rules that are left out are the default ones. */
  static async read(path: string, roots: readonly string[]): Promise<Tenants> {
    const refuse = (what: string): never => {
      throw new SecateurError('INVALID_REQUEST', `--tenants ${path}: ${what}`);
    };
    let content: unknown;
    try {
      content = JSON.parse(await readFile(path, 'utf8'));
    } catch (error) {
      return refuse(error instanceof Error ? error.message : String(error));
    }
    const { default: others = {}, tenants = {}, ...rest } = asObject(content, 'the file', refuse);
    refuseUnknown(rest, 'the file', refuse);
    const rules = parseRules(others, 'default', Tenants.alike(roots).others, refuse);
    const named = Object.entries(asObject(tenants, 'tenants', refuse)).map(
      ([name, value]) => [name, parseRules(value, `tenants.${name}`, rules, refuse)] as const,
    );
    return new Tenants(rules, new Map(named));
  }

  of(tenant: string): TenantRules {
    return this.named.get(tenant) ?? this.others;
  }

  get runningLimits(): RunningLimits {
    return {
      others: this.others.runningJobs,
      tenants: Object.fromEntries([...this.named].map(([name, { runningJobs }]) => [name, runningJobs])),
    };
  }
}

type Refuse = (what: string) => never;

function parseRules(value: unknown, where: string, defaults: TenantRules, refuse: Refuse): TenantRules {
  const {
    runningJobs = defaults.runningJobs,
    unendedJobs = defaults.unendedJobs,
    maximumPriority = defaults.maximumPriority,
    roots = defaults.roots,
    ...rest
  } = asObject(value, where, refuse);
  refuseUnknown(rest, where, refuse);
  const whole = (given: unknown, name: string, least: number, most: number): number =>
    typeof given === 'number' && Number.isInteger(given) && given >= least && given <= most
      ? given
      : refuse(`${where}.${name} must be a whole number from ${least} to ${most}.`);
  if (!Array.isArray(roots) || !roots.every((root): root is string => typeof root === 'string' && (isStoreUrl(root) || isAbsolute(root)))) {
    return refuse(`${where}.roots must be a list of absolute paths and of URLs such as s3://BUCKET/PREFIX.`);
  }
  for (const root of roots.filter(isStoreUrl)) parseStoreUrl(root);
  return {
    runningJobs: whole(runningJobs, 'runningJobs', 1, NO_LIMIT),
    unendedJobs: whole(unendedJobs, 'unendedJobs', 1, NO_LIMIT),
    maximumPriority: whole(maximumPriority, 'maximumPriority', -MAXIMUM_PRIORITY, MAXIMUM_PRIORITY),
    roots,
  };
}

function asObject(value: unknown, where: string, refuse: Refuse): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return refuse(`${where} must be an object.`);
  return value as Record<string, unknown>;
}

function refuseUnknown(rest: Readonly<Record<string, unknown>>, where: string, refuse: Refuse): void {
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) refuse(`${where} has ${JSON.stringify(unknown)}, which means nothing here.`);
}
