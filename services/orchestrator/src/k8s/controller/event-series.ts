import { createHash } from 'node:crypto';
import type { Occurrence } from './prune-job-events.js';

/** The same again after so long is an Event of its own. */
const GAP_MS = 360_000;
/** Limit of Kubernetes for notes. */
const MAXIMUM_NOTE_BYTES = 1024;
/** Of names, which may have 253 characters. */
const NAME_CHARACTERS = 200;
const DIGEST_CHARACTERS = 16;

/** An Event as it is to be in the API server: the same occurrence again counts in the same Event. */
export interface CountedEvent extends Occurrence {
  /** The same for the same history, so that no two orchestrators tell the same twice. */
  readonly name: string;
  readonly count: number;
  /** The last time; `time` is the first. */
  readonly lastTime: Date;
}

/** Counts what happens again and again to one object. */
export class EventSeries {
  private readonly events = new Map<string, CountedEvent>();

  constructor(private readonly object: { readonly name: string; readonly uid: string }) {}

  add(occurrence: Occurrence): CountedEvent {
    const { reason, time } = occurrence;
    const note = shorten(occurrence.note);
    for (const [key, { lastTime }] of this.events) if (time.getTime() - lastTime.getTime() > GAP_MS) this.events.delete(key);
    const key = `${reason} ${note}`;
    const before = this.events.get(key);
    const event =
      before === undefined
        ? { reason, note, time, name: this.nameOf(key, time), count: 1, lastTime: time }
        : { ...before, count: before.count + 1, lastTime: time };
    this.events.set(key, event);
    return event;
  }

  private nameOf(key: string, time: Date): string {
    const { name, uid } = this.object;
    const digest = createHash('sha256').update(`${uid} ${time.toISOString()} ${key}`).digest('hex').slice(0, DIGEST_CHARACTERS);
    return `${name.slice(0, NAME_CHARACTERS).replace(/[.-]+$/, '')}.${digest}`;
  }
}

/** At most as many bytes as Kubernetes takes, without half a character. */
function shorten(note: string): string {
  const bytes = Buffer.from(note);
  if (bytes.byteLength <= MAXIMUM_NOTE_BYTES) return note;
  const ellipsis = '…';
  const kept = bytes.subarray(0, MAXIMUM_NOTE_BYTES - Buffer.byteLength(ellipsis));
  // Decoded as a stream, an unfinished character at the end is held back.
  return `${new TextDecoder().decode(kept, { stream: true })}${ellipsis}`;
}
