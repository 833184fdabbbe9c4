/** What a discovery reports, one report after the other. */
export class Reports {
  private readonly waiting: ((addresses: readonly string[]) => void)[] = [];
  readonly seen: (readonly string[])[] = [];

  readonly add = (addresses: readonly string[]): void => {
    this.seen.push(addresses);
    this.waiting.shift()?.(addresses);
  };

  /** Resolves with the next report that comes. */
  next(): Promise<readonly string[]> {
    return new Promise((resolve) => this.waiting.push(resolve));
  }
}
