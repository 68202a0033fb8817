#!/bin/bash
# Workers of one study as an array job of SLURM: every task claims trials until none is left.
#
#   export STUDY_STORAGE=postgresql+psycopg://me@server/studies   # its password: in ~/.pgpass, or in the URL
#   export STUDY=kernel_ablation-cifar
#   sbatch docs/examples/slurm.sh
#
# The study must be planned before, with the same storage: python -m search.run --study NAME --scale SCALE --plan. The
# same command without --plan writes the report when all is done. A worker that finds no study ends with exit code 2 and
# is not requeued.
#
# sbatch hands its environment on to the job. Where the site's accounting keeps environments
# (AccountingStoreFlags=job_env), leave the password to ~/.pgpass.
#SBATCH --job-name=study
#SBATCH --array=0-3
#SBATCH --ntasks=1
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=04:00:00
# SIGTERM two minutes before the time is up. Without "B:" the steps that srun starts get it, so the worker does, and the
# shell of this script does not.
#SBATCH --signal=TERM@120
# Requeued by SLURM itself when it preempts the job or its node fails.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=study-%A_%a.log
set -u
: "${STUDY_STORAGE:?the URL of the storage is needed in the environment}"

# Since 22.05 srun does not take this over from sbatch by itself.
export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"

# --out: on a disk that all nodes share, so that a trial goes on from its checkpoint on another node.
srun "${PYTHON:-.venv/bin/python}" -m search.worker \
    --study "${STUDY:-kernel_ablation-cifar}" \
    --out "${STUDY_OUT:-runs}" \
    --device "${STUDY_DEVICE:-cuda}" \
    --threads "$SLURM_CPUS_PER_TASK"
code=$?

# 130: the worker was told to stop and gave its trial back; 143: it was told so before it held one. SLURM would call the
# job failed. What scancel ends does not come here: it ends the shell of this script as well.
if [ "$code" -eq 130 ] || [ "$code" -eq 143 ]; then
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
