// Generates the code and descriptors in proto/gen from the .proto files.
import { refreshGeneratedFiles } from './lib/protobuf.mjs';

const refreshed = await refreshGeneratedFiles();
console.log(refreshed.length === 0 ? 'proto/gen is up to date.' : `Written to proto/gen: ${refreshed.join(', ')}`);
