#!/bin/sh
# What a program is given: its run in variables, the event on standard input, and a file for its outputs.
set -eu
echo "job $ENGINE_JOB, by trigger $ENGINE_TRIGGER, attempt $ENGINE_ATTEMPT of run $ENGINE_RUN_ID"
echo "event $ENGINE_EVENT_ID of type $ENGINE_EVENT_TYPE:"
cat
echo "shown_at=$(date +%H:%M:%S)" >> "$ENGINE_OUTPUT"
