#!/usr/bin/env bash
# Installs the Debian packages whose programs are needed and not found: those of
# the tests, or those of the list that is its argument.
# Without root or sudo it installs nothing: the tests then name what is missing.
set -euo pipefail
list=${1:-"$(dirname "$0")/packages.txt"}
export PATH="$PATH:/usr/sbin:/sbin"

missing=()
while read -r package program _; do
	[[ -z "$package" || "$package" == \#* ]] && continue
	command -v "$program" >/dev/null 2>&1 || [[ -e "$program" ]] || missing+=("$package")
done <"$list"
[[ ${#missing[@]} -eq 0 ]] && exit 0

as_root=()
if [[ $(id -u) -ne 0 ]]; then
	if ! sudo -n true 2>/dev/null; then
		echo "these packages are missing and only root may install them: ${missing[*]}" >&2
		exit 0
	fi
	as_root=(sudo -n)
fi
echo "installing ${missing[*]}"
"${as_root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
