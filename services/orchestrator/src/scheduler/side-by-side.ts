/** Runs works side by side and returns what they give. The first that fails stops the others; its error is thrown when all have ended. */
export async function sideBySide<Results extends readonly unknown[]>(
  works: { readonly [Place in keyof Results]: (signal: AbortSignal) => Promise<Results[Place]> },
  signal: AbortSignal,
): Promise<Results> {
  const stop = new AbortController();
  const linked = AbortSignal.any([signal, stop.signal]);
  const failures: unknown[] = [];
  const results = await Promise.all(
    works.map(async (work) => {
      try {
        return await work(linked);
      } catch (error) {
        failures.push(error);
        stop.abort(error);
        return undefined;
      }
    }),
  );
  if (failures.length > 0) throw failures[0];
  return results as unknown as Results;
}
