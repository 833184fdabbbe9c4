/**
 * Time of a simulation. It stands still while the program has something to do, and then leaps to the next moment at which something was to happen:
 * the code under test runs as it is, and only its waits are skipped.
 */
export class VirtualClock {
  /** Seconds. */
  now = 0;
  /** @type {{ at: number, order: number, happen: () => void }[]} A binary heap, the earliest first. */
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
    heap.push({ at: this.now + seconds, order: this.#scheduled++, happen });
    for (let child = heap.length - 1; child > 0;) {
      const parent = (child - 1) >> 1;
      if (!isEarlier(heap[child], heap[parent])) break;
      [heap[child], heap[parent]] = [heap[parent], heap[child]];
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
      while (this.#heap.length > 0 && this.#heap[0].at <= this.now) this.#take().happen();
    }
  }

  #take() {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (heap.length === 0) return first;
    heap[0] = last;
    for (let parent = 0; ;) {
      let earliest = parent;
      for (const child of [2 * parent + 1, 2 * parent + 2]) {
        if (child < heap.length && isEarlier(heap[child], heap[earliest])) earliest = child;
      }
      if (earliest === parent) return first;
      [heap[earliest], heap[parent]] = [heap[parent], heap[earliest]];
      parent = earliest;
    }
  }
}

/** @param {{ at: number, order: number }} left @param {{ at: number, order: number }} right */
function isEarlier(left, right) {
  return left.at < right.at || (left.at === right.at && left.order < right.order);
}
