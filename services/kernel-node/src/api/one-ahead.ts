/**
 * What `make` gives for each item, in order; while the reader looks at one, the next is being made. Whatever is being made when the reader
 * stops is waited for, so that nothing goes on behind its back.
 */
export async function* oneAhead<Item, Result>(
  items: readonly Item[],
  make: (item: Item) => Promise<Result>,
): AsyncGenerator<readonly [Item, Result], void, undefined> {
  const begin = (place: number): Promise<Result> | undefined => {
    const making = place < items.length ? make(items[place]!) : undefined;
    // Told when it is its turn, which it may never be.
    making?.catch(() => undefined);
    return making;
  };
  let next = begin(0);
  try {
    for (const [place, item] of items.entries()) {
      const result = await next!;
      next = begin(place + 1);
      yield [item, result];
    }
  } finally {
    await next?.catch(() => undefined);
  }
}
