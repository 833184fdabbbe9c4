import { Allocation, LayerQuality, Repair, RepairTargets, RowQuality, Score } from '@secateur/proto/allocation';
import {
  AlphaMetric,
  BudgetGranularity,
  JobState,
  LayerBudget,
  Preset,
  Propagation,
  QualityInputs,
  Sampling,
  Task,
} from '@secateur/proto/job';
import { Compute, HiddenStates } from '@secateur/proto/model';
import { CommanderError, Option } from 'commander';
import { CheckedCommand } from './input/checked-command.js';
import {
  byteSize,
  choice,
  choices,
  cpuList,
  groupPattern,
  hostPort,
  integer,
  layerBudget,
  layerList,
  namespaces,
  nodeSource,
  numbers,
  positiveNumber,
  projectionTarget,
  repeatable,
  share,
  wholeNumber,
} from './input/option-parsers.js';
import { withConnectionSecurity, withServiceSecurity, withTokenOptions, type ConnectionFlags } from './input/security-options.js';
import { ExitCode, reportError } from './output/exit.js';

/** More than any machine has devices. */
const MAXIMUM_LOCAL_NODES = 64;
/** As many as an engine takes. */
const MAXIMUM_THREADS = 1024;
const DEFAULT_ENDPOINT = '127.0.0.1:7400';
const DEFAULT_NODE_ADDRESS = '127.0.0.1:7401';

const DEFAULT_TEXT_FIELD = 'text';
const DATA_FILES = '.txt, .raw (WikiText), .jsonl, .parquet, these with .gz or .zst, or .safetensors with input_ids';
const CALIBRATION = `${DATA_FILES} [samples, tokens]; a glob in quotes, or repeat it for more`;
const TEXT_FIELD = 'field of .jsonl or column of .parquet that holds the text';

const ENVIRONMENT = `
Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
Environment: SECATEUR_TOKEN and SECATEUR_TLS_CA tell commands with --endpoint how to be known there and whom to trust,
OTEL_EXPORTER_OTLP_ENDPOINT and the like export traces, SECATEUR_DEBUG=1 shows stacks and logs of failures.

Example:
  secateur prune --model models/Qwen2.5-0.5B --out pruned --sparsity 0.7 --calibration text.jsonl`;

/** Named as lm-evaluation-harness names them; perplexity is no task with questions. */
const MEASUREMENTS = {
  perplexity: 'perplexity',
  boolq: Task.BOOLQ,
  rte: Task.RTE,
  hellaswag: Task.HELLASWAG,
  winogrande: Task.WINOGRANDE,
  arc_easy: Task.ARC_EASY,
  arc_challenge: Task.ARC_CHALLENGE,
  openbookqa: Task.OPENBOOKQA,
  piqa: Task.PIQA,
} as const;

const LAYER_QUALITIES = {
  'cosim-flat': LayerQuality.COSIM_FLAT,
  'cosim-dim': LayerQuality.COSIM_DIM,
  'cosim-sample': LayerQuality.COSIM_SAMPLE,
  mse: LayerQuality.MSE,
  'mse-dim': LayerQuality.MSE_DIM,
  mae: LayerQuality.MAE,
  snr: LayerQuality.SNR,
  'psnr-flat': LayerQuality.PSNR_FLAT,
  'psnr-dim': LayerQuality.PSNR_DIM,
  'psnr-sample': LayerQuality.PSNR_SAMPLE,
  pass: LayerQuality.PASS,
} as const;

/** The command line. What a command needs is loaded when it runs, so that --help answers at once. */
export function createProgram(version: string): CheckedCommand {
  const program = new CheckedCommand('secateur')
    .description('Prunes large language models to extreme sparsity with TRIM, on this machine or on a cluster.')
    .version(version)
    .showHelpAfterError('(secateur <command> --help shows all options)')
    .exitOverride()
    .hook('preAction', (_program, command) => {
      if (command instanceof CheckedCommand) command.checkOptions();
    })
    .addHelpText('after', ENVIRONMENT);
  addPrune(program);
  addPlan(program);
  addEvaluate(program);
  addInspect(program);
  addCompare(program);
  addMasks(program);
  addServe(program);
  addNode(program);
  addJobs(program);
  addNodes(program);
  addTrace(program);
  addToken(program);
  return program;
}

