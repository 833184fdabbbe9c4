import type { Architecture } from '@secateur/proto/model';
import type { ConfigReader } from './config-reader.js';

const MAXIMUM_WINDOW = 1 << 24;

type Windows = Pick<Architecture, 'slidingWindow' | 'slidingLayers'>;

const NO_WINDOWS: Windows = { slidingWindow: 0, slidingLayers: [] };

/** Qwen2 and Qwen3: a window is used only on request, by the blocks from `max_window_layers` on. */
export function parseQwenWindows(config: ConfigReader, layers: number): Windows {
  if (!config.flag('use_sliding_window', false)) {
    config.words('layer_types', layers, ['full_attention']);
    return NO_WINDOWS;
  }
  const first = config.count('max_window_layers', Number.MAX_SAFE_INTEGER);
  return parseWindows(config, layers, (layer) => layer >= first);
}

/** Mistral: every block has the window; a file that does not mention it means the first models' 4096, one that says null means none. */
export function parseMistralWindows(config: ConfigReader, layers: number): Windows {
  if (config.has('sliding_window') && config.get('sliding_window') === undefined) {
    config.words('layer_types', layers, ['full_attention']);
    return NO_WINDOWS;
  }
  return parseWindows(config, layers, () => true, 4096);
}

/** A list of the blocks' kinds, where there is one, says which have the window. */
function parseWindows(config: ConfigReader, layers: number, slides: (layer: number) => boolean, fallback?: number): Windows {
  const slidingWindow = config.size('sliding_window', MAXIMUM_WINDOW, fallback);
  const kinds = config.words('layer_types', layers, ['full_attention', 'sliding_attention']);
  const indices = Array.from({ length: layers }, (_, layer) => layer);
  const slidingLayers = indices.filter((layer) => (kinds === undefined ? slides(layer) : kinds[layer] === 'sliding_attention'));
  return slidingLayers.length === 0 ? NO_WINDOWS : { slidingWindow, slidingLayers };
}
