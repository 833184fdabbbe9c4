import { isStoreUrl } from '@secateur/checkpoint';
import { LocalPlace } from './local-place.js';
import type { OutputPlace } from './output-place.js';
import { StorePlace } from './store-place.js';

/** Knows the places that jobs name as their output. */
export class OutputPlaces {
  /** `staging`: folder of this machine in which outputs of stores are made. */
  constructor(private readonly staging: string) {}

  /** The place of an absolute path or URL. */
  at(location: string): OutputPlace {
    return isStoreUrl(location) ? new StorePlace(location, this.staging) : new LocalPlace(location);
  }
}