/** Runs the command line and returns the exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted. */
export async function runProgram(program: CheckedCommand, argv: readonly string[]): Promise<number> {
  try {
    await program.parseAsync(argv, { from: 'user' });
    return 0;
  } catch (error) {
    // Commander has told the user already.
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : ExitCode.USAGE;
    return reportError(error);
  }
}

function addPrune(program: CheckedCommand): void {
  const command = program
    .command('prune')
    .description('Prune a checkpoint. Without --endpoint it starts an orchestrator and kernel nodes here and stops them afterwards.')
    .requiredOption('--out <dir>', 'folder to write, or s3://BUCKET/PREFIX; must not exist')
    .requiredOption('--calibration <file>', CALIBRATION, repeatable(String))
    .option('--job-id <id>', 'id of the job (default: made from the options)')
    .option('--priority <n>', 'begun before jobs of lower priority, from -1000 to 1000', integer(-1000, 1000), 0)
    .option(
      '--snapshot-every <layers>',
      'keep the hidden states beside the unfinished output whenever so many more layers are done, so that less is computed again after a loss; 0 = never',
      wholeNumber(0),
      0,
    )
    .option('--attempts <n>', 'attempts after errors that another attempt may mend, such as nodes that are gone', wholeNumber(1), 1)
    .addOption(staging().conflicts('endpoint'))
    .option('--trace-out <file>', 'write a trace that ui.perfetto.dev opens')
    .option('--quiet', 'show no progress');
  withPruneSettings(command)
    .example('secateur prune --model models/Qwen2.5-0.5B --out pruned --sparsity 0.7 --calibration text.jsonl')
    .action(async (options: unknown) => {
      const { prune } = await import('./commands/prune.js');
      await prune(options as Parameters<typeof prune>[0]);
    });
}

function addPlan(program: CheckedCommand): void {
  const command = program
    .command('plan')
    .description(
      'Show what prune would do with the same options: shards, and the memory of every node. Nothing is computed or written, and no weights need to be there.',
    )
    .option('--out <dir>', 'folder that prune would write; must not exist')
    .option('--calibration <file>', `${CALIBRATION}; without it, --samples and --seq-len are planned`, repeatable(String));
  withPruneSettings(command)
    .example('secateur plan --model models/Qwen2.5-7B --sparsity 0.7 --calibration text.jsonl --endpoint 10.0.0.4:7400')
    .action(async (options: unknown) => {
      const { plan } = await import('./commands/plan.js');
      await plan(options as Parameters<typeof plan>[0]);
    });
}

