/** What a place needs to give a finished output its name. */
export interface FinishedOutput {
  /** What the output was made from. */
  readonly identity: string;
  /** Throws when the job is not this process's any more. */
  readonly assertHeld: () => void;
  /** Gives the lock of the work folder back. */
  readonly unlock: () => Promise<void>;
  readonly signal: AbortSignal;
}

/** Where the output of a job goes. It is made in a folder of this machine and gets its own name when it is whole. */
export interface OutputPlace {
  /** Folder in which the output is made, with the journal and the lock. */
  readonly workFolder: string;
  /** Whether a finished output is there, whosever it is. */
  isTaken(): Promise<boolean>;
  /** Whether what was made in the work folder has been given its name. */
  isPublished(): Promise<boolean>;
  /** ALREADY_EXISTS where anything is that this work did not leave there itself. */
  requireFree(identity: string): Promise<void>;
  /** Gives what is in the work folder, without journal and lock, its name. An attempt that fails in that is gone on with, so the journal goes last. */
  publish(finished: FinishedOutput): Promise<void>;
  /** Removes what an attempt that was lost after it had given the output its name has left. */
  removeLeftovers(): Promise<void>;
  /** Deletes the finished output. */
  remove(): Promise<void>;
  /** Deletes what a job left of an output that was not finished. What another one began there, or went on with, stays. */
  removeUnfinished(jobId: string): Promise<void>;
}

/** File of the report. An output of a store is whole once it is there. */
export const REPORT_FILE = 'secateur.json';
