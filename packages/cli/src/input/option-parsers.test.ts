import { describe, expect, test } from '@jest/globals';
import { InvalidArgumentError } from 'commander';
import {
  byteSize,
  choice,
  choices,
  cpuList,
  hostPort,
  layerBudget,
  layerList,
  namespaces,
  nodeSource,
  numbers,
  positiveNumber,
  projectionTarget,
  repeatable,
  share,
  wholeNumber,
} from './option-parsers.js';

describe('layerBudget', () => {
  test.each([
    ['uniform', { budget: 1, file: '' }],
    ['owl', { budget: 2, file: '' }],
    ['optimal', { budget: 5, file: '' }],
    ['alpha', { budget: 3, file: '' }],
    ['./owl', { budget: 4, file: './owl' }],
    ['toString', { budget: 4, file: 'toString' }],
  ])('%s', (text, expected) => {
    expect(layerBudget(text)).toEqual(expected);
  });
});

describe('positiveNumber', () => {
  test('takes numbers above 0', () => {
    expect(positiveNumber('0.05')).toBe(0.05);
  });

  test.each(['', '0', '-1', 'a', 'Infinity'])('refuses %p', (text) => {
    expect(() => positiveNumber(text)).toThrow('It must be a number above 0.');
  });
});

describe('layerList', () => {
  test.each([
    ['0', [0]],
    ['0,31', [0, 31]],
    ['2-4, 0 - 1,3', [0, 1, 2, 3, 4]],
  ])('%s', (text, layers) => {
    expect(layerList(text)).toEqual(layers);
  });

  test.each(['', '-1', '3-1', 'a', '1,,2', '1.5', '12345'])('refuses %p', (text) => {
    expect(() => layerList(text)).toThrow(/such as 0,31 or 0-3/);
  });
});

describe('projectionTarget', () => {
  test('splits at the last equals sign', () => {
    expect(projectionTarget('a=b=0.25')).toEqual({ pattern: 'a=b', sparsity: 0.25 });
  });

  test.each(['mlp', '=0.5', 'mlp=', 'mlp=1'])('refuses %p', (text) => {
    expect(() => projectionTarget(text)).toThrow(/It must be a/);
  });
});

describe('byteSize', () => {
  test.each([
    ['1073741824', 2 ** 30],
    ['8GiB', 8 * 2 ** 30],
    ['8G', 8 * 2 ** 30],
    ['512MiB', 512 * 2 ** 20],
    ['1.5k', 1536],
    ['2 TB', 2 * 2 ** 40],
  ])('%s is %d bytes', (text, bytes) => {
    expect(byteSize(text)).toBe(bytes);
  });

  test.each(['', '0', '-1', '8X', 'GiB', '1e9', '99999999T'])('refuses %p', (text) => {
    expect(() => byteSize(text)).toThrow(/size such as/);
  });
});

describe('choices', () => {
  const parse = choices({ boolq: 1, piqa: 2, rte: 3 });

  test('collects words of one option and of several', () => {
    expect(parse('rte', parse('boolq, piqa', undefined))).toEqual([1, 2, 3]);
  });

  test.each(['x', 'boolq,', '', 'boolq,boolq'])('refuses %p', (text) => {
    expect(() => parse(text, undefined)).toThrow(InvalidArgumentError);
  });

  test('refuses what was named before', () => {
    expect(() => parse('piqa', [2])).toThrow(/twice/);
  });
});

describe('share', () => {
  test('takes what lies between 0 and 1', () => {
    expect(share('0.7')).toBe(0.7);
    expect(share('1e-3')).toBe(0.001);
  });

  test.each(['0', '1', '1.5', '-0.1', 'NaN', '', ' ', '70%'])('refuses %p', (text) => {
    expect(() => share(text)).toThrow(/above 0 and below 1/);
  });
});

describe('wholeNumber', () => {
  test('takes digits from its minimum on', () => {
    expect(wholeNumber(0)('0')).toBe(0);
    expect(wholeNumber(1)('2048')).toBe(2048);
  });

  test.each(['0', '-1', '1.5', '1e3', '', 'x', '99999999999999999999'])('refuses %p', (text) => {
    expect(() => wholeNumber(1)(text)).toThrow(/whole number from 1/);
  });
});

describe('hostPort', () => {
  test.each(['127.0.0.1:0', 'node-0.nodes.svc:7401', '[::1]:7400'])('takes %s', (text) => {
    expect(hostPort(text)).toBe(text);
  });

  test.each(['7400', 'host', 'host:', 'host:70000', 'a b:1', '::1:7400'])('refuses %p', (text) => {
    expect(() => hostPort(text)).toThrow(/HOST:PORT/);
  });
});

describe('nodeSource', () => {
  test.each([
    ['10.0.0.5:7401', { kind: 'address', address: '10.0.0.5:7401' }],
    ['[fd00::5]:7401', { kind: 'address', address: '[fd00::5]:7401' }],
    ['dns:7401', { kind: 'address', address: 'dns:7401' }],
    ['dns:nodes.prune.svc.cluster.local:7401', { kind: 'dns', host: 'nodes.prune.svc.cluster.local', port: 7401 }],
    ['endpointslices:prune/nodes:7401', { kind: 'endpointslices', namespace: 'prune', service: 'nodes', port: 7401 }],
  ])('takes %s', (text, expected) => {
    expect(nodeSource(text)).toEqual(expected);
  });

  test.each([
    'nodes',
    'dns:nodes',
    'dns:nodes:0',
    'dns:nodes:70000',
    'endpointslices:nodes:7401',
    'endpointslices:prune/nodes',
    'srv:nodes:1',
  ])('refuses %p', (text) => {
    expect(() => nodeSource(text)).toThrow(/endpointslices:NAMESPACE\/SERVICE:PORT/);
  });
});

test('cpuList takes ranges and refuses what is no list', () => {
  expect(cpuList('0-2,16')).toEqual([0, 1, 2, 16]);
  for (const text of ['', '0,0', '3-1', 'all', '0-9999999999']) expect(() => cpuList(text)).toThrow(/such as 0-7,16-23, each named once/);
});

test('numbers takes a list and refuses what is none', () => {
  expect(numbers('0.01,0.02')).toEqual([0.01, 0.02]);
  for (const text of ['', '1,', 'a', '1,NaN']) expect(() => numbers(text)).toThrow(/separated by commas/);
});

test('choice names what is offered when it is asked for something else', () => {
  const parse = choice({ wanda: 1, magnitude: 2 });
  expect(parse('magnitude')).toBe(2);
  expect(() => parse('sparsegpt')).toThrow('It must be one of wanda, magnitude.');
  expect(() => parse('toString')).toThrow(/must be one of/);
});

test('repeatable keeps all values in order', () => {
  const parse = repeatable(hostPort);
  expect(parse('b:2', parse('a:1', undefined))).toEqual(['a:1', 'b:2']);
});

describe('namespaces', () => {
  test.each([
    ['prune', { name: 'prune' }],
    ['*', 'all'],
  ])('reads %s', (text, expected) => {
    expect(namespaces(text)).toEqual(expected);
  });

  test.each(['', 'Prune', 'a/b', '-a', 'a'.repeat(64)])('refuses %j', (text) => {
    expect(() => namespaces(text)).toThrow('It must be the name of a namespace, or * for all.');
  });
});