/** What and how to prune, and on which nodes. */
function withPruneSettings(command: CheckedCommand): CheckedCommand {
  command
    .requiredOption(
      '--model <dir>',
      'folder of the checkpoint, or s3://BUCKET/PREFIX (Hugging Face layout: Qwen2/2.5/3, LLaMA 2/3, Mistral, OPT)',
    )
    .requiredOption('--sparsity <share>', 'share of the weights of each projection to drop, such as 0.7', share)
    .addOption(
      offered(
        '--preset <name>',
        'settings where others are not given: published (TRIM as published), fast (the fastest that is not worse: equal rows, 32 samples, --repair fit), best (the least perplexity: --layer-budget optimal --repair admm --repair-targets dense --propagation staged)',
        { published: Preset.PUBLISHED, fast: Preset.FAST, best: Preset.BEST },
        'published',
      ),
    )
    .option('--text-field <name>', TEXT_FIELD, DEFAULT_TEXT_FIELD)
    .addOption(
      offered(
        '--sampling <name>',
        'where samples come from: documents (random windows of random documents), concatenated (of all documents joined)',
        { documents: Sampling.DOCUMENTS, concatenated: Sampling.CONCATENATED },
        'documents',
      ),
    )
    .option('--eval <file>', 'text or ids to measure the perplexity with before and after, as --data of secateur eval')
    .addDependent(new Option('--eval-samples <n>', 'windows of it to measure; 0 = all').argParser(wholeNumber(0)).default(0), '--eval')
    .option('--samples <n>', 'calibration samples; 0 = 256 of text, all of .safetensors; 32 with --preset fast', wholeNumber(0), 0)
    .option('--seq-len <n>', 'tokens per sample; 0 = the smaller of 2048 and what the model takes', wholeNumber(0), 0)
    .option('--seed <n>', 'seed of the sampling', wholeNumber(0), 0)
    .option(
      '--only <regex>',
      'prune only projections whose name (such as model.layers.0.self_attn.q_proj) has this in it; may be repeated',
      repeatable(String),
    )
    .option('--skip <regex>', 'leave projections out whose name has this in it; may be repeated', repeatable(String))
    .option('--skip-layers <list>', 'leave blocks out, from 0, such as 0,31 or 0-3', layerList)
    .option(
      '--target <regex=share>',
      'sparsity of projections whose name has this in it; may be repeated, the first that fits counts',
      repeatable(projectionTarget),
    )
    .addOption(
      offered(
        '--score <name>',
        'how weights are ranked: wanda, magnitude (of the whole matrix with --allocation uniform), wanda-variant, sparsegpt (which also changes kept weights)',
        { wanda: Score.WANDA, magnitude: Score.MAGNITUDE, 'wanda-variant': Score.WANDA_VARIANT, sparsegpt: Score.SPARSEGPT },
        'wanda',
      ),
    )
    .addOption(
      new Option(
        '--allocation <name>',
        'how rows get their sparsity: trim, uniform, optimal (least squared error), given (by --row-sparsities)',
      )
        .argParser(choice({ trim: Allocation.TRIM, uniform: Allocation.UNIFORM, optimal: Allocation.OPTIMAL, given: Allocation.GIVEN }))
        .default(
          Allocation.UNSPECIFIED,
          'trim; uniform with a pattern, wanda-variant or --preset fast or best; given with --row-sparsities',
        ),
    )
    .addOption(
      offered(
        '--quality-inputs <name>',
        'inputs that rows are judged on: last (of the last token of each sample), all (of all tokens, in random-sign sums)',
        { last: QualityInputs.LAST, all: QualityInputs.ALL },
        'last',
      ),
    )
    .option('--sketches <n>', 'with --quality-inputs all: random-sign sums of each sample, up to 8; 0 = 4', wholeNumber(0), 0)
    .addOption(
      new Option(
        '--layer-budget <name-or-file>',
        'how layers get theirs: uniform, owl, alpha or optimal, or a file of ratios: layer_budget.json of an earlier job, or .json or .npy with one for each block or projection',
      )
        .argParser(layerBudget)
        .default({ budget: LayerBudget.UNSPECIFIED, file: '' }, 'uniform; optimal with --preset best'),
    )
    .option(
      '--owl-lambda <n>',
      'half of the difference between the largest and the smallest share of a layer (default: 0.05)',
      positiveNumber,
    )
    .option(
      '--owl-threshold <n>',
      'scores above so many times the mean of their layer are outliers, whose layers keep more (default: 7)',
      positiveNumber,
    )
    .option(
      '--alpha-metric <name>',
      'where the tail of a spectrum begins that alpha fits a power law to: peak (near the peak of the logarithms), mid (the median) (default: peak)',
      choice({ peak: AlphaMetric.PEAK, mid: AlphaMetric.MID }),
    )
    .option('--alpha-epsilon <n>', 'shares of layers are from 1 - n to 1 + n of each other (default: 0.3; 0.1 for Qwen models)', share)
    .option(
      '--alpha-per <name>',
      'what has a share of its own: block, projection (default: block)',
      choice({ block: BudgetGranularity.BLOCK, projection: BudgetGranularity.PROJECTION }),
    )
    .option(
      '--optimal-spread <n>',
      'with --layer-budget optimal: the most that the share of a projection may differ from the sparsity (default: 0.15)',
      share,
    )
    .option(
      '--optimal-samples <n>',
      'with --layer-budget optimal: calibration samples that projections are tried on (default: 8)',
      wholeNumber(1),
    )
    .addOption(
      new Option('--pattern <name>', 'which weights may be dropped: unstructured, or N:M, which drops N of every M neighbours, such as 2:4')
        .argParser(groupPattern)
        .default(undefined, 'unstructured'),
    )
    .addOption(
      offered(
        '--propagation <name>',
        'what inputs the projections of a block are pruned by: published (those of the block as it was), staged (those that come through its projections pruned before)',
        { published: Propagation.DENSE_BLOCK, staged: Propagation.STAGED },
      ).default(Propagation.UNSPECIFIED, 'published; staged with --preset best'),
    )
    .addOption(
      new Option(
        '--input-recalc',
        'rank weights by the inputs of the block as it was, and split the sparsity over rows by inputs that come through its projections pruned before',
      ).conflicts('propagation'),
    )
    .option('--row-sparsities <file>', 'row_sparsities.safetensors of an earlier job: its rows are used instead of a search')
    .addOption(
      offered(
        '--repair <name>',
        'how kept weights make up for the dropped ones: none, fit (to the dense output), admm (the mask is chosen while they are fitted)',
        { none: Repair.NONE, fit: Repair.FIT, admm: Repair.ADMM },
      ).default(Repair.UNSPECIFIED, 'none; fit with --preset fast, admm with best'),
    )
    .addOption(
      offered(
        '--repair-targets <name>',
        'what outputs are fitted to: own (the dense projection, with the inputs it gets in the pruned model) or dense (what brings the hidden states back to those of the dense model, with --propagation staged)',
        { own: RepairTargets.OWN, dense: RepairTargets.DENSE },
      ).default(RepairTargets.UNSPECIFIED, 'own; dense with --preset best'),
    )
    .option('--repair-damping <share>', 'share of the mean diagonal added to that of the Gram matrix of the inputs', share, 0.01)
    .addDependent(
      new Option('--repair-iterations <n>', 'steps of the fit').argParser(wholeNumber(1)).default(0, '20; 5 with --preset fast'),
      '--repair',
      '--preset',
    )
    .option(
      '--swap [share]',
      'swap dropped weights for kept ones of their row as long as the error of the output falls, also over samples that are held out: at most so many times the weights of a row (without a number: 0.25)',
      share,
    )
    .addOption(
      offered(
        '--layer-quality <name>',
        `by what trim tells which sparsities are best: ${Object.keys(LAYER_QUALITIES).join(', ')}`,
        LAYER_QUALITIES,
        'cosim-flat',
      ),
    )
    .addOption(
      offered(
        '--row-quality <name>',
        'by what trim tells which rows can lose more: cosim, mse, psnr',
        { cosim: RowQuality.COSIM, mse: RowQuality.MSE, psnr: RowQuality.PSNR },
        'cosim',
      ),
    )
    .option('--iterations <n>', 'search steps per learning rate', wholeNumber(1), 10)
    .addOption(
      new Option('--learning-rates <list>', 'learning rates tried in order')
        .argParser(numbers)
        .default([], '0.01,0.02,0.04,0.08,0.12,0.16'),
    )
    .option('--no-negative-rates', 'never try negative learning rates');
  return withJobOptions(command);
}

