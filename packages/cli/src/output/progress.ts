import { JobState, type JobEvent, type JobEvent_AttemptStarted } from '@secateur/proto/job';
import { SingleBar } from 'cli-progress';
import { formatBytes, formatLayerLine, formatPlan, formatTimeLeft } from './format.js';

/** Shows how a job goes on. */
export interface Progress {
  onEvent(event: JobEvent): void;
  stop(): void;
}

const SILENT: Progress = { onEvent: () => undefined, stop: () => undefined };
const SILENT_BYTES: ByteProgress = { onProgress: () => undefined, stop: () => undefined };

/** Shows how far a work on so many bytes is. */
export interface ByteProgress {
  onProgress(doneBytes: number, totalBytes: number): void;
  stop(): void;
}

/** A live bar on a terminal, a line for each tenth elsewhere, nothing when quiet. On stderr: stdout is for results. */
export function createByteProgress(quiet: boolean): ByteProgress {
  if (quiet) return SILENT_BYTES;
  return process.stderr.isTTY ? createByteBar() : createByteLines((line) => process.stderr.write(`${line}\n`));
}

/** One line for each tenth of the work. */
export function createByteLines(write: (line: string) => void): ByteProgress {
  let tenths = 0;
  return {
    onProgress: (doneBytes, totalBytes) => {
      const reached = Math.floor((10 * doneBytes) / totalBytes);
      if (reached <= tenths) return;
      tenths = reached;
      write(`${10 * tenths} % of ${formatBytes(totalBytes)}`);
    },
    stop: () => undefined,
  };
}

function createByteBar(): ByteProgress {
  const bar = new SingleBar({
    format: '{bar} {percentage} % of {of}  {left}',
    stream: process.stderr,
    hideCursor: true,
    clearOnComplete: true,
  });
  const startedMs = performance.now();
  return {
    onProgress: (doneBytes, totalBytes) => {
      const seconds = (performance.now() - startedMs) / 1000;
      const payload = {
        of: formatBytes(totalBytes),
        left: formatTimeLeft({ seconds, finished: doneBytes, remaining: totalBytes - doneBytes }),
      };
      if (bar.isActive) bar.update(doneBytes, payload);
      else bar.start(totalBytes, doneBytes, payload);
    },
    stop: () => bar.stop(),
  };
}

/** A live bar on a terminal, plain lines elsewhere, nothing when quiet. On stderr: stdout is for results. */
export function createProgress(quiet: boolean): Progress {
  if (quiet) return SILENT;
  return process.stderr.isTTY ? createBar() : createLines((line) => process.stderr.write(`${line}\n`));
}

/** One line per event that people care about. */
export function createLines(write: (line: string) => void): Progress {
  return {
    onEvent: ({ event }) => {
      switch (event?.$case) {
        case 'planned':
          write(formatPlan(event.value));
          break;
        case 'layerFinished':
          write(formatLayerLine(event.value));
          break;
        case 'nodeJoined':
          write(`node ${event.value.name} joined (${event.value.address})`);
          break;
        case 'nodeLost':
          write(
            `node ${event.value.name} lost (${event.value.address}): ${event.value.reason.replace(/\.$/, '')}; its work goes to the nodes that are left`,
          );
          break;
        case 'snapshotFailed':
          write(`hidden states after layer ${event.value.layer} are not kept, the job goes on without: ${event.value.reason}`);
          break;
        case 'attemptStarted':
          if (event.value.attempt > 1) write(formatAttempt(event.value));
          break;
        case 'stateChanged':
          if (event.value.state === JobState.PAUSED) write('paused; it waits until it is resumed');
          break;
        case 'progress':
        case undefined:
          break;
      }
    },
    stop: () => undefined,
  };
}

function formatAttempt({ attempt, orchestrator, afterLoss }: JobEvent_AttemptStarted): string {
  return `attempt ${attempt} on ${orchestrator}${afterLoss ? ', as the orchestrator before it was lost' : ''}`;
}

function createBar(): Progress {
  const bar = new SingleBar({
    format: '{bar} layer {layer}/{layers}  {step} {done}/{of}  {left}',
    stream: process.stderr,
    hideCursor: true,
    clearOnComplete: true,
  });
  // Lines that must not be overwritten go above the bar.
  const lines = createLines((line) => {
    bar.stop();
    process.stderr.write(`${line}\n`);
  });
  let layers = 0;
  let resumed = 0;
  let finished = 0;
  let startedMs = performance.now();
  const show = (layer: number, step: string, done: number, of: number): void => {
    // Bars count layers; the time left is ours because theirs forgets the layers before a line was written above the bar.
    const seconds = (performance.now() - startedMs) / 1000;
    const left = formatTimeLeft({ seconds, finished: finished - resumed, remaining: layers - finished });
    const payload = { layer: Math.min(layer + 1, layers), layers, step, done, of, left };
    if (bar.isActive) bar.update(finished, payload);
    else bar.start(Math.max(layers, 1), finished, payload);
  };
  return {
    onEvent: (entry) => {
      const { event } = entry;
      if (event?.$case === 'planned') {
        layers = event.value.layers;
        resumed = event.value.resumedLayers;
        finished = resumed;
        startedMs = performance.now();
        lines.onEvent(entry);
      } else if (event?.$case === 'progress') {
        // Replaying after the loss of a node goes through layers that are finished already.
        finished = Math.max(finished, event.value.layer);
        show(event.value.layer, event.value.step, event.value.done, event.value.total);
      } else if (event?.$case === 'layerFinished') {
        finished = event.value.layer + 1;
        show(event.value.layer, 'done', 1, 1);
      } else if (event?.$case === 'nodeLost' || event?.$case === 'snapshotFailed' || event?.$case === 'attemptStarted') {
        lines.onEvent(entry);
      }
    },
    stop: () => bar.stop(),
  };
}
