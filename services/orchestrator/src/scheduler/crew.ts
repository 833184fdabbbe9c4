import { SecateurError } from '@secateur/core';
import type { NodeReport } from '@secateur/proto/pruning_service';
import { Dealer } from './dealer.js';
import { isNodeLoss, isWrongAnswer, type NodePool, type PoolNode } from './node-pool.js';
import { NodeSession, type SessionContext, type SessionSources } from './node-session.js';
import { ShardSources } from './shard-sources.js';
import { sideBySide } from './side-by-side.js';

/** How long the first step waits for the configured nodes to answer before it begins with those that did. */
const GATHER_TIMEOUT_MS = 10_000;
/** How long a job whose nodes are all gone waits for one to come back. */
const REPLACEMENT_TIMEOUT_MS = 60_000;
/** A node that failed a job this often is not asked again by it. */
const MAXIMUM_LOSSES = 3;

export interface CrewEvents {
  onJoined(node: PoolNode): void;
  onLost(node: PoolNode, reason: string): void;
}

export interface DealOptions<Part, Result> {
  readonly signal: AbortSignal;
  /** Comes before the first part, and again whenever nodes were lost. */
  readonly begin?: ((signal: AbortSignal) => Promise<void>) | undefined;
  /** Parts that a member works on side by side; one if not told otherwise. */
  readonly atOnce?: number;
  /** Makes a member ready, before its first part. */
  readonly prepare?: (member: NodeSession, signal: AbortSignal) => Promise<void>;
  /** What a part takes, compared to others: then nodes that have nothing left to do begin what another takes much too long for. */
  readonly costOf?: (part: Part) => number;
  /** Told what each part gave, as soon as it is there. */
  readonly onDone?: (result: Result) => void;
}

/** The nodes that work on one job. Members are lost when they fail; between steps healthy nodes join, and those leave that want to. */
export class Crew {
  private readonly members = new Set<NodeSession>();
  private readonly sources: SessionSources = { shards: new ShardSources(), masks: new ShardSources() };
  private readonly reports = new Map<string, NodeReport>();
  private readonly losses = new Map<PoolNode, number>();
  /** Nodes that answered what cannot be right, and what that was. */
  private readonly wrong = new Map<PoolNode, unknown>();
  private gathered = false;
  /** Hands over what members hold that are about to be let go. They can still be asked for it. */
  beforeLeaving: (leaving: readonly NodeSession[], staying: readonly NodeSession[], signal: AbortSignal) => Promise<void> = () =>
    Promise.resolve();

  constructor(
    private readonly pool: Pick<NodePool, 'nodes' | 'healthy' | 'settle'>,
    /** What sessions are opened with when so many nodes share the work. */
    private contextFor: (nodes: number) => SessionContext,
    private readonly maximumNodes: number,
    private readonly events: CrewEvents,
  ) {}

  has(member: NodeSession): boolean {
    return this.members.has(member);
  }

  /** The members, at least one; those that are leaving are let go and healthy nodes join first. Throws UNAVAILABLE when there is none for a minute. */
  async gather(signal: AbortSignal): Promise<readonly NodeSession[]> {
    if (!this.gathered) {
      await this.pool.settle(Math.min(this.pool.nodes.length, this.maximumNodes), GATHER_TIMEOUT_MS, signal);
      this.gathered = true;
    }
    await this.letGo(signal);
    await this.admit(signal);
    const until = performance.now() + REPLACEMENT_TIMEOUT_MS;
    while (this.members.size === 0 && performance.now() < until) {
      const { nodes } = this.pool;
      if (nodes.length > 0 && nodes.every((node) => this.wrong.has(node))) throw this.wrong.get(nodes.at(-1)!);
      if (signal.aborted) throw new SecateurError('CANCELLED', 'The job was cancelled.');
      await this.pool.settle(1, until - performance.now(), signal);
      await this.admit(signal);
    }
    if (this.members.size === 0) {
      const states = this.pool.nodes.map((node) => `${node.address} (${node.reason === '' ? 'healthy' : node.reason})`);
      throw new SecateurError('UNAVAILABLE', `No kernel node can be used: ${states.join(', ') || 'none is configured'}.`);
    }
    return [...this.members];
  }

