/** Sources are compiled by swc one file at a time; other workspaces are loaded from their dist/, as at run time (`npm run build` first). */
const ignored = ['/node_modules/', '/dist/', '/build/', '/out/'];
const shared = {
  rootDir: import.meta.dirname,
  testEnvironment: 'node',
  extensionsToTreatAsEsm: ['.ts'],
  setupFiles: ['<rootDir>/tests/support/property-seed.mjs'],
  transform: {
    '^.+\\.ts$': ['@swc/jest', { jsc: { target: 'es2022', parser: { syntax: 'typescript' }, keepClassNames: true }, sourceMaps: 'inline' }],
  },
  moduleNameMapper: { '^(\\.{1,2}/.*)\\.js$': ['$1.ts', '$1.js'] },
  testPathIgnorePatterns: ignored,
};

export default {
  projects: [
    {
      ...shared,
      displayName: 'unit',
      testMatch: [
        '<rootDir>/{packages,services}/*/src/**/*.test.ts',
        '<rootDir>/native/cuda/ts/**/*.test.ts',
        '<rootDir>/scripts/**/*.test.mjs',
        '<rootDir>/bench/**/*.test.mjs',
      ],
    },
    {
      ...shared,
      displayName: 'system',
      testMatch: ['<rootDir>/tests/**/*.test.ts'],
      testPathIgnorePatterns: [...ignored, '\\.alone\\.test\\.ts$'],
      setupFilesAfterEnv: ['<rootDir>/tests/support/after-all.ts'],
    },
    {
      ...shared,
      displayName: 'alone',
      testMatch: ['<rootDir>/tests/**/*.alone.test.ts'],
      setupFilesAfterEnv: ['<rootDir>/tests/support/after-all.ts'],
    },
  ],
  maxWorkers: 2,
  testTimeout: 120_000,
};