function addEvaluate(program: CheckedCommand): void {
  const command = program
    .command('eval')
    .description('Measure a checkpoint, dense or pruned, layer by layer over kernel nodes: its perplexity, and zero-shot tasks.')
    .requiredOption('--model <dir>', 'folder of the checkpoint')
    .requiredOption(
      '--data <file>',
      `of the task at the same place; repeat it for more. Perplexity: ${DATA_FILES} [windows, tokens], or a glob in quotes; other tasks: .jsonl with a question per line`,
      repeatable(String),
    )
    .option('--text-field <name>', TEXT_FIELD, DEFAULT_TEXT_FIELD)
    .option(
      '--task <names>',
      `what to measure, separated by commas or in more than one --task: ${Object.keys(MEASUREMENTS).join(', ')} (default: perplexity)`,
      choices<(typeof MEASUREMENTS)[keyof typeof MEASUREMENTS]>(MEASUREMENTS),
    )
    .option('--samples <n>', 'windows of the perplexity to measure; 0 = all', wholeNumber(0), 0)
    .option('--seq-len <n>', 'tokens per window; 0 = the smaller of 2048 and what the model takes', wholeNumber(0), 0)
    .option(
      '--stride <n>',
      'tokens from one window to the next, each token being scored once; 0 = the tokens per window',
      wholeNumber(0),
      0,
    )
    .option('--limit <n>', 'questions of each task, from the first; 0 = all', wholeNumber(0), 0)
    .option('--quiet', 'show no progress');
  withJobOptions(command)
    .example('secateur eval --model pruned --task perplexity,piqa --data wiki.test.raw --data piqa.jsonl')
    .action(async (options: unknown) => {
      const { evaluate } = await import('./commands/evaluate.js');
      await evaluate(options as Parameters<typeof evaluate>[0]);
    });
}

