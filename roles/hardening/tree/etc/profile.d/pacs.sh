# shellcheck shell=dash
# For sessions of a person: no core files, and a shell that nobody types in ends after half an hour. What runs in it, runs.
ulimit -c 0
TMOUT=1800
readonly TMOUT
export TMOUT
