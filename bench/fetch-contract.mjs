export const CHUNK_BYTES = 1 << 20;
export const TOTAL_BYTES = 256 << 20;

const identity = (/** @type {Buffer} */ bytes) => bytes;

/** One method that streams bytes as they are. */
export const BARE_SERVICE = {
  pull: {
    path: '/bench.Bare/Pull',
    requestStream: false,
    responseStream: true,
    requestSerialize: identity,
    requestDeserialize: identity,
    responseSerialize: identity,
    responseDeserialize: identity,
  },
};
