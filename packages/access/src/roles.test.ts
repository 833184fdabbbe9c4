import { describe, expect, test } from '@jest/globals';
import { KernelServiceDefinition } from '@secateur/proto/kernel_service';
import { PruningServiceDefinition } from '@secateur/proto/pruning_service';
import { TensorServiceDefinition } from '@secateur/proto/tensor_service';
import { TraceServiceDefinition } from '@secateur/proto/trace_service';
import { isAudited, isForServicesOnly, isOpen, mayCall, ROLES, type Role } from './roles.js';

const SERVICES = [KernelServiceDefinition, PruningServiceDefinition, TensorServiceDefinition, TraceServiceDefinition];
const METHODS = SERVICES.flatMap(({ fullName, methods }) => Object.values(methods).map(({ name }) => `${fullName}/${name}`));

/** All that each role may call. */
const EXPECTED: Readonly<Record<Role, readonly string[]>> = {
  orchestrator: ['secateur.v1.KernelService', 'secateur.v1.TensorService', 'secateur.v1.TraceService'],
  'kernel-node': ['secateur.v1.TensorService'],
  user: ['secateur.v1.PruningService'],
  administrator: ['secateur.v1.PruningService'],
};

describe('roles', () => {
  test.each(ROLES)('%s may call what it needs and nothing else', (role) => {
    expect(METHODS.length).toBeGreaterThan(25);
    for (const method of METHODS)
      expect([method, mayCall(role, method)]).toEqual([method, EXPECTED[role].includes(method.split('/')[0] ?? '')]);
  });

  test.each([
    '',
    '/',
    'secateur.v1.PruningService',
    'secateur.v1.PruningServiceX/GetJob',
    'secateur.v1.TensorService/FetchAll',
    'secateur.v2.PruningService/GetJob',
    'x.secateur.v1.PruningService/GetJob',
  ])('nobody may call %j', (method) => {
    for (const role of ROLES) expect(mayCall(role, method)).toBe(false);
  });

  test('health is for all, reflection for all that are known, bytes and tensors for processes of the cluster', () => {
    expect(isOpen('grpc.health.v1.Health/Check')).toBe(true);
    expect(METHODS.some(isOpen)).toBe(false);
    const reflection = 'grpc.reflection.v1.ServerReflection/ServerReflectionInfo';
    expect(isOpen(reflection)).toBe(false);
    for (const role of ROLES) expect(mayCall(role, reflection)).toBe(true);
    expect(METHODS.filter(isForServicesOnly)).toEqual(METHODS.filter((method) => !method.startsWith('secateur.v1.PruningService/')));
  });

  test('what changes jobs is audited, and so is what is not known yet', () => {
    const audited = Object.values(PruningServiceDefinition.methods)
      .map(({ name }) => `secateur.v1.PruningService/${name}`)
      .filter(isAudited);
    const changes = ['CreateJob', 'CancelJob', 'PauseJob', 'ResumeJob', 'DeleteJob'];
    expect(audited).toEqual(changes.map((name) => `secateur.v1.PruningService/${name}`));
    expect(isAudited('secateur.v1.PruningService/AMethodToCome')).toBe(true);
  });
});
