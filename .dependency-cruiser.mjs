const inTests = '(\\.test\\.ts$|/test/)';

export default {
  forbidden: [
    {
      name: 'no-cycles',
      comment: 'Modules that need each other are one module.',
      severity: 'error',
      from: {},
      to: { circular: true },
    },
    {
      name: 'no-unresolved',
      comment: 'Every import leads somewhere.',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
    {
      name: 'core-is-pure',
      comment: 'packages/core does no I/O: only the wire types and pure libraries.',
      severity: 'error',
      from: { path: '^packages/core/src', pathNot: inTests },
      to: { pathNot: ['^packages/core/src', '^proto/', '^node_modules/(zod|xxhash-wasm|re2js)/'] },
    },
    {
      name: 'only-rpc-knows-grpc',
      severity: 'error',
      from: { path: '^(packages|services|native)/', pathNot: ['^packages/rpc/', inTests] },
      to: { path: 'node_modules/@grpc/' },
    },
    {
      name: 'only-kernel-node-uses-the-engine',
      severity: 'error',
      from: { path: '^(packages|services|proto)/', pathNot: '^services/kernel-node/' },
      to: { path: '^native/' },
    },
    {
      name: 'services-stay-apart',
      comment: 'Services talk over gRPC.',
      severity: 'error',
      from: { path: '^services/([^/]+)/' },
      to: { path: '^services/', pathNot: '^services/$1/' },
    },
    {
      name: 'packages-know-no-services',
      comment: 'Only the command starts services.',
      severity: 'error',
      from: { path: '^(packages|proto|native)/', pathNot: '^packages/cli/' },
      to: { path: '^services/' },
    },
    {
      name: 'only-k8s-knows-kubernetes',
      comment: 'The client takes a second to load, so it is loaded where it is needed, when it is needed.',
      severity: 'error',
      from: { path: '^(packages|services|native)/', pathNot: '^services/orchestrator/src/k8s/' },
      to: { path: 'node_modules/@kubernetes/' },
    },
    {
      name: 'help-waits-for-nothing',
      comment: 'gRPC takes a quarter of a second to load; commands load it, and what else they need, when they run.',
      severity: 'error',
      from: { path: '^packages/cli/src/(main|program|input/(checked-command|option-parsers|security-options)|output/exit)\\.ts$' },
      to: { path: '^(packages/(?!cli/|core/)|services|native)', dependencyTypesNot: ['dynamic-import', 'type-only'] },
    },
    {
      name: 'only-telemetry-sets-up-opentelemetry',
      severity: 'error',
      from: { path: '^(packages|services|native)/', pathNot: ['^packages/telemetry/', inTests] },
      to: { path: 'node_modules/@opentelemetry/(sdk-|exporter-|auto-|resources)' },
    },
    {
      name: 'workspaces-by-name',
      comment: 'Another workspace is imported by its package name, never by a path into its sources.',
      severity: 'error',
      from: { path: '^((?:packages|services|native)/[^/]+)/' },
      to: { path: '^(packages|services|native)/[^/]+/(src|ts)/', pathNot: '^$1/' },
    },
    {
      name: 'no-tests-in-products',
      severity: 'error',
      from: { path: '^(packages|services|native)/', pathNot: inTests },
      to: { path: ['^tests/', inTests] },
    },
  ],
  options: {
    doNotFollow: { path: ['node_modules', '/dist/', '^proto/gen/'] },
    exclude: { path: ['^proto/gen/'] },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.tests.json' },
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'default'],
      extensions: ['.ts', '.js', '.mjs', '.json'],
    },
  },
};