function addInspect(program: CheckedCommand): void {
  program
    .command('inspect')
    .description(
      'Show what the projections of a checkpoint look like: exact zeros, N:M patterns, dead rows and columns, NaN and infinities.',
    )
    .argument('<dir>', 'folder of the checkpoint')
    .option('--json', 'print one JSON document on stdout')
    .example('secateur inspect pruned')
    .action(async (directory: string, options: { json?: boolean }) => {
      const { inspect } = await import('./commands/inspect.js');
      await inspect(directory, options);
    });
}

function addCompare(program: CheckedCommand): void {
  program
    .command('compare')
    .description('Show two prune runs side by side: options that differ, sparsity, perplexity, the quality of every layer, time.')
    .argument('<a>', 'output folder of a run, or its secateur.json')
    .argument('<b>', 'output folder of another run, or its secateur.json')
    .option('--json', 'print one JSON document on stdout')
    .example('secateur compare pruned-uniform pruned-trim')
    .action(async (a: string, b: string, options: { json?: boolean }) => {
      const { compare } = await import('./commands/compare.js');
      await compare(a, b, options);
    });
}

function addMasks(program: CheckedCommand): void {
  const masks = program.command('masks').description('Take masks from a checkpoint, apply them to another one, compare them.');
  const load = () => import('./commands/masks.js');
  withQuietResult(
    masks
      .command('export')
      .description('Write which weights of the projections of a checkpoint are exactly zero, in the format of masks.safetensors.')
      .argument('<dir>', 'folder of the checkpoint')
      .requiredOption('--out <file>', 'file to write; must not exist')
      .example('secateur masks export pruned --out masks.safetensors'),
  ).action(async (directory: string, options: ResultFlags & { out: string }) => (await load()).exportMasks(directory, options));
  withQuietResult(
    masks
      .command('apply')
      .description('Write a copy of a checkpoint in which the weights that masks drop are zero; everything else stays as it is.')
      .requiredOption('--model <dir>', 'folder of the checkpoint')
      .requiredOption('--masks <file>', 'masks of its projections, such as masks.safetensors of a pruned output')
      .requiredOption('--out <dir>', 'folder to write; must not exist')
      .example('secateur masks apply --model models/Qwen2.5-0.5B --masks pruned/masks.safetensors --out applied'),
  ).action(async (options: ResultFlags & { model: string; masks: string; out: string }) => (await load()).applyMasks(options));
  withQuietResult(
    masks
      .command('diff')
      .description(
        'Compare masks: what each drops and both drop. Agreement is, of the weights that either drops, the share that both drop. ' +
          'Exit code 0 also when they differ.',
      )
      .argument('<a>', 'file of masks, folder with masks.safetensors, or folder of a checkpoint, whose exact zeros count as dropped')
      .argument('<b>', 'what to compare it with')
      .example('secateur masks diff pruned-trim pruned-uniform'),
  ).action(async (a: string, b: string, options: ResultFlags) => (await load()).diffMasks(a, b, options));
}

interface ResultFlags {
  readonly json?: boolean;
  readonly quiet?: boolean;
}

