#!/usr/bin/env bash
# Installs what `make test-slurm` needs, or says why it cannot; the tests then skip, saying so too.
set -euo pipefail
command -v slurmctld munged mariadbd slurmdbd > /dev/null 2>&1 && exit 0
if ! command -v apt-get > /dev/null; then
  echo "SLURM is not installed, and this is no Debian or Ubuntu: the tests will skip"
elif [ "$(id -u)" != 0 ]; then
  echo "SLURM is not installed, and installing it needs root: the tests will skip"
else
  # Nothing is to be started by the packages: the tests start daemons of their own.
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  { apt-get update && apt-get install --yes --no-install-recommends \
    slurm-wlm munge slurmdbd mariadb-server; } > /tmp/install-slurm.log 2>&1 \
    || { tail -5 /tmp/install-slurm.log; echo "SLURM could not be installed: the tests will skip"; }
fi
