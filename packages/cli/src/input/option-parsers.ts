import { parseCpuList } from '@secateur/core';
import { LayerBudget } from '@secateur/proto/job';
import type { ControlledNamespaces, NodeSource } from '@secateur/orchestrator';
import { InvalidArgumentError } from 'commander';

/** A whole number of at least `minimum`, and at most `maximum` where one is given. */
export function wholeNumber(minimum: number, maximum = Number.MAX_SAFE_INTEGER): (text: string) => number {
  const range = maximum === Number.MAX_SAFE_INTEGER ? `from ${minimum}` : `from ${minimum} to ${maximum}`;
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < minimum || value > maximum) throw new InvalidArgumentError(`It must be a whole number ${range}.`);
    return value;
  };
}

/** A whole number that may be negative. */
export function integer(minimum: number, maximum: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^-?\d+$/.test(text) || value < minimum || value > maximum)
      throw new InvalidArgumentError(`It must be a whole number from ${minimum} to ${maximum}.`);
    return value;
  };
}

/** A share above 0 and below 1. */
export function share(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value > 0 && value < 1))
    throw new InvalidArgumentError('It must be a number above 0 and below 1, such as 0.7.');
  return value;
}

/** A number above 0. */
export function positiveNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !(value > 0 && Number.isFinite(value))) throw new InvalidArgumentError('It must be a number above 0.');
  return value;
}

const LAYER_BUDGETS: Readonly<Record<string, LayerBudget>> = {
  uniform: LayerBudget.UNIFORM,
  owl: LayerBudget.OWL,
  alpha: LayerBudget.ALPHA,
  optimal: LayerBudget.OPTIMAL,
};

/** A way to split the sparsity over layers: one of the words, or else a file of ratios. */
export function layerBudget(text: string): { readonly budget: LayerBudget; readonly file: string } {
  const budget = Object.hasOwn(LAYER_BUDGETS, text) ? LAYER_BUDGETS[text] : undefined;
  return budget === undefined ? { budget: LayerBudget.GIVEN, file: text } : { budget, file: '' };
}

/** One of the values that are offered. */
export function choice<Value>(offered: Readonly<Record<string, Value>>): (text: string) => Value {
  return (text) => {
    const value = Object.hasOwn(offered, text) ? offered[text] : undefined;
    if (value === undefined) throw new InvalidArgumentError(`It must be one of ${Object.keys(offered).join(', ')}.`);
    return value;
  };
}

/** Comma-separated words, which may be given in more than one option: all of them, each once. */
export function choices<Value>(offered: Readonly<Record<string, Value>>): (text: string, earlier: readonly Value[] | undefined) => Value[] {
  const one = choice(offered);
  return (text, earlier = []) => {
    const values = [...earlier, ...text.split(',').map((word) => one(word.trim()))];
    if (new Set(values).size < values.length) throw new InvalidArgumentError('It names something twice.');
    return values;
  };
}

/** `unstructured` as nothing, or N:M as a pattern that drops N of M weights. */
export function groupPattern(text: string): { readonly dropped: number; readonly group: number } | undefined {
  if (text === 'unstructured') return undefined;
  const match = /^(\d{1,6}):(\d{1,6})$/.exec(text);
  if (match === null) throw new InvalidArgumentError('It must be unstructured, or N:M such as 2:4, which drops 2 of every 4 weights.');
  return { dropped: Number(match[1]), group: Number(match[2]) };
}

/** Comma-separated numbers. */
export function numbers(text: string): number[] {
  const values = text.split(',').map((part) => (part.trim() === '' ? Number.NaN : Number(part)));
  if (values.some((value) => !Number.isFinite(value)))
    throw new InvalidArgumentError('It must be numbers separated by commas, such as 0.01,0.02.');
  return values;
}

const MAXIMUM_LAYER = 9999;

