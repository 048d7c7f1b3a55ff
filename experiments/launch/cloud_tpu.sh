#!/usr/bin/env bash
# One run over all hosts of a Cloud TPU slice: makes the slice, installs the project on every host, starts a process a host.
#   NAME=pt ZONE=us-west4-a TYPE=v5litepod-16 experiments/launch/cloud_tpu.sh prompt_tuning.train --gin_file=... --workdir=/mnt/shared/runs/mine
# The work folder must be on a file system that all hosts see (Filestore, or a bucket mounted with gcsfuse). Run again, the command
# resumes. Nothing is deleted at the end:
#   gcloud compute tpus tpu-vm delete "$NAME" --zone="$ZONE"
#   REPOSITORY  what every host clones
#   REVISION    the commit that all hosts run (default: this checkout's)
#   VERSION     the software of the virtual machines (default tpu-ubuntu2204-base; v6e: v2-alpha-tpuv6e)
#   SPOT=1      ask for a slice that may be taken away: SIGTERM saves
set -euo pipefail
: "${NAME:?a name for the slice}" "${ZONE:?a zone, as us-west4-a}" "${TYPE:?an accelerator type, as v5litepod-16}"
: "${REPOSITORY:?the address that every host clones}"
module=${1:?which command? as prompt_tuning.train}
shift
revision=${REVISION:-$(git rev-parse HEAD)}

if ! gcloud compute tpus tpu-vm describe "$NAME" --zone="$ZONE" >/dev/null 2>&1; then
    gcloud compute tpus tpu-vm create "$NAME" --zone="$ZONE" --accelerator-type="$TYPE" \
        --version="${VERSION:-tpu-ubuntu2204-base}" ${SPOT:+--spot}
fi
everywhere() { gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"; }
everywhere "set -e; test -d prompt_tuning || git clone $(printf %q "$REPOSITORY") prompt_tuning; cd prompt_tuning; \
git fetch --quiet origin; git checkout --quiet $revision; test -d .venv || python3 -m venv .venv; \
.venv/bin/python -m pip install --quiet -c constraints.txt -e '.[tpu]'"
everywhere "cd prompt_tuning && .venv/bin/python -m $module $(printf '%q ' "$@")--distributed"
