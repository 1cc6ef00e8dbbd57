#!/usr/bin/env bash
# Upload, tune, follow, ask: with curl alone.
set -euo pipefail
cd "$(dirname "$0")"
base=${OPENAI_BASE_URL:-http://127.0.0.1:8000/v1}
model=${OPENAI_MODEL:-gpt-4.1-mini}

ask() { curl --silent --show-error --fail-with-body -H "Authorization: Bearer ${OPENAI_API_KEY:-none}" "$@"; }
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

file=$(ask "$base/files" -F purpose=fine-tune -F file=@tickets.jsonl | field id)
job=$(ask "$base/fine_tuning/jobs" -H 'Content-Type: application/json' \
  -d "{\"model\": \"$model\", \"training_file\": \"$file\", \"suffix\": \"curl\", \"hyperparameters\": {\"n_epochs\": 1}}" | field id)
echo "$file $job"

# The events as they come, until the job has ended.
ask --no-buffer "$base/fine_tuning/jobs/$job/events?stream=true"

ask "$base/fine_tuning/jobs/$job/checkpoints"
echo
tuned=$(ask "$base/fine_tuning/jobs/$job" | field fine_tuned_model)
ask "$base/chat/completions" -H 'Content-Type: application/json' \
  -d "{\"model\": \"$tuned\", \"max_tokens\": 8, \"messages\": [{\"role\": \"user\", \"content\": \"Where is my radio?\"}]}"
echo
