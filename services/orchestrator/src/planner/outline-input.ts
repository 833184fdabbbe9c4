import { hasWeights, openCheckpoint, readModelConfig } from '@secateur/checkpoint';
import {
  DEFAULT_CALIBRATION_SAMPLES,
  groupSamples,
  parseArchitecture,
  parseStoredType,
  planModel,
  planShapes,
  resolveSequenceLength,
  type ModelPlan,
} from '@secateur/core';
import type { Architecture } from '@secateur/proto/model';
import type { TokenSource } from '@secateur/proto/job';
import { loadCalibration, type InputOutline, type InputRequest } from './job-plan.js';
import { loadMeasurement } from './measurement.js';
import { resolveTargets } from './targets.js';

interface OutlinedModel {
  /** Absolute path without symbolic links. */
  readonly directory: string;
  readonly model: ModelPlan;
  /** False when the tensors are those that config.json asks for. */
  readonly hasWeights: boolean;
}

/**
 * What is known of a job's input before any weight is read. A folder without weights is planned by its config.json, and calibration data
 * that is not named by the amounts that were asked for.
 */
export async function outlineInput(request: InputRequest, signal: AbortSignal): Promise<InputOutline & Pick<OutlinedModel, 'hasWeights'>> {
  const { model: folder, allowedRoots } = request;
  const { directory, model, ...found } = (await hasWeights(folder, { allowedRoots }))
    ? await outlineCheckpoint(folder, allowedRoots)
    : await outlineConfig(folder, allowedRoots);
  const { architecture } = model;
  const { targets, computedBudget } = await resolveTargets(request, model, allowedRoots);
  const owner = { directory, architecture, allowedRoots };
  const calibration =
    request.calibration?.data.path === ''
      ? countCalibration(request.calibration.data, architecture)
      : request.calibration && (await loadCalibration(request.calibration, owner, signal));
  const measurement = request.measurement && (await loadMeasurement(request.measurement, owner, signal));
  return { model, targets, computedBudget, calibration, measurement, ...found };
}

async function outlineCheckpoint(folder: string, allowedRoots: readonly string[]): Promise<OutlinedModel> {
  const checkpoint = await openCheckpoint(folder, { allowedRoots });
  try {
    const model = planModel(parseArchitecture(checkpoint.config), checkpoint.tensors);
    return { directory: checkpoint.directory, model, hasWeights: true };
  } finally {
    await checkpoint.close();
  }
}

async function outlineConfig(folder: string, allowedRoots: readonly string[]): Promise<OutlinedModel> {
  const { directory, config } = await readModelConfig(folder, { allowedRoots });
  return { directory, model: planShapes(parseArchitecture(config), parseStoredType(config)), hasWeights: false };
}

function countCalibration(source: TokenSource, architecture: Architecture): InputOutline['calibration'] {
  const samples = source.samples === 0 ? DEFAULT_CALIBRATION_SAMPLES : source.samples;
  const sequenceLength = resolveSequenceLength(source.sequenceLength, architecture);
  return { tokens: { samples, sequenceLength }, groups: groupSamples(samples).map((group) => ({ ...group, sequenceLength })) };
}
