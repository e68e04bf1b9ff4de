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
