#!/usr/bin/env bash
# The main job from end to end on this machine, without network, GPU or downloaded weights: drawn photos and a tiny
# random model stand in for the real ones; commands and recipes are those of real work. Everything lies under demo/.
#   bash scripts/demo.sh
#   ROWS=400 bash scripts/demo.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh

export PATH="$PWD/.venv/bin:$PATH"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
# A model this small gains a third from a second thread, and loses most of its speed when another program wants that core
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

step() {
    local start=$SECONDS
    printf '\n== %s\n' "$1"
    shift
    echo "\$ $*"
    "$@"
    echo "   ($((SECONDS - start)) s)"
}

step "Draw photos of defects" python scripts/draw_defects.py demo/photos --rows "${ROWS:-240}"
step "Make a tiny model" python scripts/make_tiny_model.py demo/model
step "1. Prepare: the table becomes data sets" riskva-run recipes/demo/prepare.yaml
step "2. Fine-tune with LoRA" riskva-run recipes/demo/sft.yaml
step "3. Predict and score the test split" riskva-run recipes/demo/eval.yaml
step "4. Export: one model that loads as its base does" riskva-run recipes/demo/export.yaml

cat <<END

Done in $((SECONDS / 60)) min $((SECONDS % 60)) s. What there is to look at:
  demo/data/manifest.json                               what prepare wrote
  demo/outputs/sft/training_loss.png                    how the loss fell
  demo/outputs/eval/generated_predictions.jsonl         the reports
  demo/outputs/eval/metrics.json                        their scores
  demo/outputs/merged/                                  the merged model
For your own photos: recipes/prepare_parquet.yaml, then recipes/sft_lora.yaml.
END
