// Runs a command beside an S3 server that checks signatures and policies, the object gateway of Ceph, which ends with the command:
//   node scripts/with-ceph-store.mjs npm test -- tests/storage
// It needs the programs of Debian's packages radosgw, ceph-mon and ceph-osd. The command finds the server by SECATEUR_TEST_STORE_ENDPOINT and by the
// variables of the AWS tools.
import { CephStore } from './lib/ceph-store.mjs';
import { findExecutable } from './lib/find-executable.mjs';
import { CommandError, runCommand } from './lib/run-command.mjs';

async function main() {
  const [program, ...args] = process.argv.slice(2);
  if (program === undefined) throw new CommandError('Name the command:  node scripts/with-ceph-store.mjs COMMAND …', '');
  const missing = ['ceph-mon', 'ceph-osd', 'radosgw'].filter((name) => findExecutable(name) === undefined);
  if (missing.length > 0) throw new CommandError(`${missing.join(', ')} not found:  apt-get install radosgw ceph-mon ceph-osd`, '');
  const store = new CephStore();
  try {
    await store.start();
    const { code, output } = await runCommand(program, args, { env: store.environment });
    if (code === 127) console.error(output);
    return code;
  } finally {
    await store.stop();
  }
}

// The command is asked to stop by the same key; what was started for it is stopped afterwards.
process.on('SIGINT', () => undefined);
try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof CommandError)) throw error;
  console.error(`${error.message}\n${error.output}`.trimEnd());
  process.exitCode = 1;
}
