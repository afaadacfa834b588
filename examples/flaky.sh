#!/bin/sh
# Fails at its first two attempts: `python -m engine why RUN` then tells of each.
set -eu
echo "attempt $ENGINE_ATTEMPT"
[ "$ENGINE_ATTEMPT" -ge 3 ]
