#!/usr/bin/env bash
# install.sh slurm|report: installs what some tests need beside Python, or says why it cannot; the
# tests then skip, saying so too.
set -euo pipefail
case "${1:-}" in
  slurm)
    commands="slurmctld munged mariadbd slurmdbd"
    packages="slurm-wlm munge slurmdbd mariadb-server" ;;
  report)
    commands="chromium chromedriver pdflatex"
    packages="chromium chromium-driver texlive-latex-base texlive-latex-recommended" ;;
  *) echo "usage: install.sh slurm|report" >&2; exit 2 ;;
esac
missing=""
for command in $commands; do command -v "$command" > /dev/null 2>&1 || missing+=" $command"; done
[ -n "$missing" ] || exit 0
if ! command -v apt-get > /dev/null; then
  echo "not installed:$missing; this is no Debian or Ubuntu: tests will skip"
elif [ "$(id -u)" != 0 ]; then
  echo "not installed:$missing; installing them needs root: tests will skip"
else
  # Nothing is to be started by the packages: the tests start daemons of their own.
  export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
  { apt-get update && apt-get install --yes --no-install-recommends $packages; } \
    > "/tmp/install-$1.log" 2>&1 \
    || { tail -5 "/tmp/install-$1.log"; echo "not to be had:$missing: tests will skip"; }
fi
