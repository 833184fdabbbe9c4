/** A span of one process; times in nanoseconds from any common origin. */
export interface TimedSpan {
  readonly spanId: string;
  readonly parentSpanId: string;
  readonly start: number;
  readonly end: number;
}

export interface PlacedSpan<Span extends TimedSpan> {
  readonly span: Span;
  readonly lane: number;
  readonly start: number;
  readonly end: number;
}

/**
 * Spans begin at a whole millisecond (the SDK reads Date.now()) and last exactly as long as they took. So each is up to a millisecond
 * early, which makes steps that follow each other overlap a little. Spans may be moved by this much to undo it.
 */
const CLOCK_STEP_NS = 1e6;

/**
 * Spreads spans over lanes such that two spans of a lane either do not overlap or are ancestor and descendant, one inside the other:
 * what viewers need to draw a lane as nested slices. Children stay on the lane of their parent where that is possible.
 */
export function assignLanes<Span extends TimedSpan>(spans: readonly Span[]): PlacedSpan<Span>[] {
  const byId = new Map(spans.map((span) => [span.spanId, span]));
  const depths = new Map<string, number>();
  const depthOf = (span: Span): number => {
    const known = depths.get(span.spanId);
    if (known !== undefined) return known;
    depths.set(span.spanId, 0);
    const parent = byId.get(span.parentSpanId);
    const depth = parent === undefined ? 0 : depthOf(parent) + 1;
    depths.set(span.spanId, depth);
    return depth;
  };
  const ordered = [...spans].sort((left, right) => left.start - right.start || depthOf(left) - depthOf(right) || right.end - left.end);

  const placed = new Map<string, PlacedSpan<Span>>();
  /** The parent of each placed span, if that was placed before it. */
  const parents = new Map<Span, Span | undefined>();
  const lanes: PlacedSpan<Span>[][] = [];
  const isAncestor = (candidate: Span, span: Span): boolean => {
    let ancestor = placed.get(span.parentSpanId)?.span;
    while (ancestor !== undefined && ancestor !== candidate) ancestor = parents.get(ancestor);
    return ancestor !== undefined;
  };

  /** Puts the span on a lane, if it fits between and inside what is there. */
  const tryLane = (span: Span, lane: number): boolean => {
    const open = (lanes[lane] ??= []);
    const parent = placed.get(span.parentSpanId);
    let start = Math.max(span.start, parent?.start ?? span.start);
    let depth = open.length;
    let outer = open[depth - 1];
    while (outer !== undefined && !(isAncestor(outer.span, span) && start < outer.end)) {
      if (outer.end - span.start >= CLOCK_STEP_NS) return false;
      start = Math.max(start, outer.end);
      depth -= 1;
      outer = open[depth - 1];
    }
    let end = span.end + (start - span.start);
    if (outer !== undefined && end > outer.end) {
      if (span.end - outer.end >= CLOCK_STEP_NS) return false;
      end = Math.max(start, outer.end);
    }
    open.length = depth;
    const place = { span, lane, start, end };
    open.push(place);
    placed.set(span.spanId, place);
    parents.set(span, parent?.span);
    return true;
  };

  for (const span of ordered) {
    const preferred = placed.get(span.parentSpanId)?.lane;
    if (preferred !== undefined && tryLane(span, preferred)) continue;
    for (let lane = 0; !tryLane(span, lane); lane++);
  }
  return [...placed.values()];
}
