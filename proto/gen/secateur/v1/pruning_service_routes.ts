// Made from the google.api.http annotations of secateur/v1/pruning_service.proto by scripts/generate.mjs. DO NOT EDIT.

/** How each method of PruningService is called over HTTP: `{name}` in a path is a field of the request; the others are the body, or else the query. */
export const PruningServiceRoutes = {
  planJob: { verb: 'POST', path: '/v1/jobs:plan', hasBody: true },
  createJob: { verb: 'POST', path: '/v1/jobs', hasBody: true },
  getJob: { verb: 'GET', path: '/v1/jobs/{job_id}', hasBody: false },
  listJobs: { verb: 'GET', path: '/v1/jobs', hasBody: false },
  watchJob: { verb: 'GET', path: '/v1/jobs/{job_id}:watch', hasBody: false },
  cancelJob: { verb: 'POST', path: '/v1/jobs/{job_id}:cancel', hasBody: true },
  pauseJob: { verb: 'POST', path: '/v1/jobs/{job_id}:pause', hasBody: true },
  resumeJob: { verb: 'POST', path: '/v1/jobs/{job_id}:resume', hasBody: true },
  deleteJob: { verb: 'DELETE', path: '/v1/jobs/{job_id}', hasBody: false },
  getReport: { verb: 'GET', path: '/v1/jobs/{job_id}/report', hasBody: false },
  getTrace: { verb: 'GET', path: '/v1/jobs/{job_id}/trace', hasBody: false },
  listNodes: { verb: 'GET', path: '/v1/nodes', hasBody: false },
} as const;
