import type { Engine } from '@secateur/native';
import { SecateurError } from '@secateur/core';
import { OpenSessionRequest } from '@secateur/proto/kernel_service';
import { toEngineArchitecture, toEnginePrecision, withServiceErrors } from '../engine/wire-types.js';
import { KernelSession, type SessionNode } from './kernel-session.js';
import { largestSession } from './plan-memory.js';

/** A session nobody has called for this long belongs to an orchestrator that is gone. Orchestrators renew theirs every 20 s. */
const ABANDONED_AFTER_MS = 2 * 60_000;
const SWEEP_EVERY_MS = 10_000;
const MAXIMUM_SESSIONS = 64;
/** Calls of one step follow each other much faster. A node that drains and is called no more for so long is waited for by nobody. */
const QUIET_MS = 3_000;

interface Entry {
  readonly session: KernelSession;
  lastUsedMs: number;
  callsRunning: number;
}

/** The sessions of this node, closed when their owner closes them or is gone. */
export class SessionRegistry {
  private readonly entries = new Map<string, Entry>();
  private readonly sweeper: NodeJS.Timeout;
  private draining = false;
  private onChange: () => void = () => undefined;

  constructor(
    private readonly engine: Engine,
    private readonly node: SessionNode,
    private readonly onAbandoned: (sessionId: string) => void,
  ) {
    this.sweeper = setInterval(() => this.closeAbandoned(), SWEEP_EVERY_MS);
    this.sweeper.unref();
  }

  get size(): number {
    return this.entries.size;
  }

  async open(request: OpenSessionRequest): Promise<void> {
    if (request.renewOnly) {
      this.find(request.sessionId).lastUsedMs = performance.now();
      return;
    }
    const existing = this.entries.get(request.sessionId);
    if (existing !== undefined) {
      if (!sameRequest(existing.session.request, request)) {
        throw new SecateurError(
          'ALREADY_EXISTS',
          `Session ${request.sessionId} is open with another content; close it or choose another id.`,
        );
      }
      existing.lastUsedMs = performance.now();
      return;
    }
    if (this.draining) throw new SecateurError('UNAVAILABLE', 'This node is draining; it takes no new sessions.');
    if (request.sessionId === '' || request.architecture === undefined || request.tensorEndpoint === '') {
      throw new SecateurError('INVALID_REQUEST', 'OpenSession needs session_id, architecture and tensor_endpoint.');
    }
    await this.closeSuperseded(request);
    if (this.entries.size >= MAXIMUM_SESSIONS) {
      throw new SecateurError('RESOURCE_EXHAUSTED', `This node holds ${MAXIMUM_SESSIONS} sessions, the most it takes.`);
    }
    const { architecture, workload } = request;
    const engineSession = withServiceErrors(() =>
      workload === undefined
        ? this.engine.openSession(toEngineArchitecture(architecture), toEnginePrecision(request))
        : this.engine.openSession(...largestSession(this.engine, architecture, request, workload)),
    );
    const session = new KernelSession(request, engineSession, this.node);
    this.entries.set(request.sessionId, { session, lastUsedMs: performance.now(), callsRunning: 0 });
  }

  /** Runs a call with one answer on a session, which is not taken for abandoned meanwhile. */
  async use<Answer>(sessionId: string, call: (session: KernelSession) => Promise<Answer>): Promise<Answer> {
    const entry = this.begin(sessionId);
    try {
      return await call(entry.session);
    } finally {
      this.end(entry);
    }
  }

  /** The same for a call that streams. */
  async *stream<Part>(sessionId: string, call: (session: KernelSession) => AsyncIterable<Part>): AsyncGenerator<Part, void> {
    const entry = this.begin(sessionId);
    try {
      yield* call(entry.session);
    } finally {
      this.end(entry);
    }
  }

  private begin(sessionId: string): Entry {
    const entry = this.find(sessionId);
    entry.callsRunning += 1;
    this.onChange();
    return entry;
  }

  private find(sessionId: string): Entry {
    const entry = this.entries.get(sessionId);
    if (entry === undefined) {
      throw new SecateurError('NOT_FOUND', `No session ${sessionId} is open on this node; it may have restarted.`);
    }
    return entry;
  }

  private end(entry: Entry): void {
    entry.callsRunning -= 1;
    entry.lastUsedMs = performance.now();
    this.onChange();
  }

  async close(sessionId: string): Promise<void> {
    const entry = this.entries.get(sessionId);
    if (entry === undefined) return;
    this.entries.delete(sessionId);
    this.onChange();
    await entry.session.close();
  }

  /**
   * Takes no new sessions, and resolves when those there are have been closed or are used no more, at the latest after `timeoutMs`. Their
   * calls go on, as an orchestrator that has seen the node drain lets it finish the step it is in.
   */
  drain(timeoutMs: number): Promise<void> {
    this.draining = true;
    return new Promise((resolve) => {
      let quiet: NodeJS.Timeout | undefined;
      const finish = (): void => {
        clearTimeout(limit);
        clearTimeout(quiet);
        this.onChange = () => undefined;
        resolve();
      };
      const limit = setTimeout(finish, timeoutMs);
      this.onChange = () => {
        clearTimeout(quiet);
        if (this.entries.size === 0) finish();
        else if ([...this.entries.values()].every(({ callsRunning }) => callsRunning === 0)) quiet = setTimeout(finish, QUIET_MS);
      };
      this.onChange();
    });
  }

  async closeAll(): Promise<void> {
    clearInterval(this.sweeper);
    await Promise.all([...this.entries.keys()].map((sessionId) => this.close(sessionId)));
  }

  /** An orchestrator that lost a job cannot close its sessions, and their memory is wanted by the one that goes on. */
  private async closeSuperseded({ jobId, lease }: OpenSessionRequest): Promise<void> {
    const superseded = [...this.entries].filter(
      ([
        ,
        {
          session: { request },
        },
      ]) => request.jobId === jobId && request.lease < lease,
    );
    await Promise.all(
      superseded.map(([sessionId]) => {
        this.onAbandoned(sessionId);
        return this.close(sessionId);
      }),
    );
  }

  private closeAbandoned(): void {
    const oldest = performance.now() - ABANDONED_AFTER_MS;
    for (const [sessionId, entry] of this.entries) {
      if (entry.callsRunning === 0 && entry.lastUsedMs < oldest) {
        this.onAbandoned(sessionId);
        void this.close(sessionId);
      }
    }
  }
}

function sameRequest(left: OpenSessionRequest, right: OpenSessionRequest): boolean {
  return Buffer.from(OpenSessionRequest.encode(left).finish()).equals(OpenSessionRequest.encode(right).finish());
}
