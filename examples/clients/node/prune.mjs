// Prunes a model on a running service with the client library:
//   node examples/clients/node/prune.mjs HOST:PORT JOB_ID MODEL CALIBRATION OUTPUT
import { JobState, PruningClient } from '@secateur/client';

const [address, jobId, model, path, output] = process.argv.slice(2);
if (output === undefined) throw new Error('usage: prune.mjs HOST:PORT JOB_ID MODEL CALIBRATION OUTPUT');

const client = PruningClient.connect(address);
try {
  // An id and a spec that exist already give the job that exists, so this may be repeated.
  await client.createJob({ jobId, spec: { kind: { $case: 'prune', value: { model, output, sparsity: 0.7, calibration: { path } } } } });
  // Goes on by itself after a broken connection or a restart of the service.
  for await (const { event } of client.watchJob(jobId)) {
    if (event?.$case === 'layerFinished') console.log(`layer ${event.value.layer} is pruned`);
    if (event?.$case === 'stateChanged') console.log(JobState[event.value.state] ?? event.value.state);
  }
  const { report } = await client.getReport(jobId);
  if (report?.$case === 'prune') console.log(`sparsity ${report.value.actualSparsity}`);
  for await (const { id } of client.listJobs()) console.log(`job ${id}`);
} finally {
  client.close();
}