function withQuietResult(command: CheckedCommand): CheckedCommand {
  return command.option('--json', 'print one JSON document on stdout').option('--quiet', 'show no progress');
}

function addServe(program: CheckedCommand): void {
  const command = program
    .command('serve')
    .description('Run an orchestrator: accepts jobs over gRPC and runs them on kernel nodes.')
    .option('--listen <host:port>', 'address to listen on; port 0 takes a free one', hostPort, DEFAULT_ENDPOINT)
    .option(
      '--http-listen <host:port>',
      'address for HTTP: jobs as JSON, health, metrics; HTTPS with --tls-cert; other machines are let in with --tls-cert and tokens, or --insecure (default: none)',
      hostPort,
    )
    .addOption(metricsListen())
    .option('--advertise <host:port>', 'address at which kernel nodes reach this process (default: the one listened on)', hostPort)
    .requiredOption(
      '--node <address>',
      'kernel nodes: HOST:PORT of one; dns:HOST:PORT, all addresses of a name; endpointslices:NAMESPACE/SERVICE:PORT, the endpoints of a Kubernetes service; repeat it for more',
      repeatable(nodeSource),
    )
    .requiredOption(
      '--root <dir>',
      'folder, or s3://BUCKET/PREFIX, that jobs may read from and write to; repeat it for more',
      repeatable(String),
    )
    .option(
      '--state <where>',
      'where jobs are kept: a postgres:// URL, which several orchestrators may share; a folder; or memory, until the process ends ' +
        '(default: DATABASE_URL of the environment, or ~/.local/state/secateur)',
    )
    .addOption(staging())
    .option('--concurrent-jobs <n>', 'jobs to run at once; the others wait', wholeNumber(1), 1)
    .option('--lease <seconds>', 'a job whose orchestrator has been silent for so long goes to another one', wholeNumber(3), 15)
    .option('--keep-jobs <days>', 'how long jobs are kept after their end', wholeNumber(1), 30)
    .option('--tenants <file>', 'JSON file with the limits and folders of tenants (docs/jobs.md)')
    .option(
      '--controller [namespace]',
      'make PruneJobs of Kubernetes jobs: those of a namespace, of the own one when it is left out, or of all with *; orchestrators elect one that does (docs/operations.md)',
      namespaces,
    )
    .addOption(healthListen())
    .addOption(logLevel());
  withTokenOptions(withServiceSecurity(command))
    .example(
      'secateur serve --listen 0.0.0.0:7400 --advertise 10.0.0.4:7400 --node 10.0.0.5:7401 --node 10.0.0.6:7401 --root /models --tls-cert orchestrator.crt --tls-key orchestrator.key --tls-ca ca.crt --tokens tokens.json',
    )
    .action(async (options: unknown) => {
      const { serve } = await import('./commands/serve.js');
      await serve(options as Parameters<typeof serve>[0]);
    });
}

function addNode(program: CheckedCommand): void {
  const command = program
    .command('node')
    .description('Run a kernel node: computes for orchestrators.')
    .option('--listen <host:port>', 'address to listen on; port 0 takes a free one', hostPort, DEFAULT_NODE_ADDRESS)
    .addOption(metricsListen())
    .option('--name <name>', 'name in reports and traces (default: host name and process id)')
    .addOption(backend())
    .option(
      '--threads <n>',
      'threads that compute; 0 = one per processor, of --cpus or --numa-node where given',
      wholeNumber(0, MAXIMUM_THREADS),
      0,
    )
    .option('--cpus <list>', 'processors to bind the threads to, one each, such as 0-7,16-23 (Linux)', cpuList)
    .option('--numa-node <n>', 'NUMA node whose processors, unless --cpus names some, and memory to use (Linux)', wholeNumber(0))
    .option('--memory <size>', 'memory the engine may use, such as 8GiB (default: 80 % of what there is)', byteSize)
    .option(
      '--root <dir>',
      'folder that this node shares with the orchestrator under the same path, or s3://BUCKET/PREFIX that it reaches too: checkpoints are read there instead of being pulled; repeat it for more',
      repeatable(String),
    )
    .option('--drain-timeout <seconds>', 'how long the steps that run at SIGTERM may take to end', wholeNumber(0), 25)
    .addOption(healthListen())
    .addOption(logLevel());
  withServiceSecurity(command)
    .example('secateur node --listen 0.0.0.0:7401 --tls-cert node.crt --tls-key node.key --tls-ca ca.crt --threads 16 --memory 64GiB')
    .action(async (options: unknown) => {
      const { node } = await import('./commands/node.js');
      await node(options as Parameters<typeof node>[0]);
    });
}

