import { jobStateToJSON, type JobState } from '@secateur/proto/job';
import {
  attentionBiasesToJSON,
  dataTypeToJSON,
  feedForwardToJSON,
  modelFamilyToJSON,
  normalizationToJSON,
  positionEncodingToJSON,
  rotaryScalingKindToJSON,
  type Architecture,
  type DataType,
} from '@secateur/proto/model';

/** `JOB_STATE_RUNNING` → `running`. */
export function jobStateWord(state: JobState): string {
  return word(jobStateToJSON(state), 'JOB_STATE_');
}

export function dataTypeWord(type: DataType): string {
  return word(dataTypeToJSON(type), 'DATA_TYPE_');
}

/** An architecture with words instead of enum numbers. */
export function architectureToWords(architecture: Architecture): object {
  const { family, normalization, positionEncoding, feedForward, attentionBiases, rotaryScaling, ...rest } = architecture;
  return {
    family: word(modelFamilyToJSON(family), 'MODEL_FAMILY_'),
    ...rest,
    normalization: word(normalizationToJSON(normalization), 'NORMALIZATION_'),
    positionEncoding: word(positionEncodingToJSON(positionEncoding), 'POSITION_ENCODING_'),
    feedForward: word(feedForwardToJSON(feedForward), 'FEED_FORWARD_'),
    attentionBiases: word(attentionBiasesToJSON(attentionBiases), 'ATTENTION_BIASES_'),
    rotaryScaling:
      rotaryScaling === undefined
        ? null
        : { ...rotaryScaling, kind: word(rotaryScalingKindToJSON(rotaryScaling.kind), 'ROTARY_SCALING_KIND_') },
  };
}

function word(name: string, prefix: string): string {
  return name.replace(prefix, '').toLowerCase();
}
