# What the scripts here share about Debian; they source it.
# shellcheck shell=bash

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# The mirror that apt already uses here.
mirror() {
  local site
  # shellcheck disable=SC2016 # apt's own variables
  site=$(apt-get indextargets --format '$(SITE) $(REPO_URI)' 'Created-By: Packages' |
           awk '$2 !~ /security/ && $2 ~ /debian\/?$/ { print $2; exit }')
  [ -n "$site" ] || { echo "$0: apt names no Debian mirror" >&2; return 1; }
  echo "$site"
}

# Gives apt a place of its own for some suites, in a new directory; the machine's sources and state stay as they are.
# The options that apt-get and apt-cache take to work there are in `private` then.
# shellcheck disable=SC2034 # those who source this use it
private_apt() {
  local dir=$1 site suite
  shift
  site=$(mirror)
  mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
  touch "$dir/status"
  for suite in "$@"; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site $suite main"
  done >"$dir/sources.list"
  private=(-qq -o APT::Sandbox::User=root -o Acquire::Check-Valid-Until=false -o Acquire::Retries=3
           -o Dir::Etc::SourceList="$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null
           -o Dir::Etc::PreferencesParts=/dev/null -o Dir::Cache="$dir/cache"
           -o Dir::State::Lists="$dir/lists" -o Dir::State::Status="$dir/status")
}
