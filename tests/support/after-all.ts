import { afterAll } from '@jest/globals';
import { killLeftovers } from './leftovers.js';

// What a failed test did not stop: the runner would wait for it for ever.
afterAll(killLeftovers);