const JOB_STATES: Readonly<Record<string, JobState>> = {
  queued: JobState.QUEUED,
  planning: JobState.PLANNING,
  running: JobState.RUNNING,
  paused: JobState.PAUSED,
  succeeded: JobState.SUCCEEDED,
  failed: JobState.FAILED,
  cancelled: JobState.CANCELLED,
};

function addJobs(program: CheckedCommand): void {
  const jobs = program.command('jobs').description('List, read, watch, pause, resume, cancel and delete the jobs of an orchestrator.');
  const load = () => import('./commands/jobs.js');
  const listCommand = jobs
    .command('list')
    .description('List the jobs, newest first.')
    .option(
      '--state <states>',
      `only jobs in these states, separated by commas: ${Object.keys(JOB_STATES).join(', ')}`,
      choices(JOB_STATES),
    )
    .option('--limit <n>', 'only so many, the newest (default: all)', wholeNumber(1));
  withEndpoint(listCommand.example('secateur jobs list --state queued,running --limit 20 --endpoint 10.0.0.1:7400')).action(
    async (options: EndpointFlags & { state?: JobState[]; limit?: number }) => (await load()).listJobs(options),
  );
  const addJobCommand = (name: string, description: string, run: (job: string, options: EndpointFlags) => Promise<void>): void => {
    const command = jobs.command(name).description(description).argument('<job>', 'id of the job');
    withEndpoint(command.example(`secateur jobs ${name} qwen-70 --endpoint 10.0.0.1:7400`)).action(run);
  };
  addJobCommand('get', 'Show a job.', async (job, options) => (await load()).getJob(job, options));
  addJobCommand('watch', 'Show what happens in a job until it ends.', async (job, options) => (await load()).watchJob(job, options));
  addJobCommand('cancel', 'Stop a job; its finished layers are kept.', async (job, options) => (await load()).cancelJob(job, options));
  addJobCommand('pause', 'Set a job aside; it stops computing and waits until it is resumed.', async (job, options) =>
    (await load()).pauseJob(job, options),
  );
  addJobCommand('resume', 'Make a paused, failed or cancelled job go on after its last finished layer.', async (job, options) =>
    (await load()).resumeJob(job, options),
  );
  const deleteCommand = jobs
    .command('delete')
    .description('Forget a job that has ended, and delete its unfinished output.')
    .argument('<job>', 'id of the job')
    .option('--delete-output', 'also delete the finished output');
  withEndpoint(deleteCommand.example('secateur jobs delete qwen-70 --endpoint 10.0.0.1:7400')).action(
    async (job: string, options: EndpointFlags & { deleteOutput?: boolean }) => (await load()).deleteJob(job, options),
  );
  addJobCommand('report', 'Show what a finished job found.', async (job, options) => (await load()).reportJob(job, options));
}

function addNodes(program: CheckedCommand): void {
  const command = program.command('nodes').description('List the kernel nodes of an orchestrator and their health.');
  withEndpoint(command.example('secateur nodes --endpoint 10.0.0.1:7400')).action(async (options: EndpointFlags) => {
    const { listNodes } = await import('./commands/jobs.js');
    await listNodes(options);
  });
}

function addTrace(program: CheckedCommand): void {
  const command = program
    .command('trace')
    .description('Write the recorded trace of a job (secateur prune --trace-out asks for one) as a file that ui.perfetto.dev opens.')
    .argument('<job>', 'id of the job')
    .requiredOption('--out <file>', 'file to write')
    .option('--endpoint <host:port>', 'address of the orchestrator', hostPort, DEFAULT_ENDPOINT);
  withConnectionSecurity(command)
    .example('secateur trace qwen-70 --out trace.json')
    .action(async (job: string, options: ConnectionFlags & { out: string }) => {
      const { traceJob } = await import('./commands/jobs.js');
      await traceJob(job, options);
    });
}

