import type { ErrorReason } from '@secateur/core';

/** What an isolated process is told. */
export type ToChild =
  | { readonly kind: 'request'; readonly id: number; readonly request: unknown }
  | { readonly kind: 'answer'; readonly id: number; readonly answer: unknown };

/** What it says: how a request ended, or what it needs from its parent to go on. */
export type ToParent =
  | { readonly kind: 'reply'; readonly id: number; readonly reply: unknown }
  | { readonly kind: 'failure'; readonly id: number; readonly reason: ErrorReason; readonly message: string }
  | { readonly kind: 'question'; readonly id: number; readonly question: unknown };
