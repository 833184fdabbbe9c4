import { appendFile, readFile, truncate } from 'node:fs/promises';
import { withFileErrors } from '../files/file-errors.js';

/** A part that the store has. */
export interface SentPart {
  readonly number: number;
  readonly etag: string;
  /** The CRC-32; undefined in a plain upload. */
  readonly checksum?: string;
}

/** An upload in parts that was begun. */
export interface BegunUpload {
  readonly id: string;
  /** Of the whole file: parts of another content are of no use. */
  readonly sha256: string;
  readonly partBytes: number;
  /** Whether its parts bear none of the newer checksums. */
  readonly isPlain?: boolean;
  readonly parts: Map<number, SentPart>;
}

/** A line of the record: an upload that begins, or a part of the last one of that name. */
type Line = { readonly name: string; readonly upload: Omit<BegunUpload, 'parts'> } | { readonly name: string; readonly part: SentPart };

/** What of the files of a folder was sent, kept in a file beside them, so that a later attempt goes on with it. A line counts once it is whole. */
export class UploadRecord {
  private constructor(
    private readonly path: string,
    private readonly begun: Map<string, BegunUpload>,
  ) {}

  static async open(path: string): Promise<UploadRecord> {
    const text = await readFile(path, 'utf8').catch(() => '');
    const begun = new Map<string, BegunUpload>();
    const whole = text.slice(0, text.lastIndexOf('\n') + 1);
    // What is behind the last newline was cut, by a crash or a full disk. The next line would go on in it.
    if (whole !== text) await withFileErrors('write', path, () => truncate(path, Buffer.byteLength(whole)));
    for (const line of whole.split('\n').slice(0, -1)) {
      const entry = JSON.parse(line) as Line;
      if ('upload' in entry) begun.set(entry.name, { ...entry.upload, parts: new Map() });
      else begun.get(entry.name)?.parts.set(entry.part.number, entry.part);
    }
    return new UploadRecord(path, begun);
  }

  /** Every upload that was begun and, as far as is known, is not complete. */
  get uploads(): ReadonlyMap<string, BegunUpload> {
    return this.begun;
  }

  async begin(name: string, upload: Omit<BegunUpload, 'parts'>): Promise<BegunUpload> {
    const begun = { ...upload, parts: new Map<number, SentPart>() };
    this.begun.set(name, begun);
    await this.append({ name, upload });
    return begun;
  }

  async sent(name: string, part: SentPart): Promise<void> {
    this.begun.get(name)?.parts.set(part.number, part);
    await this.append({ name, part });
  }

  private async append(line: Line): Promise<void> {
    await withFileErrors('write', this.path, () => appendFile(this.path, `${JSON.stringify(line)}\n`));
  }
}