function addToken(program: CheckedCommand): void {
  program
    .command('token')
    .description(
      'Make a token for a caller of an orchestrator, and the entry by which its --tokens file knows it. The token is shown this once.',
    )
    .requiredOption('--name <name>', 'who calls, for people and the audit log')
    .option('--tenant <name>', 'whose jobs the caller sees', 'default')
    .addOption(
      new Option('--role <role>', 'what the caller may do; administrators see the jobs of all')
        .choices(['user', 'administrator'])
        .default('user'),
    )
    .option('--tokens <file>', 'add the entry to this file, made where there is none, and print the token alone')
    .option('--json', 'print one JSON document on stdout')
    .example('secateur token --name alice --tenant research --tokens tokens.json > alice.token')
    .action(async (options: unknown) => {
      const { token } = await import('./commands/token.js');
      await token(options as Parameters<typeof token>[0]);
    });
}

interface EndpointFlags extends ConnectionFlags {
  readonly json?: boolean;
}

function withEndpoint(command: CheckedCommand): CheckedCommand {
  command
    .option('--endpoint <host:port>', 'address of the orchestrator', hostPort, DEFAULT_ENDPOINT)
    .option('--json', 'print one JSON document on stdout');
  return withConnectionSecurity(command);
}

/** Options of the commands that run a job. */
function withJobOptions(command: CheckedCommand): CheckedCommand {
  command
    .addOption(
      offered(
        '--compute <type>',
        'what matrix products take in: f32, bf16 where that is faster, or f16 on GPUs, which keeps the weights of a float16 checkpoint exact',
        { f32: Compute.F32, bf16: Compute.BF16, f16: Compute.F16 },
        'f32',
      ),
    )
    .addOption(
      offered(
        '--hidden-states <type>',
        'what hidden states are kept in between blocks: f32, or bf16 for half their memory',
        { f32: HiddenStates.F32, bf16: HiddenStates.BF16 },
        'f32',
      ),
    )
    .addOption(
      new Option('--endpoint <host:port>', 'address of a running orchestrator')
        .argParser(hostPort)
        .conflicts(['nodes', 'threads', 'backend']),
    )
    .option(
      '--nodes <n>',
      'kernel nodes to start here (default: one for each GPU; without one 2, or 1 on a single processor)',
      wholeNumber(1, MAXIMUM_LOCAL_NODES),
    )
    .option('--threads <n>', 'threads of each node started here; 0 divides the processors', wholeNumber(0, MAXIMUM_THREADS), 0)
    .addOption(backend())
    .option('--json', 'print one JSON document on stdout');
  return withConnectionSecurity(command);
}

function staging(): Option {
  return new Option(
    '--staging <dir>',
    'folder in which a result that goes to s3:// is made before it is sent (default: ~/.local/state/secateur-staging)',
  );
}

/** An option whose values are words; its value is what the word stands for. */
function offered<Value>(flags: string, description: string, words: Readonly<Record<string, Value>>, fallback?: string): Option {
  const option = new Option(flags, description).argParser(choice(words));
  return fallback === undefined ? option : option.default(words[fallback], fallback);
}

function backend(): Option {
  return new Option('--backend <name>', 'what computes').choices(['auto', 'cpu', 'cuda']).default('auto');
}

function healthListen(): Option {
  return new Option('--health-listen <host:port>', 'answer health checks here too, in plain text and nothing else').argParser(hostPort);
}

function logLevel(): Option {
  return new Option('--log-level <level>', 'what to log on stderr').choices(['debug', 'info', 'warn', 'error']).default('info');
}

function metricsListen(): Option {
  const description = 'address for HTTP with health and metrics alone; port 0 takes a free one (default: none)';
  return new Option('--metrics-listen <host:port>', description).argParser(hostPort);
}
