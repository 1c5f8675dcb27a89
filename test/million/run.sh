#!/usr/bin/env bash
# run.sh PROGRAM FOLDER TOKENS [THREADS] - million.c on m1-nano, whose config in FOLDER allows so long a context.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p "$2"
sed -E 's/("max_position_embeddings": )[0-9]+/\11048576/' models/m1-nano/config.json > "$2/config.json"
ln -sf "$PWD/models/m1-nano/model.safetensors" "$2/"
exec "$1" "$2" "$3" "${4:-0}"