/** Blocks from 0, single or from-to, separated by commas. */
export function layerList(text: string): number[] {
  const layers = text.split(',').flatMap((part) => {
    const match = /^\s*(\d{1,4})(?:\s*-\s*(\d{1,4}))?\s*$/.exec(part);
    const first = Number(match?.[1]);
    const last = match?.[2] === undefined ? first : Number(match[2]);
    if (match === null || last < first)
      throw new InvalidArgumentError(`It must be blocks from 0 to ${MAXIMUM_LAYER}, such as 0,31 or 0-3.`);
    return Array.from({ length: last - first + 1 }, (_, index) => first + index);
  });
  return [...new Set(layers)].sort((left, right) => left - right);
}

/** A regular expression and a share: what follows the last equals sign. */
export function projectionTarget(text: string): { readonly pattern: string; readonly sparsity: number } {
  const end = text.lastIndexOf('=');
  if (end < 1) throw new InvalidArgumentError('It must be a regular expression and a sparsity, such as mlp\\.down_proj=0.5.');
  return { pattern: text.slice(0, end), sparsity: share(text.slice(end + 1)) };
}

const UNITS: Readonly<Record<string, number>> = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/** Bytes, with an optional binary unit: 8GiB, 512M, 1073741824. */
export function byteSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$/i.exec(text);
  const bytes = match === null ? Number.NaN : Math.floor(Number(match[1]) * (UNITS[(match[2] ?? '').toUpperCase()] ?? Number.NaN));
  if (!Number.isSafeInteger(bytes) || bytes <= 0) throw new InvalidArgumentError('It must be a size such as 8GiB or 512MiB.');
  return bytes;
}

/** Numbers of processors, as Linux writes them: 0-7,16-23. */
export function cpuList(text: string): number[] {
  const cpus = parseCpuList(text);
  if (cpus === undefined) throw new InvalidArgumentError('It must be processors such as 0-7,16-23, each named once.');
  return cpus;
}

const HOST_PORT = /^(?:\[[0-9a-fA-F:.]+\]|[^\s:/]+):(\d{1,5})$/;

/** HOST:PORT with a port from 0. */
export function hostPort(text: string): string {
  const match = HOST_PORT.exec(text);
  if (match === null || Number(match[1]) > 65_535)
    throw new InvalidArgumentError('It must be HOST:PORT with a port of at most 65535, such as 127.0.0.1:7400.');
  return text;
}

/** HOST:PORT, dns:HOST:PORT or endpointslices:NAMESPACE/SERVICE:PORT; the port of a node that is to be found is never 0. */
export function nodeSource(text: string): NodeSource {
  const dns = /^dns:(?<host>[^\s:/[\]]+):(?<port>\d{1,5})$/.exec(text)?.groups;
  if (dns !== undefined && isPort(dns['port'])) return { kind: 'dns', host: dns['host']!, port: Number(dns['port']) };
  const slices = /^endpointslices:(?<namespace>[a-z0-9-]{1,63})\/(?<service>[a-z0-9-]{1,63}):(?<port>\d{1,5})$/.exec(text)?.groups;
  if (slices !== undefined && isPort(slices['port'])) {
    return { kind: 'endpointslices', namespace: slices['namespace']!, service: slices['service']!, port: Number(slices['port']) };
  }
  if (/^(dns|endpointslices):[^\d]/.test(text) || !HOST_PORT.test(text)) {
    throw new InvalidArgumentError('It must be HOST:PORT, dns:HOST:PORT or endpointslices:NAMESPACE/SERVICE:PORT.');
  }
  return { kind: 'address', address: hostPort(text) };
}

/** A namespace of Kubernetes, or `*` for all. */
export function namespaces(text: string): ControlledNamespaces {
  if (text === '*') return 'all';
  if (!/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(text)) {
    throw new InvalidArgumentError('It must be the name of a namespace, or * for all.');
  }
  return { name: text };
}

function isPort(digits: string | undefined): boolean {
  return Number(digits) > 0 && Number(digits) <= 65_535;
}

/** Collects a repeatable option. */
export function repeatable<Value>(parse: (text: string) => Value): (text: string, earlier: readonly Value[] | undefined) => Value[] {
  return (text, earlier = []) => [...earlier, parse(text)];
}
