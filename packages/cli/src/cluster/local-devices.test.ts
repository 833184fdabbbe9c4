import { describe, expect, test } from '@jest/globals';
import { describeMachine, environmentsOfNodes, type Machine } from './local-devices.js';

const machine: Machine = { processors: 16, devices: 0, visibleDevices: undefined };

describe('nodes on a machine', () => {
  test('are two where there is no device, one on a single processor, and as many as asked for', () => {
    expect(environmentsOfNodes(undefined, machine)).toEqual([{}, {}]);
    expect(environmentsOfNodes(undefined, { ...machine, processors: 1 })).toEqual([{}]);
    expect(environmentsOfNodes(3, machine)).toEqual([{}, {}, {}]);
  });

  test('are one with one device, which they share if more are asked for', () => {
    expect(environmentsOfNodes(undefined, { ...machine, devices: 1 })).toEqual([{}]);
    expect(environmentsOfNodes(2, { ...machine, devices: 1, visibleDevices: '3' })).toEqual([{}, {}]);
  });

  test('have a device each, in turn where they are more', () => {
    const several = { ...machine, devices: 3 };
    const indexes = (nodes: number | undefined, of = several): (string | undefined)[] =>
      environmentsOfNodes(nodes, of).map((environment) => environment['CUDA_VISIBLE_DEVICES']);
    expect(indexes(undefined)).toEqual(['0', '1', '2']);
    expect(indexes(2)).toEqual(['0', '1']);
    expect(indexes(4)).toEqual(['0', '1', '2', '0']);
    const chosen = { ...several, devices: 2, visibleDevices: '5,GPU-1a2b' };
    expect(indexes(undefined, chosen)).toEqual(['5', 'GPU-1a2b']);
    // CUDA stops at the first that is none.
    expect(indexes(undefined, { ...several, devices: 2, visibleDevices: '1,0,-1,2' })).toEqual(['1', '0']);
  });

  test('look for devices only where they may use them', async () => {
    expect((await describeMachine('cpu')).devices).toBe(0);
    expect((await describeMachine('auto')).devices).toBeGreaterThanOrEqual(0);
  });
});
