import { Resolver } from 'node:dns/promises';
import { describe, expect, test } from '@jest/globals';
import dns2, { type DnsResponse } from 'dns2';
import { pino } from 'pino';
import { Reports } from '../../test/reports.js';
import { DnsDiscovery } from './dns-discovery.js';

const HOST = 'nodes.test.svc.cluster.local';
/** Of DNS: there is no such name; the server fails. */
const NAME_ERROR = 3;
const SERVER_FAILURE = 2;

interface Zone {
  ipv4: string[];
  ipv6: string[];
  failure: number | undefined;
}

/** A real DNS server on loopback that answers for one name what the zone says at that time. */
async function startDnsServer(zone: Zone): Promise<{ address: string; close: () => Promise<void> }> {
  const server = dns2.createServer({
    udp: true,
    handle: (request, send) => {
      // The types leave out what a response is made of.
      const response = dns2.Packet.createResponseFromRequest(request) as DnsResponse & { header: { rcode: number } };
      const [question] = request.questions as unknown as { name: string; type: number }[];
      if (zone.failure !== undefined) response.header.rcode = zone.failure;
      else if (question?.name !== HOST) response.header.rcode = NAME_ERROR;
      else {
        const addresses = question.type === dns2.Packet.TYPE.A ? zone.ipv4 : zone.ipv6;
        for (const address of addresses) {
          response.answers.push({ name: HOST, type: question.type, class: dns2.Packet.CLASS.IN, ttl: 0, address });
        }
      }
      send(response);
    },
  });
  const listening = new Promise<string>((resolve) => {
    server.on('listening', ({ udp }) => resolve(`127.0.0.1:${String((udp as { port: number }).port)}`));
  });
  await server.listen({ udp: { port: 0, address: '127.0.0.1' } });
  return { address: await listening, close: () => server.close() };
}

async function withDiscovery(zone: Zone, use: (reports: Reports, zone: Zone) => Promise<void>, host = HOST): Promise<void> {
  const server = await startDnsServer(zone);
  const stop = new AbortController();
  try {
    const resolver = new Resolver({ timeout: 500, tries: 1 });
    resolver.setServers([server.address]);
    const discovery = new DnsDiscovery({ host, port: 7401 }, pino({ enabled: false }), resolver, 20);
    const reports = new Reports();
    const first = reports.next();
    discovery.start(reports.add, stop.signal);
    await first;
    await use(reports, zone);
  } finally {
    stop.abort();
    await server.close();
  }
}

describe('the nodes behind a name', () => {
  test('are its addresses of both kinds', () =>
    withDiscovery({ ipv4: ['10.0.0.7', '10.0.0.5'], ipv6: ['fd00::9'], failure: undefined }, ({ seen }) => {
      expect(seen[0]).toEqual(['10.0.0.5:7401', '10.0.0.7:7401', '[fd00::9]:7401']);
      return Promise.resolve();
    }));

  test('come and go', () =>
    withDiscovery({ ipv4: ['10.0.0.5'], ipv6: [], failure: undefined }, async (reports, zone) => {
      zone.ipv4 = ['10.0.0.6', '10.0.0.5'];
      expect(await reports.next()).toEqual(['10.0.0.5:7401', '10.0.0.6:7401']);
      zone.ipv4 = [];
      expect(await reports.next()).toEqual([]);
    }));

  test('stay while the server fails', () =>
    withDiscovery({ ipv4: ['10.0.0.5'], ipv6: [], failure: undefined }, async (reports, zone) => {
      zone.failure = SERVER_FAILURE;
      await new Promise((resolve) => setTimeout(resolve, 100));
      zone.failure = undefined;
      zone.ipv4 = ['10.0.0.6'];
      expect(await reports.next()).toEqual(['10.0.0.6:7401']);
      expect(reports.seen).toEqual([['10.0.0.5:7401'], ['10.0.0.6:7401']]);
    }));

  test('are none when there is no such name', () =>
    withDiscovery(
      { ipv4: ['10.0.0.5'], ipv6: [], failure: undefined },
      ({ seen }) => {
        expect(seen[0]).toEqual([]);
        return Promise.resolve();
      },
      'other.test.svc.cluster.local',
    ));
});
