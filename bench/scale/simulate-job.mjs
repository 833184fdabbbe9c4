import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServiceLogger } from '../../packages/access/dist/index.js';
import { openCheckpoint } from '../../packages/checkpoint/dist/index.js';
import { loadHasher, resolveJobSpec, splitIntoGroups } from '../../packages/core/dist/index.js';
import { Resources } from '../../packages/rpc/dist/index.js';
import { JobSpec } from '../../proto/dist/secateur/v1/job.js';
import { gatherCrew } from '../../services/orchestrator/dist/pipeline/job-run.js';
import { LayerPruner } from '../../services/orchestrator/dist/pipeline/layer-pruner.js';
import { StepClock } from '../../services/orchestrator/dist/pipeline/step-clock.js';
import { countFlops } from '../../services/orchestrator/dist/planner/count-flops.js';
import { describeShard } from '../../services/orchestrator/dist/planner/job-plan.js';
import { outlineInput } from '../../services/orchestrator/dist/planner/outline-input.js';
import { workOf } from '../../services/orchestrator/dist/planner/workload.js';
import { NodePool } from '../../services/orchestrator/dist/scheduler/node-pool.js';
import { FakeNode, statisticsBytes, WAITS } from './fake-node.mjs';
import { need } from './need.mjs';
import { makeLink, SharedLinks } from './shared-links.mjs';
import { VirtualClock } from './virtual-clock.mjs';

/**
 * @import { PlannedProjection } from '../../packages/core/dist/index.js'
 * @import { TensorRole } from '../../proto/dist/secateur/v1/model.js'
 * @import { InputSite } from '../../proto/dist/secateur/v1/statistics.js'
 * @import { CrewRun } from '../../services/orchestrator/dist/pipeline/job-run.js'
 * @import { LayerOutput, LayerRun } from '../../services/orchestrator/dist/pipeline/layer-pruner.js'
 * @import { PrunePlan } from '../../services/orchestrator/dist/planner/job-plan.js'
 * @import { Kind } from './fake-node.mjs'
 */

const JOB_ID = 'simulated';
/** Of a safetensors file without tensors: the length of its header and the header. */
const NO_TENSORS = Buffer.from('\x02\0\0\0\0\0\0\0{}');
/** As many as an orchestrator with four processors has. */
const MASKING_THREADS = 4;

/**
 * What node time goes to, the work first. `groups`: others still have groups of the step to do; `projections`: others still allocate.
 * `write`: what is left of the block is masked and written; `disk`: it is made durable.
 */
const USES = /** @type {const} */ (['compute', ...WAITS, 'reduction', 'write', 'disk', 'groups', 'projections', 'calls']);

/** @typedef {typeof USES[number]} Use */
/** @typedef {Partial<Record<Kind, number>>} Bytes */

/**
 * What a job has taken so far.
 * @typedef {object} Figures
 * @property {{ total: number } & Record<string, number>} seconds of the job and of its steps
 * @property {Record<Use, number>} nodeSeconds
 * @property {Bytes} served
 * @property {Bytes} received
 * @property {Bytes} passedOn
 * @property {{ thread: number, out: number }} orchestrator
 * @property {FakeNode['flops']} flops
 */

/**
 * @typedef {object} SimulatedJob
 * @property {Readonly<Record<string, unknown>> & { readonly num_hidden_layers: number }} config of the model, as in its config.json
 * @property {number} samples
 * @property {number} sequenceLength
 * @property {number} nodes
 * @property {import('./cost-model.mjs').NodeSpeed} node
 * @property {import('./cost-model.mjs').OrchestratorSpeed} orchestrator
 */

/** A simulated cluster: its clock, links and what the nodes' answers are made of. */
export class Simulation {
  clock = new VirtualClock();
  resources = new Resources();
  /** Bytes by what they are and which way they went. @type {Bytes} */
  served = {};
  /** @type {Bytes} */
  received = {};
  /** From node to node. @type {Bytes} */
  passedOn = {};
  /** Of all nodes. @type {Figures['nodeSeconds']} */
  nodeSeconds = {
    compute: 0,
    masks: 0,
    statistics: 0,
    checkpoint: 0,
    reduction: 0,
    write: 0,
    disk: 0,
    groups: 0,
    projections: 0,
    calls: 0,
  };
  /** @type {FakeNode[]} */
  nodes = [];
  #links = new SharedLinks(this.clock);
  #running = { reduction: 0, write: 0, disk: 0 };
  /** How often each is under way. @type {Map<string, number>} */
  #steps = new Map();
  /** @type {Map<string, { groups: Set<number>, bytes: number }>} */
  #passes = new Map();
  #zeros = Buffer.alloc(0);
  /** Weights that are written but not durable. */
  #dirtyBytes = 0;

