#!/usr/bin/env bash
# Fetches the iPinYou logs (Kaggle set `lastsummer/ipinyou`) and makes the campaigns that the configurations name.
#
#   scripts/download_data.sh [FOLDER] [CAMPAIGN]...        default: data/ipinyou 2259 3386
#
# It needs the `kaggle` command with credentials, `unzip`, `bzip2`, `make`, `git` and about 20 GB; it names whatever is missing and
# stops before it has changed anything. Campaigns that are there already are left as they are.
set -euo pipefail

dataset=lastsummer/ipinyou
tool=https://github.com/wnzhang/make-ipinyou-data.git
folder=${1:-data/ipinyou}
shift || true
campaigns=("${@:-}")
[ -n "${campaigns[0]}" ] || campaigns=(2259 3386)

fail() {
  echo "error: $1: $2" >&2
  exit 1
}

complete() { # whether a campaign's three files are there
  for name in train.yzx.txt test.yzx.txt featindex.txt; do
    [ -s "$folder/$1/$name" ] || return 1
  done
}

wanted=()
for campaign in "${campaigns[@]}"; do
  [[ $campaign =~ ^[0-9]{4}$ ]] || fail "\`$campaign\` is no campaign" "give its four digits, as 2259"
  complete "$campaign" || wanted+=("$campaign")
done
if [ ${#wanted[@]} -eq 0 ]; then
  echo "nothing to do: ${campaigns[*]} are in $folder"
  exit 0
fi

missing=()
command -v kaggle >/dev/null || missing+=("the command \`kaggle\` (\`pip install kaggle\`)")
if [ -z "${KAGGLE_USERNAME:-}${KAGGLE_API_TOKEN:-}" ] && [ ! -s "${KAGGLE_CONFIG_DIR:-$HOME/.kaggle}/kaggle.json" ]; then
  missing+=("Kaggle credentials (KAGGLE_USERNAME and KAGGLE_KEY, or ~/.kaggle/kaggle.json)")
fi
for command in git make unzip bzip2 python3; do
  command -v "$command" >/dev/null || missing+=("the command \`$command\`")
done
if [ ${#missing[@]} -gt 0 ]; then
  printf 'missing: %s\n' "${missing[@]}" >&2
  fail "cannot fetch \`$dataset\`" "install what is missing, or simulate a campaign: \`ocad data simulate ctr --rows 1000000 --out $folder/${wanted[0]}\`"
fi

mkdir -p "$folder"
work=$folder/.download
mkdir -p "$work"
if [ ! -d "$work/raw" ]; then
  kaggle datasets download "$dataset" --path "$work/zip" || fail "cannot download \`$dataset\`" "check the network and the credentials"
  unzip -q -o "$work/zip/*.zip" -d "$work/raw.part"
  mv "$work/raw.part" "$work/raw"
fi
contest=$(find "$work/raw" -type d -name ipinyou.contest.dataset -print -quit)
[ -n "$contest" ] || fail "\`$work/raw\` has no folder \`ipinyou.contest.dataset\`" "remove \`$work\` and run this again"
[ -d "$work/make" ] || git clone --quiet --depth 1 "$tool" "$work/make" || fail "cannot clone \`$tool\`" "check the network"
ln -sfn "$(realpath "$contest")" "$work/make/original-data/ipinyou.contest.dataset"
make -C "$work/make" all

for campaign in "${wanted[@]}"; do
  mkdir -p "$folder/$campaign"
  for name in train.yzx.txt test.yzx.txt featindex.txt; do
    cp "$work/make/$campaign/$name" "$folder/$campaign/$name"
  done
  complete "$campaign" || fail "campaign $campaign was not made" "look at \`$work/make/$campaign\`"
  echo "$folder/$campaign"
done
echo "next: ocad train --plugin deepfm --config configs/deepfm/ipinyou_${wanted[0]}.yaml --data $folder/${wanted[0]}"
