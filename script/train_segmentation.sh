#!/usr/bin/env bash
# The segmentation network on the pseudo-masks: makes those of train_aug where they are missing, trains, predicts val with one
# scale, with several, and with CRF, scores, and prints the whole table beside the published figures.
# usage: bash script/train_segmentation.sh [ROOT] [--gpus N] [--from_released] [flags of run_sample.py]
#   ROOT, --gpus, --from_released  as in script/generate_pseudo_mask.sh
#   --seg_label_dir DIR            train on the label maps there instead (result/sem_seg once all are made, or
#                                  SegmentationClassAug for full supervision); no stage before is run
# It can be stopped and run again: the same command goes on.
set -euo pipefail
if [ "${1:-}" = --help ] || [ "${1:-}" = -h ]; then sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0; fi
exec bash "$(dirname "$0")/generate_pseudo_mask.sh" --segmentation "$@"
