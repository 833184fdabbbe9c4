import { RotaryScalingKind, type Architecture, type RotaryScaling } from '@secateur/proto/model';
import type { ConfigReader } from './config-reader.js';

/** The base of rotary frequencies, and how they are scaled. Newer files keep both in one object. */
export function parseRotary(config: ConfigReader, maximumPositions: number): Pick<Architecture, 'rotaryBase' | 'rotaryScaling'> {
  config.require('partial_rotary_factor', 1);
  const parameters = config.section('rope_parameters');
  parameters.require('partial_rotary_factor', 1);
  const rotaryBase = parameters.positive('rope_theta', config.positive('rope_theta', 10_000));
  if (config.get('rope_parameters') !== undefined) config.refuseGiven('rope_scaling');
  const scaling = config.get('rope_parameters') === undefined ? config.section('rope_scaling') : parameters;
  return { rotaryBase, rotaryScaling: parseScaling(scaling, maximumPositions) };
}

function parseScaling(section: ConfigReader, maximumPositions: number): RotaryScaling | undefined {
  // Older files call it `type`; some have both.
  const field = section.get('rope_type') === undefined ? 'type' : 'rope_type';
  section.require(field, 'default', 'linear', 'llama3');
  switch (section.get(field)) {
    case 'linear':
      return {
        kind: RotaryScalingKind.LINEAR,
        factor: section.positive('factor'),
        lowFrequencyFactor: 0,
        highFrequencyFactor: 0,
        originalPositions: 0,
      };
    case 'llama3':
      return parseLlama3(section, maximumPositions);
    default:
      // Without a kind, a factor would be ignored silently.
      section.refuseGiven('factor');
      return undefined;
  }
}

function parseLlama3(section: ConfigReader, maximumPositions: number): RotaryScaling {
  const lowFrequencyFactor = section.positive('low_freq_factor');
  const highFrequencyFactor = section.positive('high_freq_factor');
  if (highFrequencyFactor <= lowFrequencyFactor) {
    throw section.refuse('high_freq_factor', `above low_freq_factor (${lowFrequencyFactor})`);
  }
  return {
    kind: RotaryScalingKind.LLAMA3,
    factor: section.positive('factor'),
    lowFrequencyFactor,
    highFrequencyFactor,
    originalPositions: section.size('original_max_position_embeddings', maximumPositions),
  };
}