  /**
   * Runs work on all members side by side. A member whose node fails leaves the crew and the others go on;
   * any other error stops all and is thrown.
   */
  async each(work: (member: NodeSession, signal: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<void> {
    await this.among(await this.gather(signal), work, signal);
  }

  /** The same on some of the members, without letting others in or any go first. */
  async among(
    members: readonly NodeSession[],
    work: (member: NodeSession, signal: AbortSignal) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    const stop = new AbortController();
    const linked = AbortSignal.any([signal, stop.signal]);
    const failures: unknown[] = [];
    await Promise.all(
      members.map(async (member) => {
        try {
          await work(member, linked);
        } catch (error) {
          if (isNodeLoss(error) && !linked.aborted) {
            this.loseCulprit(member, error);
          } else {
            failures.push(error);
            stop.abort(error);
          }
        }
      }),
    );
    if (signal.aborted) throw new SecateurError('CANCELLED', 'The job was cancelled.', { cause: signal.reason });
    if (failures.length > 0) throw failures[0];
  }

  /**
   * Deals parts of a work out, each to whoever is free, and returns what they give, in the order of the parts: see Dealer. What a lost node had
   * begun is taken by another, and one that is leaving takes no more.
   */
  async deal<Part, Result>(
    parts: readonly Part[],
    work: (member: NodeSession, part: Part, signal: AbortSignal) => Promise<Result>,
    { signal, begin, atOnce = 1, prepare, costOf, onDone }: DealOptions<Part, Result>,
  ): Promise<Result[]> {
    const dealer = new Dealer<Part, NodeSession>(parts, costOf);
    const results = new Array<Result>(parts.length);
    while (!dealer.finished) {
      await begin?.(signal);
      await this.each(async (member, linked) => {
        let ready: Promise<void> | undefined;
        const workThrough = async (own: AbortSignal): Promise<void> => {
          while (!member.node.leaving) {
            const taken = await dealer.take(member, own, this.members.size);
            if (taken === undefined) return;
            try {
              await (ready ??= prepare?.(member, linked));
              const result = await work(member, taken.part, AbortSignal.any([own, taken.signal]));
              if (!dealer.finish(taken, member)) continue;
              results[taken.index] = result;
              onDone?.(result);
            } catch (error) {
              if (taken.signal.aborted) continue;
              dealer.giveUp(taken, member);
              throw error;
            }
          }
        };
        await sideBySide(new Array<typeof workThrough>(atOnce).fill(workThrough), linked);
      }, signal);
    }
    return results;
  }

  /** The nodes that took part, with the memory they took so far. */
  async report(): Promise<NodeReport[]> {
    await Promise.all(
      [...this.members].map(async ({ node }) => {
        // A node that does not answer any more has done its work all the same.
        const peakResidentBytes = await node.describe().then(
          () => node.description?.peakResidentBytes ?? 0,
          () => 0,
        );
        const report = this.reports.get(node.address);
        if (report !== undefined) this.reports.set(node.address, { ...report, peakResidentBytes });
      }),
    );
    return [...this.reports.values()];
  }

  /** Another part of the job begins, which asks other things of the nodes: their sessions end, and the next step opens new ones. */
  async turnTo(contextFor: (nodes: number) => SessionContext): Promise<void> {
    await this.close();
    this.contextFor = contextFor;
  }

  async close(): Promise<void> {
    await Promise.all([...this.members].map((member) => member.close()));
    this.members.clear();
  }

  /** Those that are leaving go, once the others have what they will need of theirs. */
  private async letGo(signal: AbortSignal): Promise<void> {
    const leaving = [...this.members].filter(({ node }) => node.leaving);
    const staying = [...this.members].filter(({ node }) => !node.leaving);
    if (leaving.length > 0 && staying.length > 0) await this.beforeLeaving(leaving, staying, signal);
    for (const member of leaving) this.remove(member, member.node.reason);
  }

  /** Nodes that have no room for their part are left out, and the others do theirs, as long as there are others. */
  private async admit(signal: AbortSignal): Promise<void> {
    const taken = new Set([...this.members].map((member) => member.node));
    let candidates: readonly PoolNode[] = this.pool.healthy
      .filter((node) => !taken.has(node) && (this.losses.get(node) ?? 0) < MAXIMUM_LOSSES)
      .slice(0, Math.max(0, this.maximumNodes - this.members.size));
    while (candidates.length > 0) {
      const { opened, full } = await this.openSessions(candidates, signal);
      const isEnough = this.members.size > 0 || full.size === 0;
      if (isEnough) {
        for (const member of opened) this.add(member);
        return;
      }
      await Promise.all(opened.map((member) => member.close()));
      candidates = opened.map(({ node }) => node);
      const [error] = full.values();
      if (candidates.length === 0 && error !== undefined) throw error;
      for (const [node, error] of full) this.leaveOut(node, error);
    }
  }

  /** Opens a session on each of the nodes that can be reached, unless one refuses it for another reason than that it has no room. */
  private async openSessions(
    nodes: readonly PoolNode[],
    signal: AbortSignal,
  ): Promise<{ readonly opened: readonly NodeSession[]; readonly full: ReadonlyMap<PoolNode, SecateurError> }> {
    const context = this.contextFor(this.members.size + nodes.length);
    const opened: NodeSession[] = [];
    const full = new Map<PoolNode, SecateurError>();
    const refusals: unknown[] = [];
    await Promise.all(
      nodes.map(async (node) => {
        try {
          opened.push(await NodeSession.open(node, context, this.sources, signal));
        } catch (error) {
          if (isFull(error)) full.set(node, error);
          else if (isNodeLoss(error)) node.healthy = false;
          else refusals.push(error);
        }
      }),
    );
    if (refusals.length > 0) {
      await Promise.all(opened.map((member) => member.close()));
      throw refusals[0];
    }
    // In the order of the nodes, not that of their answers.
    opened.sort((left, right) => nodes.indexOf(left.node) - nodes.indexOf(right.node));
    return { opened, full };
  }

  private add(member: NodeSession): void {
    const { node, plannedResidentBytes } = member;
    this.members.add(member);
    const known = this.reports.get(node.address);
    this.reports.set(node.address, {
      address: node.address,
      name: node.name,
      engine: node.description?.engine,
      lost: '',
      plannedResidentBytes: Math.max(known?.plannedResidentBytes ?? 0, plannedResidentBytes),
      peakResidentBytes: 0,
    });
    if (known?.lost !== '') this.events.onJoined(node);
  }

  private leaveOut(node: PoolNode, { message }: SecateurError): void {
    const { address, name } = node;
    this.reports.set(address, {
      address,
      name,
      engine: node.description?.engine,
      lost: message,
      plannedResidentBytes: 0,
      peakResidentBytes: 0,
    });
    this.events.onLost(node, message);
  }

  /** A member that pulled from another names it when that failed; who is lost already is not lost again, and the work is tried anew. */
  private loseCulprit(member: NodeSession, error: unknown): void {
    const peer = error instanceof SecateurError ? error.metadata['peer'] : undefined;
    const culprit = peer === undefined ? member : [...this.members].find(({ node }) => node.address === peer);
    if (culprit !== undefined) this.lose(culprit, error);
  }

  private lose(member: NodeSession, error: unknown): void {
    if (!this.members.has(member)) return;
    if (!member.node.leaving) {
      this.losses.set(member.node, isWrongAnswer(error) ? MAXIMUM_LOSSES : (this.losses.get(member.node) ?? 0) + 1);
      if (isWrongAnswer(error)) this.wrong.set(member.node, error);
      // Until the pool sees it healthy again.
      member.node.healthy = false;
      member.node.reason = error instanceof Error ? error.message : String(error);
    }
    this.remove(member, member.node.reason);
  }

  private remove(member: NodeSession, reason: string): void {
    this.members.delete(member);
    const report = this.reports.get(member.node.address);
    if (report !== undefined) this.reports.set(member.node.address, { ...report, lost: reason });
    this.events.onLost(member.node, reason);
    void member.close();
  }
}

function isFull(error: unknown): error is SecateurError {
  return error instanceof SecateurError && error.reason === 'RESOURCE_EXHAUSTED';
}
