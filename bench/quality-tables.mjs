import { markdownTable } from './table.mjs';

/**
 * What one method made of one model.
 * @typedef {object} Measurement
 * @property {string} model
 * @property {string} sparsity as asked for; 0 of the dense model
 * @property {string} method
 * @property {readonly string[]} options
 * @property {number} perplexity
 * @property {number} dropped share of the weights that are really zero
 * @property {number} seconds of the job
 */

/**
 * The tables of docs/quality.md: perplexities of the methods that are compared, with what the last of them loses of what TRIM loses; those of
 * the steps; and seconds.
 * @param {readonly Measurement[]} measured
 * @param {{ models: readonly string[], compared: readonly string[] }} options
 * @returns {Record<string, string>} by name
 */
export function qualityTables(measured, { models, compared }) {
  const find = (/** @type {string} */ model, /** @type {string} */ sparsity, /** @type {string} */ method) =>
    measured.find((one) => one.model === model && one.sparsity === sparsity && one.method === method);
  const denseOf = (/** @type {string} */ model) => find(model, '0', 'dense')?.perplexity ?? Number.NaN;
  const sparsities = [...new Set(measured.map(({ sparsity }) => sparsity))].filter((sparsity) => sparsity !== '0').sort();
  const lossShare = (/** @type {string} */ model, /** @type {string} */ sparsity, /** @type {string} */ method) => {
    const loss = (/** @type {string} */ name) => (find(model, sparsity, name)?.perplexity ?? Number.NaN) - denseOf(model);
    return percent(loss(method) / loss('TRIM'));
  };
  const number = (/** @type {number | undefined} */ value, digits = 2) => (value === undefined ? '' : value.toFixed(digits));

  const methods = compared.filter((method) => measured.some((one) => one.method === method));
  const rows = models.flatMap((model) =>
    sparsities.map((sparsity) => [
      model,
      percent(Number(sparsity)),
      number(denseOf(model)),
      ...methods.map((method) => number(find(model, sparsity, method)?.perplexity)),
      lossShare(model, sparsity, 'fast'),
      lossShare(model, sparsity, 'best'),
    ]),
  );
  const head = ['model', 'sparsity', 'dense', ...methods, 'fast loses of TRIM', 'best loses of TRIM'];

  const steps = [...new Set(measured.map(({ method }) => method))].filter((method) => method !== 'dense');
  const columns = ['0.7', '0.8'].flatMap((sparsity) => models.map((model) => ({ model, sparsity })));
  const stepRows = steps.map((method) => [
    method,
    ...columns.map(({ model, sparsity }) => number(find(model, sparsity, method)?.perplexity)),
  ]);
  const seconds = steps.map((method) => [
    method,
    ...models.map((model) => number(find(model, '0.8', method)?.seconds, 1)),
    ...models.map((model) => percent(find(model, '0.8', method)?.dropped ?? Number.NaN, 2)),
  ]);
  return {
    perplexity: markdownTable(head, rows),
    steps: markdownTable(['method', ...columns.map(({ model, sparsity }) => `${model}, ${percent(Number(sparsity))}`)], stepRows),
    seconds: markdownTable(['method at 80 %', ...models.map((model) => `${model} s`), ...models.map((model) => `${model} zeros`)], seconds),
  };
}

/** @param {number} share @param {number} [digits] */
function percent(share, digits = 0) {
  return Number.isNaN(share) ? '' : `${(100 * share).toFixed(digits)} %`;
}
