/** The schema of PruneJob takes what it should, and its rules hold what cannot be said by a schema. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { celEnv, parse as parseRule, plan } from '@bufbuild/cel';
import { Ajv } from 'ajv';
import { parse, parseAllDocuments } from 'yaml';
import { JobSpec } from '@secateur/proto/job';
import { jobSpecOf } from '../../services/orchestrator/src/k8s/controller/job-spec-of.js';
import { EVENT_KINDS } from '../../services/orchestrator/src/k8s/controller/prune-job-events.js';
import type { PruneJobSpec } from '../../services/orchestrator/src/k8s/controller/prune-job.js';
import { repositoryRoot } from '../support/paths.js';
import { checkSchema, type KubernetesObject } from '../support/manifests.js';

interface Schema {
  readonly [keyword: string]: unknown;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly items?: Schema;
}

type Spec = Record<string, unknown>;

const crd = parse(await readFile(join(repositoryRoot, 'deploy/k8s/crds/prunejobs.secateur.dev.yaml'), 'utf8')) as KubernetesObject & {
  spec: { versions: { name: string; schema: { openAPIV3Schema: Schema } }[] };
};
const schema = crd.spec.versions[0]!.schema.openAPIV3Schema;
const specSchema = schema.properties!['spec']!;
const rules = specSchema['x-kubernetes-validations'] as { rule: string; message: string }[];

const SPEC = {
  model: '/models/Qwen2.5-7B',
  output: '/models/pruned',
  sparsity: 0.7,
  calibration: { paths: ['/models/text.jsonl'], samples: 256 },
};

/** The same schema as Kubernetes reads it: fields it does not know are refused, bounds that are excluded are numbers. */
function toJsonSchema({ properties, items, ...rest }: Schema): object {
  const result: Record<string, unknown> = {};
  for (const [keyword, value] of Object.entries(rest)) {
    const exclusive = `exclusive${keyword.charAt(0).toUpperCase()}${keyword.slice(1)}`;
    if (keyword.startsWith('x-') || keyword.startsWith('exclusive') || keyword === 'format') continue;
    result[rest[exclusive] === true ? exclusive : keyword] = value;
  }
  if (items !== undefined) result['items'] = toJsonSchema(items);
  if (properties !== undefined) {
    result['properties'] = Object.fromEntries(Object.entries(properties).map(([name, property]) => [name, toJsonSchema(property)]));
    // The schema of metadata is Kubernetes' own.
    result['additionalProperties'] = Object.keys(properties).length === 0;
  }
  return result;
}

const validate = new Ajv({ strict: true, strictTypes: false, allErrors: true }).compile(toJsonSchema(schema));

function isValid(spec: Spec, status: object = {}): boolean {
  return validate({ apiVersion: 'secateur.dev/v1alpha1', kind: 'PruneJob', metadata: { name: 'qwen-70' }, spec, status });
}

const environment = celEnv();
const programs = rules.map(({ rule }) => plan(environment, parseRule(rule)));

/** Whether the rules take a change; those that compare with what was do not count for a new object. */
function mayBecome(self: Spec, oldSelf?: Spec): boolean {
  return programs.every((program, index) => {
    if (oldSelf === undefined && rules[index]?.rule.includes('oldSelf')) return true;
    return program({ self, oldSelf: oldSelf ?? {} } as never) === true;
  });
}

test('the definition follows the schema of definitions', () => {
  checkSchema(crd);
});

