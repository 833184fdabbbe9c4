/** @typedef {{ readonly at: number, readonly order: number, readonly happen: () => void }} Event */

/**
 * Time of a simulation. It stands still while the program has something to do, and then leaps to the next moment at which something was to happen:
 * the code under test runs as it is, and only its waits are skipped.
 */
export class VirtualClock {
  /** Seconds. */
  now = 0;
  /** A binary heap, the earliest first. @type {Event[]} */
  #heap = [];
  #scheduled = 0;
  /** @type {((seconds: number) => void)[]} */
  #observers = [];

  /** `observe`: told of every leap before it is made, with the seconds it will take. @param {(seconds: number) => void} observe */
  onLeap(observe) {
    this.#observers.push(observe);
  }

  /** Events of one moment happen in the order they were scheduled. @param {number} seconds from now @param {() => void} happen */
  after(seconds, happen) {
    if (!(seconds >= 0 && seconds < Infinity)) throw new RangeError(`Nothing can happen after ${seconds} seconds.`);
    const heap = this.#heap;
    const event = { at: this.now + seconds, order: this.#scheduled++, happen };
    heap.push(event);
    for (let child = heap.length - 1; child > 0;) {
      const parent = (child - 1) >> 1;
      const before = heap[parent];
      if (before === undefined || !isEarlier(event, before)) break;
      [heap[child], heap[parent]] = [before, event];
      child = parent;
    }
  }

  /** @param {number} seconds @returns {Promise<void>} */
  sleep(seconds) {
    return new Promise((resolve) => this.after(seconds, resolve));
  }

  /**
   * Lets time pass until the work is done. Throws when the work waits for something that never happens.
   * @template Result @param {() => Promise<Result>} work @returns {Promise<Result>}
   */
  async run(work) {
    let isOver = false;
    const result = work().finally(() => {
      isOver = true;
    });
    result.catch(() => undefined);
    for (;;) {
      // All that follows from what just happened comes before this.
      await new Promise((resolve) => setImmediate(resolve));
      if (isOver) return result;
      const [first] = this.#heap;
      if (first === undefined) throw new Error(`At ${this.now} s the simulation waits for something that never happens.`);
      if (first.at > this.now) {
        for (const observe of this.#observers) observe(first.at - this.now);
        this.now = first.at;
      }
      for (let next = this.#takeDue(); next !== undefined; next = this.#takeDue()) next.happen();
    }
  }

  /** The next event that is to happen by now, if there is one. */
  #takeDue() {
    const heap = this.#heap;
    const [first] = heap;
    if (first === undefined || first.at > this.now) return undefined;
    const last = heap.pop();
    if (last === undefined || heap.length === 0) return first;
    heap[0] = last;
    for (let parent = 0; ;) {
      let place = parent;
      let earliest = last;
      for (const child of [2 * parent + 1, 2 * parent + 2]) {
        const event = heap[child];
        if (event !== undefined && isEarlier(event, earliest)) [place, earliest] = [child, event];
      }
      if (place === parent) return first;
      [heap[parent], heap[place]] = [earliest, last];
      parent = place;
    }
  }
}

/** @param {Event} left @param {Event} right */
function isEarlier(left, right) {
  return left.at < right.at || (left.at === right.at && left.order < right.order);
}
