import {
  fromJson,
  fromJsonString,
  isFieldSet,
  mergeFromJson,
  ScalarType,
  toBinary,
  type DescField,
  type DescMessage,
  type JsonObject,
  type JsonValue,
  type Message,
} from '@bufbuild/protobuf';
import { SecateurError } from '@secateur/core';

/** The parts of an HTTP request that hold fields of its message. */
export interface RequestParts {
  /** Fields that stand in the path, by their name in the .proto file. */
  readonly path: Readonly<Record<string, string | undefined>>;
  readonly query: URLSearchParams;
  /** Empty where there was none. */
  readonly body: string;
  /** From the header Last-Event-ID: goes on after that event, whatever the query says, since clients that reconnect repeat their query. */
  readonly lastEventId: string | undefined;
}

/** The field of streams that are gone on with. */
const RESUME_FIELD = 'after_sequence';

export function canResume(type: DescMessage): boolean {
  return findField(type, RESUME_FIELD) !== undefined;
}

/** The encoded request that its parts are. Unknown fields and wrong types are refused by their names. */
export function encodeRequest(type: DescMessage, { path, query, body, lastEventId }: RequestParts): Uint8Array {
  const resume = lastEventId !== undefined && canResume(type) ? new URLSearchParams({ [RESUME_FIELD]: lastEventId }) : undefined;
  return explain(() => {
    const message = body.trim() === '' ? fromJson(type, queryToJson(type, query, resume)) : fromJsonString(type, body);
    for (const [name, value] of Object.entries(path)) if (value !== undefined) setFromPath(type, message, name, value);
    return toBinary(type, message);
  });
}

function setFromPath(type: DescMessage, message: Message, name: string, value: string): void {
  const field = findField(type, name);
  if (field !== undefined && isFieldSet(message, field)) {
    throw new SecateurError('INVALID_REQUEST', `${name} stands in the path; leave it out elsewhere.`, {
      violations: [{ field: name, description: 'Stands in the path already.' }],
    });
  }
  mergeFromJson(type, message, { [name]: value });
}

function queryToJson(type: DescMessage, query: URLSearchParams, resume: URLSearchParams | undefined): JsonObject {
  const json: Record<string, JsonValue> = {};
  const resumed = resume === undefined ? undefined : findField(type, RESUME_FIELD);
  for (const name of new Set(query.keys())) {
    const field = findField(type, name);
    if (field === undefined || field !== resumed) json[name] = queryValue(field, query.getAll(name));
  }
  for (const [name, value] of resume ?? []) json[name] = value;
  return json;
}

/** Numbers and names of enums may be strings in JSON; the rest needs a hand. */
function queryValue(field: DescField | undefined, values: readonly string[]): JsonValue {
  if (field?.fieldKind === 'list') return [...values];
  const [value = ''] = values;
  if (values.length > 1) return [...values];
  if (field?.fieldKind === 'scalar' && field.scalar === ScalarType.BOOL && (value === 'true' || value === 'false')) return value === 'true';
  return value;
}

function findField(type: DescMessage, name: string): DescField | undefined {
  return type.fields.find((field) => field.name === name || field.jsonName === name);
}

/** Turns what the library says into an error with the name of the field. */
function explain<Result>(parse: () => Result): Result {
  try {
    return parse();
  } catch (cause) {
    if (cause instanceof SecateurError || !(cause instanceof Error)) throw cause;
    const unknown = /^cannot decode message (?:[a-z]\w*\.)*([\w.]+) from JSON: key "(.*)" is unknown$/s.exec(cause.message);
    if (unknown !== null) {
      const [, owner = '', key = ''] = unknown;
      throw new SecateurError('INVALID_REQUEST', `${JSON.stringify(key)} is no field of ${owner}; see GET /openapi.json.`, {
        cause,
        violations: [{ field: key, description: `Not a field of ${owner}.` }],
      });
    }
    const [, field, problem] = /^cannot decode \w+ (?:[a-z]\w*\.)*([\w.]+) from JSON: (.*)$/s.exec(cause.message) ?? [];
    if (field === undefined || problem === undefined) throw new SecateurError('INVALID_REQUEST', cause.message, { cause });
    throw new SecateurError('INVALID_REQUEST', `${field}: ${problem}.`, { cause, violations: [{ field, description: problem }] });
  }
}
