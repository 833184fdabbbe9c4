// Property tests try the same inputs in every run, so that a run can be repeated and a change is judged by what it changed. New inputs:
//   SECATEUR_TEST_SEED=$RANDOM npm test
import fc from 'fast-check';

fc.configureGlobal({ seed: Number(process.env['SECATEUR_TEST_SEED'] ?? 20_250_523) });
