#!/usr/bin/env bash
# The main job from end to end on this machine, without network, GPU or downloaded weights: drawn photos and the tiny
# model that ships with RisKVA stand in for the real ones; commands and recipes are those of real work. All that it
# writes lies under demo/.
#   bash scripts/demo.sh
#   ROWS=400 bash scripts/demo.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROWS=${ROWS:-300}
if ((ROWS < 60)); then
    echo "ROWS=$ROWS: at least 60, so that every split has rows" >&2
    exit 2
fi
bash scripts/setup.sh

export PATH="$PWD/.venv/bin:$PATH"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
# One thread a process: a second one loses most of its speed when another program wants that core
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

step() {
    local start=$SECONDS
    printf '\n== %s\n' "$1"
    shift
    echo "\$ $*"
    "$@"
    echo "   ($((SECONDS - start)) s)"
}

step "Draw photos of defects in 48 houses" python scripts/draw_defects.py demo/photos --rows "$ROWS"
step "1. Prepare: the table becomes data sets, split by house" riskva-run recipes/demo/prepare.yaml
step "2. Fine-tune with LoRA" riskva-run recipes/demo/sft.yaml
step "3. Score the base on photos of unseen houses" riskva-run recipes/demo/eval_base.yaml
step "4. Score the fine-tuned model on the same photos" riskva-run recipes/demo/eval.yaml
step "5. Export: one model that loads as its base does" riskva-run recipes/demo/export.yaml
step "6. One photo's report" riskva-run recipes/demo/predict.yaml image=demo/photos/images/00008.jpg
step "What fine-tuning has changed" riskva-run recipes/demo/compare.yaml

cat <<END

Done in $((SECONDS / 60)) min $((SECONDS % 60)) s. What there is to look at:
  demo/outputs/eval/report.html                         every test photo and every score, mistakes first
  demo/outputs/compare/comparison.html                  base and fine-tuned side by side
  demo/outputs/sft/training_loss.png                    how the loss fell
  demo/outputs/eval/generated_predictions.jsonl         the reports
  demo/outputs/eval/metrics.json                        their scores; sample_scores.jsonl row by row
  demo/outputs/merged/                                  the merged model
For your own photos: recipes/prepare_parquet.yaml, then recipes/sft_lora.yaml.
END
