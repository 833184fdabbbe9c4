import { createHash } from 'node:crypto';
import type { KubernetesObject } from '@kubernetes/client-node';
import type { ProjectionSelection, ProjectionTarget } from '@secateur/proto/job';

export const GROUP = 'secateur.dev';
export const VERSION = 'v1alpha1';
export const PLURAL = 'prunejobs';
export const KIND = 'PruneJob';
/** Keeps a PruneJob that is being deleted until its job is stopped and forgotten. */
export const FINALIZER = 'secateur.dev/job';

/** Of names, which are part of the ids of jobs. */
const NAME_CHARACTERS = 40;
const DIGEST_CHARACTERS = 16;

/** A source of tokens, as the definition has it. */
export interface PruneJobData {
  readonly paths: readonly string[];
  readonly samples?: number;
  readonly sequenceLength?: number;
  readonly seed?: number;
  readonly sampling?: string;
  readonly textField?: string;
}

/** The spec of a PruneJob, as deploy/k8s/crds defines it; the API server lets nothing else through. Enums are words. */
export interface PruneJobSpec {
  readonly model: string;
  readonly output: string;
  readonly sparsity: number;
  readonly preset?: string;
  readonly calibration: PruneJobData;
  readonly evaluation?: PruneJobData;
  readonly score?: string;
  readonly allocation?: string;
  readonly iterations?: number;
  readonly learningRates?: readonly number[];
  readonly negativeLearningRates?: readonly number[];
  readonly forbidNegativeLearningRates?: boolean;
  readonly layerQuality?: string;
  readonly rowQuality?: string;
  readonly pattern?: string;
  readonly layerBudget?: string;
  readonly layerBudgetOptions?: {
    readonly owl?: { readonly lambda?: number; readonly threshold?: number };
    readonly alpha?: { readonly metric?: string; readonly epsilon?: number; readonly granularity?: string };
    readonly optimal?: { readonly spread?: number; readonly samples?: number };
    readonly file?: string;
  };
  readonly rowSparsities?: string;
  readonly selection?: Partial<Omit<ProjectionSelection, 'targets'>> & { readonly targets?: readonly ProjectionTarget[] };
  readonly qualityInputs?: string;
  readonly sketches?: number;
  readonly propagation?: string;
  readonly repair?: { readonly method: string; readonly damping?: number; readonly iterations?: number; readonly targets?: string };
  readonly swap?: { readonly most?: number };
  readonly snapshotEvery?: number;
  readonly compute?: string;
  readonly hiddenStates?: string;
  readonly recordTrace?: boolean;
  readonly maximumNodes?: number;
  readonly priority?: number;
  readonly maximumAttempts?: number;
  readonly timeToLiveSeconds?: number;
  readonly deleteOutput?: boolean;
  /** Wanted: set aside. */
  readonly suspend?: boolean;
}

export type Phase = 'Pending' | 'Queued' | 'Planning' | 'Running' | 'Suspended' | 'Succeeded' | 'Failed' | 'Cancelled';
export type ConditionType = 'Accepted' | 'Running' | 'Complete' | 'Failed' | 'Suspended';

export interface Condition {
  readonly type: ConditionType;
  readonly status: 'True' | 'False' | 'Unknown';
  readonly observedGeneration: number;
  /** When the status became what it is. */
  readonly lastTransitionTime: string;
  readonly reason: string;
  readonly message: string;
}

export interface PruneJobStatus {
  readonly observedGeneration: number;
  readonly phase: Phase;
  readonly jobId?: string;
  readonly layersFinished?: number;
  readonly layersTotal?: number;
  readonly progress?: string;
  readonly actualSparsity?: number;
  readonly attempt?: number;
  readonly startedAt?: string;
  readonly finishedAt?: string;
  readonly conditions: readonly Condition[];
}

export interface PruneJob extends KubernetesObject {
  readonly spec: PruneJobSpec;
  readonly status?: PruneJobStatus;
}

/** What identifies a PruneJob among all there ever were, and the version of it that is at hand. */
export interface Identity {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly generation: number;
}

/** Every object that comes from the API server has all of it. */
export function identityOf({ metadata }: PruneJob): Identity {
  return {
    namespace: metadata?.namespace ?? '',
    name: metadata?.name ?? '',
    uid: metadata?.uid ?? '',
    resourceVersion: metadata?.resourceVersion ?? '',
    generation: metadata?.generation ?? 0,
  };
}

/** The same for the same object, and another one for an object of the same name that is made later. */
export function jobIdOf({ namespace, name, uid }: Identity): string {
  const digest = createHash('sha256').update(`${namespace}/${name}/${uid}`).digest('hex').slice(0, DIGEST_CHARACTERS);
  return `${name.slice(0, NAME_CHARACTERS).replaceAll('.', '-')}-${digest}`;
}
