/** Transfers whose ends differ by less than this share end together. */
const ROUNDING = 1e-9;

/**
 * Something that transfers share: a network link, a disk, the one thread of a process.
 * @typedef {{ readonly name: string, readonly perSecond: number, used: number }} Link
 */

/**
 * An amount that is on its way.
 * @typedef {object} Transfer
 * @property {number} left
 * @property {number} rate in a second
 * @property {readonly (readonly [Link, number])[]} uses
 * @property {string} kind
 * @property {() => void} end
 */

/** @param {string} name @param {number} perSecond what it can give in a second, in its own unit @returns {Link} */
export function makeLink(name, perSecond) {
  return { name, perSecond, used: 0 };
}

/**
 * Transfers under way, each of which takes what it needs of one or more links. Whenever one begins or ends, all get new rates: the link that is most
 * in demand is split evenly, what its transfers leave of others goes to the rest (max-min fairness).
 */
export class SharedLinks {
  /** @type {Set<Transfer>} */
  #transfers = new Set();
  #clock;
  #isStale = false;
  #generation = 0;
  #lastSeen = 0;

  /** @param {import('./virtual-clock.mjs').VirtualClock} clock */
  constructor(clock) {
    this.#clock = clock;
  }

  /**
   * Resolves when the amount has passed. `uses`: what one unit takes of each link, in that link's unit. `kind`: for `sharesOf`.
   * @param {number} amount @param {readonly (readonly [Link, number])[]} uses @param {string} [kind] @returns {Promise<void>}
   */
  transfer(amount, uses, kind = '') {
    const used = uses.filter(([, perUnit]) => perUnit > 0);
    if (amount === 0 || used.length === 0) return Promise.resolve();
    return new Promise((end) => {
      this.#advance();
      this.#transfers.add({ left: amount, rate: 0, uses: used, kind, end });
      this.#replan();
    });
  }

  /** Shares of what a link gives at this moment, by kind. @param {Link} link @returns {Record<string, number>} */
  sharesOf(link) {
    /** @type {Record<string, number>} */
    const given = {};
    let all = 0;
    for (const { uses, kind, rate } of this.#transfers) {
      const [, perUnit] = uses.find(([used]) => used === link) ?? [link, 0];
      if (perUnit === 0 || rate === 0) continue;
      given[kind] = (given[kind] ?? 0) + rate * perUnit;
      all += rate * perUnit;
    }
    return Object.fromEntries(Object.entries(given).map(([kind, rate]) => [kind, rate / all]));
  }

  /** All that begins or ends at one moment changes rates once. */
  #replan() {
    if (this.#isStale) return;
    this.#isStale = true;
    this.#clock.after(0, () => {
      this.#isStale = false;
      this.#advance();
      this.#setRates();
      const secondsOf = (/** @type {Transfer} */ { left, rate }) => left / rate;
      const next = Math.min(...[...this.#transfers].map(secondsOf));
      if (next === Infinity) return;
      // Named now: late in a long job the seconds that rounding leaves may be too few for the clock to move.
      const ending = [...this.#transfers].filter((transfer) => secondsOf(transfer) <= next * (1 + ROUNDING));
      const generation = ++this.#generation;
      this.#clock.after(next, () => {
        if (generation === this.#generation) this.#finish(ending);
      });
    });
  }

  /** @param {readonly Transfer[]} ending */
  #finish(ending) {
    this.#advance();
    for (const transfer of ending) {
      this.#transfers.delete(transfer);
      transfer.end();
    }
    this.#replan();
  }

  #advance() {
    const seconds = this.#clock.now - this.#lastSeen;
    this.#lastSeen = this.#clock.now;
    if (seconds === 0) return;
    for (const transfer of this.#transfers) {
      const passed = transfer.rate * seconds;
      transfer.left = Math.max(0, transfer.left - passed);
      for (const [link, perUnit] of transfer.uses) link.used += passed * perUnit;
    }
  }

  #setRates() {
    /** What each link has left to give. @type {Map<Link, { left: number, transfers: number }>} */
    const links = new Map();
    const stateOf = (/** @type {Link} */ link) => {
      const state = links.get(link) ?? { left: link.perSecond, transfers: 0 };
      links.set(link, state);
      return state;
    };
    for (const { uses } of this.#transfers) for (const [link] of uses) stateOf(link).transfers += 1;
    const waiting = new Map(
      [...this.#transfers].map((transfer) => [transfer, transfer.uses.map(([link, perUnit]) => ({ state: stateOf(link), perUnit }))]),
    );
    while (waiting.size > 0) {
      /** @type {Transfer | undefined} */
      let slowest;
      let rate = Infinity;
      for (const [transfer, uses] of waiting) {
        const possible = Math.min(...uses.map(({ state, perUnit }) => state.left / state.transfers / perUnit));
        if (possible < rate) [slowest, rate] = [transfer, possible];
      }
      if (slowest === undefined) throw new Error('Nothing limits the transfers that are left.');
      slowest.rate = rate;
      for (const { state, perUnit } of waiting.get(slowest) ?? []) {
        state.left -= rate * perUnit;
        state.transfers -= 1;
      }
      waiting.delete(slowest);
    }
  }
}
