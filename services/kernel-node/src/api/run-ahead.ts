/** One that the engine works on, and one that it finds waiting when it is done. */
const UNDER_WAY = 2;

/**
 * What `make` gives for each item, in order. The engine never waits for the reader: two more are under way while it looks at one. Whatever is
 * under way when the reader stops is waited for, so that nothing goes on behind its back.
 */
export async function* runAhead<Item, Result>(
  items: readonly Item[],
  make: (item: Item) => Promise<Result>,
): AsyncGenerator<readonly [Item, Result], void, undefined> {
  const underWay: Promise<Result>[] = [];
  let begun = 0;
  const begin = (): void => {
    if (begun === items.length) return;
    const making = make(items[begun++]!);
    // Told when it is its turn, which it may never be.
    making.catch(() => undefined);
    underWay.push(making);
  };
  for (let count = 0; count < UNDER_WAY; count++) begin();
  try {
    for (const item of items) {
      const result = await underWay[0]!;
      void underWay.shift();
      begin();
      yield [item, result];
    }
  } finally {
    await Promise.allSettled(underWay);
  }
}
