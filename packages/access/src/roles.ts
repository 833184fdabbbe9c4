/** What the parties of a cluster are, and the methods that each may call. Whatever is not allowed here is refused. */

/** Before the names of the methods that users call. */
export const PRUNING = 'secateur.v1.PruningService/';
const KERNEL = 'secateur.v1.KernelService/';
const TRACE = 'secateur.v1.TraceService/';
const FETCH = 'secateur.v1.TensorService/Fetch';
const REFLECTION = 'grpc.reflection.';
const HEALTH = 'grpc.health.';

export const ROLES = ['orchestrator', 'kernel-node', 'user', 'administrator'] as const;
export type Role = (typeof ROLES)[number];

/** Roles of people and programs that use the service; the others are of its own processes. */
export const USER_ROLES = ['user', 'administrator'] as const satisfies readonly Role[];
export type UserRole = (typeof USER_ROLES)[number];

/** Whole names of methods, or beginnings, which end in `/` or `.`. */
const ALLOWED: Readonly<Record<Role, readonly string[]>> = {
  orchestrator: [KERNEL, TRACE, FETCH, REFLECTION],
  'kernel-node': [FETCH, REFLECTION],
  user: [PRUNING, REFLECTION],
  administrator: [PRUNING, REFLECTION],
};

/** Methods that change nothing. All others of PruningService go to the audit log, also those to come. */
const READS = ['PlanJob', 'GetJob', 'ListJobs', 'WatchJob', 'GetReport', 'GetTrace', 'ListNodes'].map((name) => PRUNING + name);

export function mayCall(role: Role, method: string): boolean {
  return ALLOWED[role].some((allowed) => method === allowed || (/[/.]$/.test(allowed) && method.startsWith(allowed)));
}

/** Health is asked for by load balancers and probes, which have no name. */
export function isOpen(method: string): boolean {
  return method.startsWith(HEALTH);
}

/** Whether only processes of the cluster may call it. */
export function isForServicesOnly(method: string): boolean {
  return !USER_ROLES.some((role) => mayCall(role, method));
}

/** Whether a call may change something that outlives it. What processes do for each other belongs to jobs, which are audited. */
export function isAudited(method: string): boolean {
  return method.startsWith(PRUNING) && !READS.includes(method);
}

export function isUserRole(role: Role): role is UserRole {
  return (USER_ROLES as readonly Role[]).includes(role);
}
