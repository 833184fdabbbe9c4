import { SecateurError } from '@secateur/core';
import type { GramMatrix, PeerResource, ReducedStatistics } from '@secateur/proto/kernel_service';
import type { InputSite } from '@secateur/proto/statistics';
import type { Crew } from '../scheduler/crew.js';
import type { NodeSession } from '../scheduler/node-session.js';

/** What a member's groups add to the Gram matrix of a site. */
interface Part {
  readonly member: NodeSession;
  readonly site: InputSite;
  readonly groups: readonly number[];
  readonly resource: PeerResource;
  /** Of its samples that are held out, which the other is without. */
  readonly heldOut: PeerResource | undefined;
  /** Of the drift of its inputs. */
  readonly drift: PeerResource | undefined;
}

interface Matrix {
  readonly member: NodeSession;
  readonly resource: PeerResource;
  readonly heldOut: PeerResource | undefined;
  readonly drift: PeerResource | undefined;
}

export interface GramMatricesOptions {
  readonly crew: Crew;
  readonly shardId: string;
  /** Number of input columns of each site. */
  readonly sites: ReadonlyMap<InputSite, number>;
  /** Some samples of every group are held out: they have matrices of their own. */
  readonly holdOut: boolean;
  /** Number of rows of each site's drift; undefined where repairs have no dense targets. */
  readonly driftRows: ReadonlyMap<InputSite, number> | undefined;
  readonly groupCount: number;
  /** Runs the block on some groups once more, which adds their inputs to the sums of the members that hold them. */
  readonly collectAgain: (groups: ReadonlySet<number>, signal: AbortSignal) => Promise<void>;
}

/**
 * The Gram matrices of the inputs that a stage repairs by. Sums stay on the members whose groups made them; one member a site adds them up
 * and serves the matrix to the others. What a lost member held is made again from its groups, on those that hold them now.
 */
export class GramMatrices {
  private parts: Part[] = [];
  private readonly matrices = new Map<InputSite, Matrix>();

  constructor(private readonly options: GramMatricesOptions) {}

  /** Sees to it that a living member has the matrix of each site. */
  async ensure(signal: AbortSignal): Promise<void> {
    const { crew, collectAgain } = this.options;
    while (!this.isComplete()) {
      await crew.each((member, linked) => this.takeSums(member, linked), signal);
      const missing = this.missingGroups();
      if (missing.size > 0) {
        await collectAgain(missing, signal);
        continue;
      }
      await this.reduce(signal);
    }
  }

  /** Where a member finds the matrices of a site. */
  of(site: InputSite, member: NodeSession): Pick<ReducedStatistics, 'gramMatrix' | 'heldOutGramMatrix' | 'drift'> {
    const matrix = this.matrices.get(site);
    if (matrix === undefined) throw new SecateurError('INTERNAL', `The Gram matrix of input ${site} was asked for before it was made.`);
    const { resource, heldOut, drift } = matrix;
    return {
      gramMatrix: from(matrix.member, resource, member),
      heldOutGramMatrix: heldOut && from(matrix.member, heldOut, member),
      drift: drift && from(matrix.member, drift, member),
    };
  }

  private isComplete(): boolean {
    const { crew, sites } = this.options;
    this.parts = this.parts.filter(({ member }) => crew.has(member));
    for (const [site, { member }] of this.matrices) if (!crew.has(member)) this.matrices.delete(site);
    return this.matrices.size === sites.size;
  }

  private async takeSums(member: NodeSession, signal: AbortSignal): Promise<void> {
    const { shardId, sites, holdOut, driftRows } = this.options;
    // A member that joined late has nothing of the block yet.
    if (!member.holds(shardId)) return;
    for (const { site, groupIndices, resource, heldOut, drift } of await member.publishGramSums(shardId, [...sites.keys()], signal)) {
      if (resource === undefined || (heldOut !== undefined) !== holdOut || (drift === undefined) !== (driftRows === undefined)) {
        throw new SecateurError('CORRUPT_DATA', `Node ${member.node.name} published other sums of input ${site} than were asked for.`);
      }
      this.parts.push({ member, site, groups: groupIndices, resource, heldOut, drift });
    }
  }

  /** Groups that are not in the sums of every site. */
  private missingGroups(): Set<number> {
    const { sites, groupCount } = this.options;
    const missing = new Set<number>();
    for (const site of sites.keys()) {
      const counts = new Array<number>(groupCount).fill(0);
      for (const part of this.parts.filter((candidate) => candidate.site === site)) {
        for (const group of part.groups) counts[group]! += 1;
      }
      if (counts.some((count) => count > 1)) {
        throw new SecateurError('INTERNAL', `A calibration group was added twice to the Gram matrix of input ${site}.`);
      }
      for (const [group, count] of counts.entries()) if (count === 0) missing.add(group);
    }
    return missing;
  }

  /** Gives each matrix that is missing to one of the members, in turn. */
  private async reduce(signal: AbortSignal): Promise<void> {
    const { crew, sites, holdOut, driftRows } = this.options;
    const members = [...new Set(this.parts.map(({ member }) => member))];
    const shares = new Map<NodeSession, InputSite[]>();
    for (const [place, site] of [...sites.keys()].filter((candidate) => !this.matrices.has(candidate)).entries()) {
      const member = members[place % members.length]!;
      shares.set(member, [...(shares.get(member) ?? []), site]);
    }
    await crew.each(async (member, linked) => {
      const share = shares.get(member);
      if (share === undefined) return;
      const wanted = (sumsOf: (part: Part) => PeerResource | undefined, rowsOf?: ReadonlyMap<InputSite, number>): GramMatrix[] =>
        share.map((site) => ({
          columns: sites.get(site)!,
          driftRows: rowsOf?.get(site) ?? 0,
          sums: this.parts.filter((part) => part.site === site).map((part) => from(part.member, sumsOf(part)!, member)),
        }));
      const reduce = (matrices: readonly GramMatrix[]): Promise<readonly PeerResource[]> => member.reduceGramMatrices(matrices, linked);
      const grams = await reduce(wanted((part) => part.resource));
      const heldOut = holdOut ? await reduce(wanted((part) => part.heldOut)) : [];
      const drifts = driftRows === undefined ? [] : await reduce(wanted((part) => part.drift, driftRows));
      for (const [place, site] of share.entries()) {
        this.matrices.set(site, { member, resource: grams[place]!, heldOut: heldOut[place], drift: drifts[place] });
      }
    }, signal);
  }
}

/** How one member reaches what another serves. */
function from(owner: NodeSession, resource: PeerResource, reader: NodeSession): PeerResource {
  return { ...resource, endpoint: owner === reader ? '' : owner.node.address };
}