test('those in the documents are taken', async () => {
  const page = await readFile(join(repositoryRoot, 'docs/operations.md'), 'utf8');
  const written = [...page.matchAll(/^apiVersion: secateur\.dev\/.*\n(?:(?!END$|```).*\n)*/gm)].map(
    ([text]) => parse(text) as { spec: Spec },
  );
  expect(written.length).toBeGreaterThan(0);
  for (const object of written) {
    validate(object);
    expect(validate.errors ?? []).toEqual([]);
    expect(mayBecome(object.spec)).toBe(true);
  }
});

describe('a spec', () => {
  test.each<[string, Spec]>([
    ['the least', SPEC],
    [
      'with everything that is nested',
      {
        ...SPEC,
        preset: 'best',
        evaluation: { paths: ['/models/wiki.test.raw'], sequenceLength: 2048, textField: 'text', seed: 1, sampling: 'documents' },
        selection: { only: ['mlp'], skip: ['down_proj'], skipLayers: [0, 31], targets: [{ pattern: 'q_proj', sparsity: 0.5 }] },
        layerBudget: 'owl',
        layerBudgetOptions: { owl: { lambda: 0.05, threshold: 7 } },
        repair: { method: 'admm', iterations: 20, damping: 0.01, targets: 'dense' },
        swap: { most: 0.25 },
        pattern: '2:4',
        priority: -5,
        suspend: true,
      },
    ],
  ])('is taken: %s', (_name, spec) => {
    expect([isValid(spec), validate.errors]).toEqual([true, null]);
    expect(mayBecome(spec)).toBe(true);
  });

  test.each<[string, Spec]>([
    ['no model', { ...SPEC, model: undefined }],
    ['an empty output', { ...SPEC, output: '' }],
    ['a sparsity of 1', { ...SPEC, sparsity: 1 }],
    ['a sparsity of 0', { ...SPEC, sparsity: 0 }],
    ['no data', { ...SPEC, calibration: { paths: [] } }],
    ['an unknown field', { ...SPEC, sparcity: 0.5 }],
    ['an unknown word', { ...SPEC, score: 'best' }],
    ['a pattern that is none', { ...SPEC, pattern: '2/4' }],
    ['a priority out of range', { ...SPEC, priority: 5000 }],
  ])('is refused: %s', (_name, spec) => {
    expect(isValid(JSON.parse(JSON.stringify(spec)) as Spec)).toBe(false);
  });

  test('has row sparsities exactly with the allocation that takes them', () => {
    expect(mayBecome({ ...SPEC, allocation: 'given' })).toBe(false);
    expect(mayBecome({ ...SPEC, allocation: 'given', rowSparsities: '/models/rows.safetensors' })).toBe(true);
    expect(mayBecome({ ...SPEC, allocation: 'trim', rowSparsities: '/models/rows.safetensors' })).toBe(false);
  });

  test('can be suspended, and nothing else of it changed', () => {
    expect(mayBecome({ ...SPEC, suspend: true }, SPEC)).toBe(true);
    expect(mayBecome(SPEC, { ...SPEC, suspend: true })).toBe(true);
    expect(mayBecome({ ...SPEC, sparsity: 0.8 }, SPEC)).toBe(false);
    expect(mayBecome({ ...SPEC, calibration: { paths: ['/models/other.jsonl'], samples: 256 } }, SPEC)).toBe(false);
    expect(mayBecome({ ...SPEC, priority: 1 }, SPEC)).toBe(false);
    expect(mayBecome(SPEC, { ...SPEC, priority: 1 })).toBe(false);
    expect(mayBecome({ ...SPEC, priority: 2 }, { ...SPEC, priority: 1 })).toBe(false);
    // Every field there is, so that none is forgotten.
    const text = rules.map(({ rule }) => rule).join('\n');
    for (const name of Object.keys(specSchema.properties!)) {
      expect([name, new RegExp(`self\\.${name} == oldSelf\\.${name}\\b`).test(text)]).toEqual([name, name !== 'suspend']);
    }
  });
});

test('a status is what the columns show', () => {
  const status = {
    phase: 'Running',
    layersFinished: 3,
    layersTotal: 24,
    progress: '3/24',
    conditions: [{ type: 'Accepted', status: 'True', lastTransitionTime: '2026-01-01T00:00:00Z', reason: 'JobCreated', message: '' }],
  };
  expect([isValid(SPEC, status), validate.errors]).toEqual([true, null]);
  expect(isValid(SPEC, { phase: 'Somewhere' })).toBe(false);
});

/** Values that the schema takes: every word, and objects with each of their fields beside those that are needed. */
function examples(property: Schema): unknown[] {
  if (Array.isArray(property['enum'])) return property['enum'];
  const { type, properties, items, pattern } = property;
  if (properties !== undefined) {
    const required = Object.fromEntries(
      ((property['required'] as string[] | undefined) ?? []).map((name) => [name, examples(properties[name]!)[0]]),
    );
    return Object.entries(properties).flatMap(([name, inner]) => examples(inner).map((value) => ({ ...required, [name]: value })));
  }
  if (items !== undefined) return examples(items).map((value) => [value]);
  if (type === 'boolean') return [true];
  if (type === 'string') return [pattern === undefined ? 'x' : '2:4'];
  return [type === 'number' ? 0.25 : 3];
}

describe('the job of a spec', () => {
  const encode = (spec: Spec): string => Buffer.from(JobSpec.encode(jobSpecOf(spec as unknown as PruneJobSpec)).finish()).toString('hex');
  const fields = Object.entries(specSchema.properties!).filter(([name]) => name !== 'suspend');

  test.each(fields)('has %s', (name, property) => {
    const values = examples(property);
    const seen = new Set([encode({ ...SPEC, [name]: undefined, ...(name === 'calibration' ? { calibration: { paths: [''] } } : {}) })]);
    for (const value of values) seen.add(encode({ ...SPEC, [name]: value }));
    const same = values.filter((value) => value === 'unstructured').length;
    const distinct = new Set(values.map((value) => JSON.stringify(value))).size;
    expect(seen.size).toBe(distinct + 1 - same);
  });

  test('is refused with a word that is not known', () => {
    expect(() => encode({ ...SPEC, score: 'best' })).toThrow('score is "best", which this version does not know.');
  });
});

describe('events', () => {
  test('may be created and patched by the controller, and nothing else', async () => {
    const text = await readFile(join(repositoryRoot, 'deploy/k8s/components/controller/access.yaml'), 'utf8');
    const roles = parseAllDocuments(text).map((document) => document.toJS() as { rules?: { apiGroups: string[]; resources: string[] }[] });
    const rules = roles.flatMap((role) => role.rules ?? []).filter(({ resources }) => resources.includes('events'));
    expect(rules).toEqual([{ apiGroups: ['events.k8s.io'], resources: ['events'], verbs: ['create', 'patch'] }]);
  });

  test('have reasons that the documentation lists', async () => {
    const text = await readFile(join(repositoryRoot, 'docs/operations.md'), 'utf8');
    const section = text.slice(text.indexOf('### What happened to a PruneJob'));
    const listed = [...section.matchAll(/^\| `([A-Z]\w+)` +\| (\w+) +\|/gm)].map(([, reason, type]) => [reason, type]);
    expect(listed).toEqual(Object.entries(EVENT_KINDS).map(([reason, { type }]) => [reason, type]));
  });
});
