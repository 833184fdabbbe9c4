// Generates the code and descriptors in proto/gen from the .proto files. At a release, --baseline also makes them what later ones must not break.
import { refreshGeneratedFiles, writeBaseline } from './lib/protobuf.mjs';

const refreshed = await refreshGeneratedFiles();
console.log(refreshed.length === 0 ? 'proto/gen is up to date.' : `Written to proto/gen: ${refreshed.join(', ')}`);
if (process.argv.includes('--baseline')) {
  await writeBaseline();
  console.log('proto/baseline.binpb is what the .proto files are now.');
}
