import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadHasher, resolveJobSpec } from '../../packages/core/dist/index.js';
import { Resources } from '../../packages/rpc/dist/index.js';
import { JobSpec } from '../../proto/dist/secateur/v1/job.js';
import { gatherCrew } from '../../services/orchestrator/dist/pipeline/job-run.js';
import { LayerPruner } from '../../services/orchestrator/dist/pipeline/layer-pruner.js';
import { StepClock } from '../../services/orchestrator/dist/pipeline/step-clock.js';
import { countFlops } from '../../services/orchestrator/dist/planner/count-flops.js';
import { describeShard } from '../../services/orchestrator/dist/planner/job-plan.js';
import { outlineInput } from '../../services/orchestrator/dist/planner/outline-input.js';
import { workOf } from '../../services/orchestrator/dist/planner/workload.js';
import { FakeNode, statisticsBytes, WAITS } from './fake-node.mjs';
import { makeLink, SharedLinks } from './shared-links.mjs';
import { VirtualClock } from './virtual-clock.mjs';

const JOB_ID = 'simulated';
/** As many as an orchestrator with four processors has. */
const MASKING_THREADS = 4;

/**
 * What node time goes to, the work first. `groups`: others still have groups of the step to do; `projections`: others still allocate.
 * `write`: what is left of the block is masked and written; `disk`: it is made durable.
 */
const USES = /** @type {const} */ (['compute', ...WAITS, 'reduction', 'write', 'disk', 'groups', 'projections', 'calls']);

/**
 * @typedef {object} SimulatedJob
 * @property {object} config of the model, as in its config.json
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
  /** Bytes by what they are and which way they went. @type {Record<string, number>} */
  served = {};
  /** @type {Record<string, number>} */
  received = {};
  /** From node to node. @type {Record<string, number>} */
  passedOn = {};
  /** Seconds of all nodes. @type {Record<string, number>} */
  nodeSeconds = Object.fromEntries(USES.map((use) => [use, 0]));
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

  /** @param {object} plan @param {import('./cost-model.mjs').OrchestratorSpeed} orchestrator */
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

  /** @param {number} role */
  projectionOf(role) {
    return this.model.blocks[0].projections.find((projection) => projection.role === role);
  }

  /** @param {number} site @param {number} inputs */
  statisticsOf(site, inputs) {
    const { columns } = this.model.blocks[0].projections.find((projection) => projection.site === site);
    const sizes = statisticsBytes(columns, inputs);
    return { site, sumsOfSquares: this.bytes(sizes.sums), qualityInputs: this.bytes(sizes.inputs) };
  }

  /** @param {string} address */
  nodeAt(address) {
    return this.nodes.find((node) => node.address === address);
  }

  /** From one node to another. @param {string} kind @param {number} bytes @param {FakeNode} from @param {FakeNode} to */
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

  /** @param {string} kind @param {number} bytes @param {FakeNode} node */
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

  /** @param {string} kind @param {number} bytes @param {FakeNode} node */
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

  /** Takes projections as PrunedOutput does. */
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
      async measure(step, work) {
        steps.set(step, (steps.get(step) ?? 0) + 1);
        try {
          return await super.measure(step, work);
        } finally {
          steps.set(step, steps.get(step) - 1);
        }
      }
    })(() => this.clock.now * 1000);
  }

  async #during(what, work) {
    this.#running[what] += 1;
    await work;
    this.#running[what] -= 1;
  }

  #account(seconds) {
    const busy = this.nodes.some((node) => node.isComputing || WAITS.some((reason) => node.waits[reason] > 0));
    for (const node of this.nodes) {
      const use = this.#useOf(node, busy);
      // What waits for the orchestrator's thread waits for all that the thread does meanwhile.
      const shares = use === 'reduction' ? this.#links.sharesOf(this.thread) : { [use]: 1 };
      for (const [kind, share] of Object.entries(shares)) this.nodeSeconds[USES.includes(kind) ? kind : 'calls'] += share * seconds;
    }
  }

  /** @param {FakeNode} node @param {boolean} othersAreBusy */
  #useOf(node, othersAreBusy) {
    if (node.isComputing) return 'compute';
    const reason = WAITS.find((candidate) => node.waits[candidate] > 0);
    if (reason !== undefined) return reason;
    if (this.#running.reduction > 0) return 'reduction';
    if (othersAreBusy && this.#steps.get('allocate') > 0) return 'projections';
    if (othersAreBusy) return 'groups';
    if (this.#running.write > 0) return 'write';
    return this.#running.disk > 0 ? 'disk' : 'calls';
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
    const outline = await outlineInput({ ...input, allowedRoots: [folder, tmpdir()] }, new AbortController().signal);
    return {
      plan: { ...outline, jobId: JOB_ID, checkpoint: { directory: '', tensors: new Map() }, scanned: new Map(), rowSparsities: new Map() },
      spec: kind.value,
      works,
    };
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
  const figures = () => ({
    seconds: { total: clock.now, ...steps.seconds() },
    nodeSeconds: { ...simulation.nodeSeconds },
    served: { ...simulation.served },
    received: { ...simulation.received },
    passedOn: { ...simulation.passedOn },
    orchestrator: { thread: simulation.thread.used, out: simulation.out.used },
    flops: sumOf(nodes.map(({ flops }) => flops)),
  });
  /** After each layer. @type {ReturnType<typeof figures>[]} */
  const layers = [];
  const run = {
    jobId: JOB_ID,
    maximumNodes: job.nodes,
    recordTrace: false,
    pool: { nodes, healthy: nodes, settle: async () => nodes },
    resources,
    tensorEndpoint: 'orchestrator:1',
    lease: { token: 1 },
    log: { append: (event) => event.$case === 'layerFinished' && layers.push(figures()) },
    trace: { add: () => undefined, drain: async () => undefined },
    signal: new AbortController().signal,
  };
  const crew = gatherCrew(run, plan, works[0]);
  // Virtual time does not wait for what is really loaded.
  await loadHasher();
  await clock.run(async () => {
    try {
      await new LayerPruner(run, spec, plan, simulation.output(), crew, steps).pruneFrom(0);
    } finally {
      await crew.close();
    }
  });
  return { ...figures(), layers, visits: nodes.map(({ visits }) => visits), plannedFlops: countFlops(plan, works) };
}

/** Layers that are simulated of a model that has more. */
const SIMULATED_LAYERS = 6;

/**
 * The same for a model of many layers. All but the first and the last take alike, so only a few are simulated, and the one in the middle stands for those
 * that are left out: around it, one block is made durable and another is pulled.
 * @param {SimulatedJob} job
 */
export async function simulateLongJob(job) {
  const layers = job.config.num_hidden_layers;
  const simulated = Math.min(layers, SIMULATED_LAYERS);
  const result = await simulateJob({ ...job, config: { ...job.config, num_hidden_layers: simulated } });
  const [before, after] = result.layers.slice(-4);
  const extend = (/** @type {string} */ part) =>
    Object.fromEntries(
      Object.entries(result[part]).map(([name, value]) => [
        name,
        layers === simulated ? value : value + (layers - simulated) * (after[part][name] - (before[part][name] ?? 0)),
      ]),
    );
  return Object.fromEntries(
    ['seconds', 'nodeSeconds', 'served', 'received', 'passedOn', 'orchestrator', 'flops'].map((part) => [part, extend(part)]),
  );
}

/** @param {readonly Record<string, number>[]} records */
function sumOf(records) {
  /** @type {Record<string, number>} */
  const sums = {};
  for (const record of records) for (const [name, value] of Object.entries(record)) sums[name] = (sums[name] ?? 0) + value;
  return sums;
}
