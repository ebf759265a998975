#!/usr/bin/env bash
# SmolLM2-135M-Instruct on five benchmarks, greedy and tool-free. EAPO_DATA names the folder with
# upstream's files; about half an hour on two cores. Usage: benchmarks/small_model.sh [OUT]
set -euo pipefail
out=${1:-runs/small_model}
mmlu=$(mktemp -d)
trap 'rm -rf "$mmlu"' EXIT
for subject in anatomy global_facts; do
  cp "$EAPO_DATA/mmlu/test/${subject}_test.csv" "$mmlu"
done
greedy=(--samples 1 --temperature 0 --concurrency 64)
eapo eval -b humaneval "${greedy[@]}" --max-new-tokens 512 --out "$out/humaneval"
eapo eval -b gsm8k --limit 200 "${greedy[@]}" --max-new-tokens 400 --out "$out/gsm8k"
eapo eval -b mmlu --data mmlu="$mmlu" "${greedy[@]}" --max-new-tokens 256 --out "$out/mmlu"
eapo eval -b hotpotqa --limit 100 --samples 1 --temperature 0 --concurrency 16 --max-new-tokens 64 \
  --out "$out/hotpotqa"
eapo eval -b aime24 "${greedy[@]}" --max-new-tokens 2048 --out "$out/aime24"
