import { resolveInsideRoots } from '@secateur/checkpoint';
import { pathsOf, SecateurError } from '@secateur/core';
import type { JobSpec, LayerBudgetOptions, TokenSource } from '@secateur/proto/job';
import type { OutputPlaces } from '../output/output-places.js';

/** The spec with absolute paths and URLs, all inside the roots. */
export async function confineSpec(spec: JobSpec, roots: readonly string[], outputs: OutputPlaces): Promise<JobSpec> {
  switch (spec.kind?.$case) {
    case 'prune': {
      const { value } = spec.kind;
      const model = await resolveInsideRoots(value.model, roots);
      // A job that is only planned may name neither output nor data.
      const output = value.output && (await resolveInsideRoots(value.output, roots));
      if (output !== '' && (await outputs.at(output).isTaken())) {
        throw new SecateurError('ALREADY_EXISTS', `The output ${output} exists; choose another or remove it.`);
      }
      const calibration = value.calibration && (await confineSource(value.calibration, roots));
      const evaluation = value.evaluation && (await confineSource(value.evaluation, roots));
      const rowSparsities = value.rowSparsities && (await resolveInsideRoots(value.rowSparsities, roots));
      const layerBudgetOptions = await confineRatios(value.layerBudgetOptions, roots);
      return {
        ...spec,
        kind: { $case: 'prune', value: { ...value, model, output, calibration, evaluation, rowSparsities, layerBudgetOptions } },
      };
    }
    case 'evaluate': {
      const { value } = spec.kind;
      const model = await resolveInsideRoots(value.model, roots);
      const data = value.data && (await confineSource(value.data, roots));
      const tasks = await Promise.all(value.tasks.map(async (task) => ({ ...task, path: await resolveInsideRoots(task.path, roots) })));
      return { ...spec, kind: { $case: 'evaluate', value: { ...value, model, data, tasks } } };
    }
    case undefined:
      throw new SecateurError('INVALID_REQUEST', 'The spec has no kind; set prune or evaluate.');
  }
}

/** The source with absolute paths inside the roots. Of a glob, only the folder it begins in can be looked at before it is expanded.
 * A job that is only planned may name no data. */
async function confineSource(source: TokenSource, roots: readonly string[]): Promise<TokenSource> {
  const [path = '', ...morePaths] = await Promise.all(pathsOf(source).map((given) => resolveInsideRoots(given, roots)));
  return { ...source, path, morePaths };
}

async function confineRatios(options: LayerBudgetOptions | undefined, roots: readonly string[]): Promise<LayerBudgetOptions | undefined> {
  if (options === undefined || options.file === '') return options;
  return { ...options, file: await resolveInsideRoots(options.file, roots) };
}
