import type { ChannelOptions } from '@grpc/grpc-js';

const MIB = 1 << 20;

/** Largest message either side accepts; far above any chunk, far below what could exhaust memory. */
const MAXIMUM_MESSAGE_BYTES = 16 * MIB;
/** A dead or frozen peer is noticed after at most the sum of the two. */
const KEEPALIVE_TIME_MS = 10_000;
const KEEPALIVE_TIMEOUT_MS = 5_000;

const COMMON: ChannelOptions = {
  'grpc.max_receive_message_length': MAXIMUM_MESSAGE_BYTES,
  'grpc.max_send_message_length': MAXIMUM_MESSAGE_BYTES,
  'grpc.keepalive_time_ms': KEEPALIVE_TIME_MS,
  'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
};

const CLIENT: ChannelOptions = {
  ...COMMON,
  'grpc.keepalive_permit_without_calls': 1,
  'grpc.initial_reconnect_backoff_ms': 200,
  'grpc.max_reconnect_backoff_ms': 5_000,
  'grpc.service_config_disable_resolution': 1,
  // Peers are inside the cluster; an HTTP proxy of the environment is for the outside.
  'grpc.enable_http_proxy': 0,
};

export type ChannelKind = 'control' | 'bulk';

export const CLIENT_CHANNEL_OPTIONS: Readonly<Record<ChannelKind, ChannelOptions>> = {
  /** Small messages and streams of statistics. Without a service config grpc-js repeats only calls that never left this process. */
  control: { ...CLIENT, 'grpc-node.flow_control_window': 8 * MIB },
  /** TensorService: a connection of its own, so that control calls never wait behind chunks; resuming is ours, not the channel's. */
  bulk: {
    ...CLIENT,
    'grpc-node.flow_control_window': 16 * MIB,
    'grpc.use_local_subchannel_pool': 1,
    'grpc.enable_retries': 0,
  },
};

export const SERVER_OPTIONS: ChannelOptions = COMMON;

/** A connection is trusted as long as it lasts, so it must not outlast the certificates and authorities it was made with by much. */
const MAXIMUM_CONNECTION_AGE_MS = 3_600_000;

export const SECURE_SERVER_OPTIONS: ChannelOptions = { ...COMMON, 'grpc.max_connection_age_ms': MAXIMUM_CONNECTION_AGE_MS };
