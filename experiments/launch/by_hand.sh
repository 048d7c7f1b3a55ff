#!/usr/bin/env bash
# Starts N processes of one run on this machine, the way several machines would be started by hand: to try a mesh before it is rented.
#   DEVICES=4 experiments/launch/by_hand.sh 2 prompt_tuning.train --gin_file=... --workdir=DIR
# On machines of your own give each the same command with its own --process_id, and machine 0's address as the coordinator.
#   DEVICES  simulated devices of each process, for processes without an accelerator (default 1)
#   PORT     where process 0 listens (default 8476)
#   PYTHON   the interpreter (default python)
set -euo pipefail
processes=${1:?how many processes?}
module=${2:?which command? as prompt_tuning.train}
shift 2
export JAX_NUM_CPU_DEVICES=${DEVICES:-1}
# Threads of XLA's pool: with fewer than devices, programs in flight on simulated devices wait for each other for ever.
export NPROC=${NPROC:-32}

started=()
stop() { kill -TERM "${started[@]}" 2>/dev/null || true; }
trap stop INT TERM
for ((number = 0; number < processes; number++)); do
    "${PYTHON:-python}" -m "$module" "$@" --coordinator_address="localhost:${PORT:-8476}" --num_processes="$processes" --process_id="$number" &
    started+=($!)
done
status=0
for process in "${started[@]}"; do
    # A signal ends `wait` before the process has ended.
    while kill -0 "$process" 2>/dev/null; do wait "$process" || status=$?; done
done
exit "$status"