  /** @param {PrunePlan} plan @param {import('./cost-model.mjs').OrchestratorSpeed} orchestrator */
  constructor(plan, orchestrator) {
    this.plan = plan;
    this.model = plan.model;
    this.orchestrator = orchestrator;
    this.out = makeLink('orchestrator out', orchestrator.linkBytesPerSecond);
    this.in = makeLink('orchestrator in', orchestrator.linkBytesPerSecond);
    this.thread = makeLink('orchestrator thread', 1);
    this.reader = makeLink('orchestrator reads', orchestrator.readBytesPerSecond);
    this.writer = makeLink('orchestrator writes', orchestrator.writeBytesPerSecond);
    this.clock.onLeap((seconds) => this.#account(seconds));
  }

  /** As many bytes as a node answers with; all nodes answer with the same ones. @param {number} length */
  bytes(length) {
    if (this.#zeros.byteLength < length) this.#zeros = Buffer.alloc(length);
    return this.#zeros.subarray(0, length);
  }

  /** @param {TensorRole} role */
  projectionOf(role) {
    return this.#findProjection((projection) => projection.role === role);
  }

  /** Of the first block, as which all others are. @param {(projection: PlannedProjection) => boolean} isIt */
  #findProjection(isIt) {
    return need(this.model.blocks[0]?.projections.find(isIt), 'such projection');
  }

  /** @param {InputSite} site @param {number} inputs */
  statisticsOf(site, inputs) {
    const { columns } = this.#findProjection((projection) => projection.site === site);
    const sizes = statisticsBytes(columns, inputs);
    return { site, sumsOfSquares: this.bytes(sizes.sums), qualityInputs: this.bytes(sizes.inputs) };
  }

  /** @param {string} address */
  nodeAt(address) {
    return this.nodes.find((node) => node.address === address);
  }

  /** From one node to another. @param {Kind} kind @param {number} bytes @param {FakeNode} from @param {FakeNode} to */
  passOn(kind, bytes, from, to) {
    this.passedOn[kind] = (this.passedOn[kind] ?? 0) + bytes;
    // To send takes a node's thread as much as to receive.
    return this.#links.transfer(bytes, [
      [from.out, 1],
      [from.puller, 1],
      [to.in, 1],
      [to.puller, 1],
    ]);
  }

  /** @param {Kind} kind @param {number} bytes @param {FakeNode} node */
  serve(kind, bytes, node) {
    this.served[kind] = (this.served[kind] ?? 0) + bytes;
    return this.#links.transfer(
      bytes,
      [
        [this.thread, this.orchestrator.sendSeconds],
        [this.out, 1],
        [node.in, 1],
        [node.puller, 1],
      ],
      kind,
    );
  }

  /** @param {Kind} kind @param {number} bytes @param {FakeNode} node */
  receive(kind, bytes, node) {
    this.received[kind] = (this.received[kind] ?? 0) + bytes;
    return this.#links.transfer(
      bytes,
      [
        [node.out, 1],
        [this.in, 1],
        [this.thread, this.orchestrator.receiveSeconds],
      ],
      kind,
    );
  }

  /** The orchestrator reduces once it has the statistics of all groups. @param {string} shardId @param {number} groupIndex @param {number} bytes */
  async reduceAfterLast(shardId, groupIndex, bytes) {
    const pass = this.#passes.get(shardId) ?? { groups: new Set(), bytes: 0 };
    this.#passes.set(shardId, pass);
    pass.groups.add(groupIndex);
    pass.bytes += bytes;
    if (pass.groups.size < this.plan.calibration.groups.length) return;
    this.#passes.delete(shardId);
    await this.#during('reduction', this.#links.transfer(pass.bytes, [[this.thread, this.orchestrator.reduceSeconds]], 'reduction'));
  }

  /** Takes projections as PrunedOutput does. @returns {LayerOutput} */
  output() {
    return {
      writesAtOnce: MASKING_THREADS,
      describeBlock: (block) => describeShard(this.plan, block.shard),
      writeProjection: async ({ projection }) => {
        const bytes = 2 * projection.rows * projection.columns;
        await this.#during(
          'write',
          this.#links.transfer(
            bytes,
            [
              [this.reader, 1],
              [makeLink('masking thread', 1), this.orchestrator.maskSeconds],
            ],
            'write',
          ),
        );
        this.#dirtyBytes += bytes;
        return '';
      },
      commitBlock: async () => {
        const bytes = this.#dirtyBytes;
        this.#dirtyBytes = 0;
        await this.#during('disk', this.#links.transfer(bytes, [[this.writer, 1]]));
      },
    };
  }

  /** The orchestrator's clock of steps. */
  stepClock() {
    const steps = this.#steps;
    return new (class extends StepClock {
      /** @override @template Result @param {string} step @param {() => Promise<Result>} work @returns {Promise<Result>} */
      async measure(step, work) {
        steps.set(step, (steps.get(step) ?? 0) + 1);
        try {
          return await super.measure(step, work);
        } finally {
          steps.set(step, (steps.get(step) ?? 0) - 1);
        }
      }
    })(() => this.clock.now * 1000);
  }

  /** @param {'reduction' | 'write' | 'disk'} what @param {Promise<void>} work */
  async #during(what, work) {
    this.#running[what] += 1;
    await work;
    this.#running[what] -= 1;
  }

  /** @param {number} seconds */
  #account(seconds) {
    const busy = this.nodes.some((node) => node.isComputing || WAITS.some((reason) => node.waits[reason] > 0));
    for (const node of this.nodes) {
      const use = this.#useOf(node, busy);
      // What waits for the orchestrator's thread waits for all that the thread does meanwhile.
      const shares = use === 'reduction' ? this.#links.sharesOf(this.thread) : { [use]: 1 };
      for (const [kind, share] of Object.entries(shares)) {
        this.nodeSeconds[USES.find((known) => known === kind) ?? 'calls'] += share * seconds;
      }
    }
  }

  /** @param {FakeNode} node @param {boolean} othersAreBusy @returns {Use} */
  #useOf(node, othersAreBusy) {
    if (node.isComputing) return 'compute';
    const reason = WAITS.find((candidate) => node.waits[candidate] > 0);
    if (reason !== undefined) return reason;
    if (this.#running.reduction > 0) return 'reduction';
    if (othersAreBusy && (this.#steps.get('allocate') ?? 0) > 0) return 'projections';
    if (othersAreBusy) return 'groups';
    if (this.#running.write > 0) return 'write';
    return this.#running.disk > 0 ? 'disk' : 'calls';
  }
}

/** The pool of an orchestrator that discovers nothing: it has the nodes of the simulation. */
class FakePool extends NodePool {
  #nodes;

  /** @param {readonly FakeNode[]} nodes */
  constructor(nodes) {
    super([], createServiceLogger({ name: JOB_ID, level: 'error' }), undefined);
    this.#nodes = nodes;
  }

  /** @override */
  get nodes() {
    return this.#nodes;
  }
}

/** A plan for a model without weights. @param {SimulatedJob} job */
async function planOf({ config, samples, sequenceLength }) {
  const folder = await mkdtemp(join(tmpdir(), 'secateur-scale-'));
  try {
    await writeFile(join(folder, 'config.json'), JSON.stringify(config));
    const prune = { model: folder, sparsity: 0.7, calibration: { samples, sequenceLength } };
    const { kind } = resolveJobSpec(JobSpec.fromPartial({ kind: { $case: 'prune', value: prune } }), 'plan');
    const { input, works } = workOf(kind);
    if (kind?.$case !== 'prune') throw new Error('The spec is not of a job that prunes.');
    const outline = await outlineInput({ ...input, allowedRoots: [folder, tmpdir()] }, new AbortController().signal);
    // Only now: outlined is what config.json asks for. Nothing of it is read.
    await writeFile(join(folder, 'model.safetensors'), NO_TENSORS);
    const checkpoint = await openCheckpoint(folder);
    await checkpoint.close();
    const ids = new Int32Array(samples * sequenceLength);
    const calibration = {
      tokens: { ids, samples, sequenceLength, digest: '', sha256: '', files: [], documents: 0 },
      groups: splitIntoGroups(ids, samples, sequenceLength),
    };
    /** @type {PrunePlan} */
    const plan = { ...outline, jobId: JOB_ID, checkpoint, calibration, scanned: new Map(), rowSparsities: new Map() };
    return { plan, spec: kind.value, works };
  } finally {
    await rm(folder, { recursive: true });
  }
}

/**
 * Runs the orchestrator's layer loop on nodes that compute nothing, in virtual time.
 * @param {SimulatedJob} job
 */
export async function simulateJob(job) {
  const { plan, spec, works } = await planOf(job);
  const simulation = new Simulation(plan, job.orchestrator);
  const { clock, resources } = simulation;
  const nodes = Array.from({ length: job.nodes }, (_, index) => new FakeNode(`node-${index}`, job.node, simulation));
  simulation.nodes = nodes;
  const steps = simulation.stepClock();
  const pool = new FakePool(nodes);
  /** @returns {Figures} */
  const figures = () => ({
    seconds: { total: clock.now, ...steps.seconds() },
    nodeSeconds: { ...simulation.nodeSeconds },
    served: { ...simulation.served },
    received: { ...simulation.received },
    passedOn: { ...simulation.passedOn },
    orchestrator: { thread: simulation.thread.used, out: simulation.out.used },
    flops: sumOf(nodes.map(({ flops }) => flops)),
  });
  /** After each layer. @type {Figures[]} */
  const layers = [];
  /** @type {LayerRun & CrewRun} */
  const run = {
    jobId: JOB_ID,
    maximumNodes: job.nodes,
    recordTrace: false,
    pool,
    resources,
    tensorEndpoint: 'orchestrator:1',
    lease: { token: 1 },
    log: {
      append: (event) => {
        if (event.$case === 'nodeLost') throw new Error(`The simulation lost ${event.value.name}: ${event.value.reason}`);
        if (event.$case === 'layerFinished') layers.push(figures());
      },
    },
    trace: { add: () => undefined, drain: async () => undefined },
    signal: new AbortController().signal,
  };
  const crew = gatherCrew(run, plan, need(works[0], 'work'));
  // Virtual time does not wait for what is really loaded.
  await loadHasher();
  await clock.run(async () => {
    try {
      await new LayerPruner(run, spec, plan, simulation.output(), crew, steps).pruneFrom(0);
    } finally {
      await crew.close();
      for (const node of nodes) node.close();
    }
  });
  return { ...figures(), layers, visits: nodes.map(({ visits }) => visits), plannedFlops: countFlops(plan, works) };
}

/** Layers that are simulated of a model that has more. */
const SIMULATED_LAYERS = 6;

/**
 * The same for a model of many layers. All but the first and the last take alike, so only a few are simulated, and the one in the middle stands for those
 * that are left out: around it, one block is made durable and another is pulled.
 * @param {SimulatedJob} job @returns {Promise<Figures>}
 */
export async function simulateLongJob(job) {
  const layers = job.config.num_hidden_layers;
  const simulated = Math.min(layers, SIMULATED_LAYERS);
  const result = await simulateJob({ ...job, config: { ...job.config, num_hidden_layers: simulated } });
  if (layers === simulated) return result;
  const before = need(result.layers.at(-4), 'layer');
  const after = need(result.layers.at(-3), 'layer');
  const more = layers - simulated;
  return {
    seconds: extend(result.seconds, before.seconds, after.seconds, more),
    nodeSeconds: extend(result.nodeSeconds, before.nodeSeconds, after.nodeSeconds, more),
    served: extend(result.served, before.served, after.served, more),
    received: extend(result.received, before.received, after.received, more),
    passedOn: extend(result.passedOn, before.passedOn, after.passedOn, more),
    orchestrator: extend(result.orchestrator, before.orchestrator, after.orchestrator, more),
    flops: extend(result.flops, before.flops, after.flops, more),
  };
}

/**
 * Adds so many times what a layer adds.
 * @template {Readonly<Record<string, number>>} Numbers @param {Numbers} numbers
 * @param {Numbers} before the layer @param {Numbers} after the layer @param {number} times @returns {Numbers}
 */
function extend(numbers, before, after, times) {
  /** @type {Record<string, number>} */
  const extended = {};
  for (const [name, value] of Object.entries(numbers)) extended[name] = value + times * ((after[name] ?? 0) - (before[name] ?? 0));
  // They have the same names.
  return /** @type {Numbers} */ (extended);
}

/** @param {readonly FakeNode['flops'][]} parts */
function sumOf(parts) {
  const sums = { collect: 0, allocate: 0, propagate: 0 };
  for (const { collect, allocate, propagate } of parts) {
    sums.collect += collect;
    sums.allocate += allocate;
    sums.propagate += propagate;
  }
  return sums;
}
