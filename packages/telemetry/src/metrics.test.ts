import { expect, test } from '@jest/globals';
import { count, observe, recordSeconds } from './metrics.js';
import { startTelemetry } from './telemetry.js';

test('what is counted, recorded and observed once somebody reads metrics is what is read', async () => {
  count('SENT', 1_000);
  const telemetry = await startTelemetry({ serviceName: 'secateur-test', serviceVersion: '1.2.3', instanceId: 'here' }, { metrics: true });
  try {
    let nodes = 2;
    observe('NODES', () => [{ value: nodes, attributes: { 'secateur.node.healthy': true } }]);
    count('SENT', 5);
    count('SENT', 7);
    recordSeconds('LAYER_DURATION', 0.25);
    recordSeconds('LAYER_DURATION', 45);
    nodes = 3;
    const text = await telemetry.readMetrics();
    expect(text).toMatch(/^# HELP secateur_fetch_sent_total Bytes sent by TensorService\.$/m);
    expect(text).toMatch(/^secateur_fetch_sent_total 12$/m);
    expect(text).toMatch(/^secateur_nodes\{secateur_node_healthy="true"\} 3$/m);
    expect(text).toMatch(/^secateur_layer_duration_bucket\{le="0.5"\} 1$/m);
    expect(text).toMatch(/^secateur_layer_duration_sum 45.25$/m);
    expect(text).toMatch(/service_name="secateur-test"/);

    // What cannot be read is left out, and all else is told.
    observe('PENDING_LAYERS', () => (nodes === 3 ? Promise.resolve([{ value: 32 }]) : Promise.reject(new Error('The database is gone.'))));
    expect(await telemetry.readMetrics()).toMatch(/^secateur_layers_pending 32$/m);
    nodes = 4;
    const rest = await telemetry.readMetrics();
    expect(rest).toMatch(/^secateur_nodes\{secateur_node_healthy="true"\} 4$/m);
    expect(rest).not.toMatch(/^secateur_layers_pending/m);

    // Nor does what does not answer keep the rest from being told.
    observe('JOBS', () => new Promise(() => undefined), 50);
    expect(await telemetry.readMetrics()).toMatch(/^secateur_nodes\{secateur_node_healthy="true"\} 4$/m);
  } finally {
    await telemetry.shutdown();
  }
});
