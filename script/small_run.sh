#!/usr/bin/env bash
# The whole pipeline on a small part of VOC (script/presets/small.txt), on two CPU cores in an hour.
# usage: bash script/small_run.sh ROOT WEIGHTS [flags of run_sample.py]
#   ROOT     a VOC-shaped folder with the splits train_aug, train (with masks) and val
#   WEIGHTS  ImageNet weights of ResNet-50 with torchvision's names
. "$(dirname "$0")/help.sh"
[ $# -ge 2 ] || { echo "usage: bash script/small_run.sh ROOT WEIGHTS [flags of run_sample.py]" >&2; exit 2; }
root=$1 weights=$2; shift 2
exec bash "$(dirname "$0")/run.sh" small "$root" --pretrained "$weights" --work_dir "${OUT:-result/small_run}" "$@"
