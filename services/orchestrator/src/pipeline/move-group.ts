import { SecateurError } from '@secateur/core';
import type { CalibrationGroup } from '@secateur/proto/statistics';
import type { NodeSession } from '../scheduler/node-session.js';

/**
 * Takes the hidden states of a group from one member to another, node to node. An error that is the giver's fault names it as `peer` in its
 * metadata, as those of nodes that pull from others do; after any error the giver still has the group.
 */
export async function moveGroup(group: CalibrationGroup, from: NodeSession, to: NodeSession, signal: AbortSignal): Promise<void> {
  const states = await blaming(from, () => from.publishHiddenStates(group.index, signal));
  await to.restoreHiddenStates([{ group, states: { ...states, endpoint: from.node.address }, digest: '' }], signal);
  await blaming(from, () => from.releaseGroups([group.index], signal));
}

async function blaming<Answer>(member: NodeSession, call: () => Promise<Answer>): Promise<Answer> {
  try {
    return await call();
  } catch (error) {
    if (!(error instanceof SecateurError)) throw error;
    const { reason, message, metadata } = error;
    throw new SecateurError(reason, message, { cause: error, metadata: { ...metadata, peer: member.node.address } });
  }
}
