// Does in a process of its own what tests of IsolatedProcess ask for.
import { serveRequests } from '../dist/isolation/serve-requests.js';
import { SecateurError } from '@secateur/core';

/** @param {{ do: 'ask' | 'refuse' | 'fail' | 'hang' | 'fill', question: unknown }} request @param {(question: unknown) => Promise<unknown>} ask */
async function serve(request, ask) {
  switch (request.do) {
    case 'ask':
      return ask(request.question);
    case 'refuse':
      throw new SecateurError('INVALID_DATA', 'It is refused.');
    case 'fail':
      throw new TypeError('a defect');
    case 'hang':
      for (;;);
    case 'fill': {
      const values = [];
      for (;;) values.push({});
    }
  }
}

serveRequests(serve);
