import { CHUNK_BYTES, SecateurError } from '@secateur/core';
import type { TokenRange } from '@secateur/native';
import type { ServiceImplementation } from '@secateur/rpc';
import {
  HiddenStream,
  type EngineDescription,
  type KernelServiceDefinition,
  type MeasureLossRequest,
} from '@secateur/proto/kernel_service';
import { recordSearchSteps } from '../engine/record-search-steps.js';
import { toEngineSite, toEngineSites, toWireSite } from '../engine/wire-types.js';
import { peakResidentBytes } from '../machine/peak-resident-bytes.js';
import { planMemory, type NodeMemory } from '../session/plan-memory.js';
import type { SessionRegistry } from '../session/session-registry.js';
import { runAhead } from './run-ahead.js';

export interface KernelServiceOptions {
  readonly name: string;
  readonly description: EngineDescription;
  readonly sessions: SessionRegistry;
  readonly memory: NodeMemory;
}

/** The gRPC surface of a node: unpacks requests, finds the session, packs answers. */
export function createKernelService({
  name,
  description,
  sessions,
  memory,
}: KernelServiceOptions): ServiceImplementation<KernelServiceDefinition> {
  const { engine, memoryBudgetBytes } = memory;
  return {
    describeNode: () =>
      Promise.resolve({
        name,
        engine: description,
        sessions: sessions.size,
        memoryBudgetBytes,
        memoryUsedBytes: engine.memoryUsedBytes(),
        peakResidentBytes: peakResidentBytes(),
      }),

    planSession: (request) => Promise.resolve({ plan: planMemory(memory, request) }),

    openSession: async (request) => {
      const plan = request.renewOnly ? undefined : request.workload && planMemory(memory, request);
      await sessions.open(request);
      return { plan };
    },

    loadShard: (request) =>
      sessions.use(request.sessionId, (session) => {
        if (request.shard === undefined) throw new SecateurError('INVALID_REQUEST', 'LoadShard needs a shard.');
        return session.loadShard(request.shard, request.peer);
      }),

    releaseShard: async (request) => {
      await sessions.use(request.sessionId, (session) => session.releaseShard(request.shardId));
      return {};
    },

    embed: async (request, { signal }) => {
      await sessions.use(request.sessionId, (session) => session.embed(request.shardId, request.groups, signal));
      return {};
    },

    collectStatistics: (request, { signal }) =>
      sessions.stream(request.sessionId, async function* (session) {
        const { sketches } = request;
        const grams = { sites: request.gramSites.map(toEngineSite), holdOut: request.holdOut };
        const wanted = { sites: toEngineSites(request.sites), grams, sketches };
        const collect = (groupIndex: number) => session.collectStatistics(request.shardId, groupIndex, wanted, signal);
        for await (const [groupIndex, sites] of runAhead(request.groupIndices, collect)) {
          for (const [position, statistics] of sites.entries()) {
            yield {
              groupIndex,
              statistics: {
                site: toWireSite(statistics.site),
                sumsOfSquares: viewBytes(statistics.sumsOfSquares),
                qualityInputs: viewBytes(statistics.qualityInputs),
              },
              groupDone: position === sites.length - 1,
            };
          }
        }
      }),

    allocateRows: (request, { signal }) =>
      sessions.stream(request.sessionId, async function* (session) {
        const started = performance.now();
        const { rows, swap, repaired } = await session.allocateRows(request, signal);
        const seconds = (performance.now() - started) / 1000;
        recordSearchSteps(rows.steps);
        const { learningRate, bestStep, mask } = rows;
        yield {
          part: {
            $case: 'rows' as const,
            value: {
              record: {
                baselineQuality: rows.baselineQuality,
                bestQuality: rows.bestQuality,
                ...(learningRate === null ? {} : { learningRate }),
                ...(bestStep === null ? {} : { bestStep }),
                varianceBefore: rows.varianceBefore,
                varianceAfter: rows.varianceAfter,
                dropped: rows.dropped,
              },
              rowSparsities: viewBytes(rows.rowSparsities),
              droppedPerRow: viewBytes(rows.droppedPerRow),
              seconds,
              repair: repaired && { errorBefore: repaired.errorBefore, errorAfter: repaired.errorAfter, damping: repaired.damping },
              swap,
            },
          },
        };
        for (const chunk of chunksOf(mask)) yield { part: { $case: 'mask' as const, value: chunk } };
        for (const chunk of chunksOf(repaired?.weights)) yield { part: { $case: 'weights' as const, value: chunk } };
      }),

    countOutliers: (request, { signal }) => sessions.use(request.sessionId, (session) => session.countOutliers(request, signal)),

    measureSensitivity: (request, { signal }) =>
      sessions.stream(request.sessionId, async function* (session) {
        // All groups in one call: what each projection loses is chosen once.
        for (const [place, { outputEnergy, errors }] of (await session.measureSensitivity(request, signal)).entries()) {
          yield { groupIndex: request.groupIndices[place]!, outputEnergy, errors: Array.from(errors) };
        }
      }),

    findEigenvalues: ({ sessionId, shardId, projections }, { signal }) =>
      sessions.stream(sessionId, async function* (session) {
        for (const projection of projections) {
          yield { projection, eigenvalues: viewBytes(await session.findEigenvalues(shardId, projection, signal)) };
        }
      }),

    publishGramSums: (request) =>
      sessions.use(request.sessionId, async (session) => ({ sums: await session.grams.publishSums(request.shardId, request.sites) })),

    reduceGramMatrices: (request, { signal }) =>
      sessions.use(request.sessionId, async (session) => ({ matrices: await session.grams.reduce(request.matrices, signal) })),

    applyMasks: async (request, { signal }) => {
      await sessions.use(request.sessionId, (session) => session.applyMasks(request, signal));
      return {};
    },

    propagate: (request, { signal }) =>
      sessions.stream(request.sessionId, async function* (session) {
        const streams = request.streams.length === 0 ? [HiddenStream.PRUNED] : request.streams;
        const propagate = (groupIndex: number) => session.propagate(request.shardId, groupIndex, streams, signal);
        for await (const [groupIndex] of runAhead(request.groupIndices, propagate)) yield { groupIndex };
      }),

    measureLoss: (request, { signal }) =>
      sessions.stream(request.sessionId, async function* (session) {
        const measured = request.groupIndices.map((groupIndex, position) => ({ groupIndex, ranges: rangesOf(request, position) }));
        const measure = ({ groupIndex, ranges }: (typeof measured)[number]) =>
          session.measureLoss(request.shardId, groupIndex, ranges, signal);
        for await (const [{ groupIndex }, losses] of runAhead(measured, measure)) yield { groupIndex, losses: Array.from(losses) };
      }),

    publishHiddenStates: (request, { signal }) =>
      sessions.use(request.sessionId, async (session) => ({ states: await session.hiddenStates.publish(request.groupIndices, signal) })),

    withdrawHiddenStates: async (request) => {
      await sessions.use(request.sessionId, (session) => {
        session.hiddenStates.withdraw(request.groupIndices);
        return Promise.resolve();
      });
      return {};
    },

    restoreHiddenStates: async (request, { signal }) => {
      await sessions.use(request.sessionId, (session) => session.hiddenStates.restore(request.groups, signal));
      return {};
    },

    releaseGroups: async (request) => {
      await sessions.use(request.sessionId, (session) => session.hiddenStates.release(request.groupIndices));
      return {};
    },

    closeSession: async (request) => {
      await sessions.close(request.sessionId);
      return {};
    },
  };
}

/** The tokens that are measured of the group at a position of the request; undefined for all there are. */
function rangesOf({ groupIndices, tokens }: MeasureLossRequest, position: number): TokenRange[] | undefined {
  if (tokens.length === 0) return undefined;
  const { first = [], end = [] } = tokens[position] ?? {};
  if (tokens.length !== groupIndices.length || first.length === 0 || first.length !== end.length) {
    throw new SecateurError(
      'INVALID_REQUEST',
      `MeasureLoss of ${groupIndices.length} groups names the tokens of ${tokens.length}, with ${first.length} firsts and ${end.length} ends for one of them.`,
    );
  }
  return first.map((start, sample) => ({ first: start, end: end[sample] ?? 0 }));
}

function* chunksOf(bytes: Uint8Array = new Uint8Array(0)): Generator<Uint8Array> {
  for (let offset = 0; offset < bytes.byteLength; offset += CHUNK_BYTES) yield bytes.subarray(offset, offset + CHUNK_BYTES);
}

function viewBytes(values: ArrayBufferView): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
