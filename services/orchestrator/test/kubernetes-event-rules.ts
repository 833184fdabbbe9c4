/**
 * What the API server of Kubernetes asks of an events.k8s.io/v1 Event, of those rules that matter to who writes one: the fields that have to be
 * there, their limits, and what may change later. Names and labels are checked for nothing but their namespace.
 */

type Fields = Readonly<Record<string, unknown>>;

/** RFC 3339 with six digits of the second, which is how the server reads a MicroTime. */
const MICRO_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/;
const QUALIFIED_NAME = /^(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?\/)?[A-Za-z0-9](?:[-\w.]{0,61}[A-Za-z0-9])?$/;
const EVENT_NAME = /^[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?$/;
const MAXIMUM_WORD = 128;
const MAXIMUM_NOTE_BYTES = 1024;
const DEPRECATED = ['deprecatedSource', 'deprecatedFirstTimestamp', 'deprecatedLastTimestamp', 'deprecatedCount'];
const MUTABLE = new Set(['metadata', 'series', 'apiVersion', 'kind']);

/** What is wrong with an Event that is to be created in a namespace. */
export function problemsOfEvent(event: Fields, namespace: string): string[] {
  const problems = problemsOfSeries(event['series']);
  const need = (holds: boolean, problem: string): void => {
    if (!holds) problems.push(problem);
  };
  const isWord = (value: unknown): boolean => typeof value === 'string' && value !== '' && value.length <= MAXIMUM_WORD;
  const { name } = (event['metadata'] ?? {}) as Fields;
  need(typeof name === 'string' && EVENT_NAME.test(name), 'metadata.name is not that of an object');
  need(typeof event['eventTime'] === 'string' && MICRO_TIME.test(event['eventTime']), 'eventTime is not a MicroTime');
  need(event['type'] === 'Normal' || event['type'] === 'Warning', 'type is neither Normal nor Warning');
  for (const field of ['reason', 'action', 'reportingInstance']) need(isWord(event[field]), `${field} has 1 to ${MAXIMUM_WORD} characters`);
  const controller = event['reportingController'];
  need(typeof controller === 'string' && QUALIFIED_NAME.test(controller), 'reportingController is not a qualified name');
  const { note = '' } = event;
  need(typeof note === 'string' && Buffer.byteLength(note) <= MAXIMUM_NOTE_BYTES, `note has at most ${MAXIMUM_NOTE_BYTES} bytes`);
  const regarding = (event['regarding'] ?? {}) as Fields;
  need(regarding['namespace'] === namespace, 'regarding.namespace is another one');
  for (const field of DEPRECATED) need(event[field] === undefined, `${field} is not to be set`);
  return problems;
}

/** What is wrong with a change of an Event: all but the series stays as it is. */
export function problemsOfEventChange(present: Fields, changed: Fields): string[] {
  const names = new Set([...Object.keys(present), ...Object.keys(changed)]);
  const fixed = [...names].filter((name) => !MUTABLE.has(name) && JSON.stringify(present[name]) !== JSON.stringify(changed[name]));
  return [...problemsOfSeries(changed['series']), ...fixed.map((name) => `${name} is immutable`)];
}

function problemsOfSeries(series: unknown): string[] {
  if (series === undefined) return [];
  const { count, lastObservedTime } = series as Fields;
  const problems = Number.isInteger(count) && (count as number) >= 2 ? [] : ['series.count is at least 2'];
  const isTime = typeof lastObservedTime === 'string' && MICRO_TIME.test(lastObservedTime);
  return isTime ? problems : [...problems, 'series.lastObservedTime is not a MicroTime'];
}
