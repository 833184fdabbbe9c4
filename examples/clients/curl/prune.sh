#!/usr/bin/env bash
# Prunes a model on a running service over HTTP, with nothing but curl:
#   prune.sh http://HOST:PORT JOB_ID MODEL CALIBRATION OUTPUT
set -euo pipefail
if (($# != 5)); then
  echo "usage: prune.sh http://HOST:PORT JOB_ID MODEL CALIBRATION OUTPUT" >&2
  exit 2
fi
url=$1 job=$2 model=$3 calibration=$4 output=$5

# An id and a spec that exist already give the job that exists, so this may be repeated.
curl --fail-with-body --silent --show-error --retry 3 "$url/v1/jobs" --json @- <<JSON
{
  "jobId": "$job",
  "spec": { "prune": { "model": "$model", "output": "$output", "sparsity": 0.7, "calibration": { "path": "$calibration" } } }
}
JSON
echo

# Events as they happen, until the job ends. A connection that breaks goes on with the id of the last: --header "Last-Event-ID: $id".
curl --fail-with-body --silent --show-error --no-buffer "$url/v1/jobs/$job:watch" | grep --line-buffered stateChanged

curl --fail-with-body --silent --show-error "$url/v1/jobs/$job/report"
echo
curl --fail-with-body --silent --show-error "$url/v1/jobs?pageSize=10"
echo
