#!/bin/sh
# Makes the checkout that this script lies in the service edge-agent of this machine; see --help and docs/install.md.
set -eu
umask 022

home=/opt/edge-agent
config=/etc/edge-agent
unit=/etc/systemd/system/edge-agent.service
link=/usr/local/bin/edge-agent
state=/var/lib/edge-agent # a link to /var/lib/private/edge-agent while the service has no user of its own
config_group=edge-agent-config

usage() {
  cat <<'USAGE'
usage: install.sh [--wheels DIR] [--extras LIST] [--with REQUIREMENT] [--python PYTHON] [--no-start] [--dry-run]
       install.sh --uninstall [--purge] [--dry-run]

Installs this checkout in /opt/edge-agent as the service edge-agent, or brings an installation to this checkout.
A configuration that is there stays as it is. Running it again changes nothing.

  --wheels DIR        install from the wheels in DIR, without a network
  --extras LIST       extras of the package, default: web; an empty text for none
  --with REQUIREMENT  one more package or wheel, such as NVIDIA's onnxruntime_gpu-....whl on a Jetson
  --python PYTHON     the interpreter, default: python3; 3.10 or newer
  --no-start          install, but neither start nor restart the service
  --uninstall         remove the service and /opt/edge-agent; /etc/edge-agent and /var/lib/edge-agent stay
  --purge             with --uninstall: remove those too, with the events that were not sent yet
  --dry-run           say what would be done, and change nothing
USAGE
}

main() {
  wheels='' extras=web with='' python=python3 start=yes dry_run=no uninstall=no purge=no
  while [ $# -gt 0 ]; do
    case $1 in
      --wheels | --extras | --with | --python)
        [ $# -gt 1 ] || misused "$1 needs a value"
        case $1 in
          --wheels) wheels=$2 ;;
          --extras) extras=$2 ;;
          --with) with=$2 ;;
          --python) python=$2 ;;
        esac
        shift
        ;;
      --no-start) start=no ;;
      --uninstall) uninstall=yes ;;
      --purge) purge=yes ;;
      --dry-run) dry_run=yes ;;
      --help | -h) usage && exit 0 ;;
      *) misused "unknown option: $1" ;;
    esac
    shift
  done
  [ $purge = no ] || [ $uninstall = yes ] || misused "--purge goes with --uninstall"

  checkout=$(cd "$(dirname "$0")/.." && pwd -P)
  changes=0 scratch='' unfinished=''
  trap 'clean_up' EXIT
  trap 'exit 130' INT TERM HUP
  check_rights
  if [ $uninstall = yes ]; then
    remove_all
  else
    check_machine
    install_all
  fi
}

# --- install

install_all() {
  digest=$(digest_of_inputs)
  venv=$home/venvs/$digest
  former=$(readlink $home/venv || true)
  [ -f "$venv/complete" ] || act "make $venv: edge-agent${extras:+[$extras]}${with:+ and $with}" make_venv
  put_in_place
  changes_to_service=$changes
  systemctl is-enabled --quiet edge-agent 2>/dev/null || act "enable the service" systemctl --quiet enable edge-agent
  if [ $start = yes ]; then
    case $(systemctl show --property=ActiveState --value edge-agent) in
      active | activating | reloading)
        # The second: a run before this one was interrupted right after it had put everything in place.
        if [ "$changes_to_service" != 0 ] || [ "$(running_python)" != "$venv/bin/python" ]; then
          act "restart the service" restart_or_put_back
        fi
        ;;
      *) start_if_complete ;;
    esac
  fi
  remove_old_venvs
  summary
}

# Everything that lies in the file system, the new environment's activation last.
put_in_place() {
  for group in video render $config_group; do
    getent group "$group" >/dev/null || act "make the group $group" groupadd --system "$group"
  done
  # The group may read; new files belong to it too.
  [ -d $config ] || act "make $config" install -d -m 2750 -g $config_group $config
  [ -e $config/agent.yaml ] ||
    act "put the example of a configuration in $config/agent.yaml" \
      install -m 640 -g $config_group "$checkout/configs/agent.yaml" $config/agent.yaml
  cmp -s "$checkout/docs/install.md" $home/install.md ||
    act "put install.md in $home" install -m 644 "$checkout/docs/install.md" $home/install.md
  [ -e $link ] || [ -L $link ] || act "make the command $link" ln -s $home/venv/bin/edge-agent $link
  cmp -s "$checkout/systemd/edge-agent.service" $unit || act "put the unit in $unit" put_unit
  [ "$former" = "venvs/$digest" ] || act "make it the active one: $home/venv" activate "venvs/$digest"
}

make_venv() {
  scratch=$(mktemp -d) unfinished=$venv
  rm -rf "$venv"
  mkdir -p "$home/venvs" "$scratch/source"
  # A copy: pip builds inside the folder that it installs from.
  (cd "$checkout" && tar -c --exclude=__pycache__ pyproject.toml README.md LICENSE agent build_models) |
    tar -x --no-same-owner -C "$scratch/source"
  "$python" -m venv "$venv" >"$scratch/log" 2>&1 || failed_to_make_venv "making an empty environment"
  set -- "$scratch/source${extras:+[$extras]}" ${with:+"$with"}
  [ -z "$wheels" ] || set -- --no-index --find-links "$wheels" "$@"
  "$venv/bin/python" -m pip install --no-input --disable-pip-version-check --no-cache-dir --progress-bar off "$@" \
    >"$scratch/log" 2>&1 || failed_to_make_venv "installing the packages"
  "$venv/bin/python" -m pip uninstall --yes setuptools pip >"$scratch/log" 2>&1 # a device needs neither
  "$venv/bin/python" -c 'import agent.app' >"$scratch/log" 2>&1 || failed_to_make_venv "importing the agent"
  touch "$venv/complete"
  unfinished=''
}

failed_to_make_venv() {
  tail -15 "$scratch/log" >&2
  fail "$1 failed, see above; nothing that was installed before has changed. Try again when the cause is gone."
}

put_unit() {
  [ ! -f $unit ] || keep_former_unit
  install -m 644 "$checkout/systemd/edge-agent.service" $unit
  systemctl daemon-reload
}

keep_former_unit() {
  scratch=${scratch:-$(mktemp -d)}
  cp $unit "$scratch/former.service"
}

activate() { # a rename: there is always one environment
  ln -sfn "$1" $home/venv.new
  mv -T $home/venv.new $home/venv
}

start_if_complete() {
  if [ $dry_run = yes ]; then
    say "would check $config/agent.yaml, and start the service if nothing is missing"
    return
  fi
  # A credential has the name of its file here, so the configuration reads the same as in the service.
  if answer=$(CREDENTIALS_DIRECTORY=$config $home/venv/bin/edge-agent config check $config/agent.yaml 2>&1) &&
    ! printf '%s\n' "$answer" | grep -q '^note: '; then
    act "start the service" systemctl start edge-agent || fail "it does not start; see: journalctl -u edge-agent"
  else
    printf '%s\n' "$answer" | grep -E '^(note|edge-agent): ' || true
    say "not started yet. Edit $config/agent.yaml, then: systemctl start edge-agent"
  fi
}

restart_or_put_back() {
  if systemctl restart edge-agent; then return; fi
  case $former in
    '' | "venvs/$digest") fail "it does not start; see: journalctl -u edge-agent" ;;
  esac
  activate "$former"
  [ ! -f "$scratch/former.service" ] || install -m 644 "$scratch/former.service" $unit
  systemctl daemon-reload
  systemctl restart edge-agent || true
  fail "the new version does not start, the former one is back; see: journalctl -u edge-agent"
}

# The interpreter of the service as it runs, by the name that tells of its environment; empty while it does not run.
running_python() {
  pid=$(systemctl show --property=MainPID --value edge-agent)
  [ "$pid" = 0 ] || tr '\0' '\n' <"/proc/$pid/cmdline" | sed -n 1p
}

remove_old_venvs() {
  in_use=$(running_python) # with --no-start it may still be an old one
  for old in "$home"/venvs/*; do
    case $old in
      "$venv" | "${in_use%/bin/python}" | "$home/venvs/*") ;;
      *) act "remove $old" rm -rf "$old" ;;
    esac
  done
}

summary() {
  if [ $changes = 0 ]; then
    say "edge-agent is installed as in $checkout: nothing to do"
  elif [ $dry_run = no ]; then
    say "edge-agent is installed; its log: journalctl -u edge-agent"
  fi
}

# What the environment is made from: the interpreter, the options, the package, the wheels' names.
digest_of_inputs() {
  {
    "$python" -c 'import sys; print(sys.version, sys.base_prefix)'
    printf '%s\n' "$extras" "$with"
    [ ! -f "$with" ] || sha256sum <"$with"
    [ -z "$wheels" ] || ls "$wheels"
    cd "$checkout"
    find pyproject.toml README.md LICENSE agent build_models -type f ! -path '*/__pycache__/*' -exec sha256sum {} + |
      LC_ALL=C sort -k 2
  } | sha256sum | cut -c 1-16
}

# --- uninstall

remove_all() {
  if [ -f $unit ]; then
    act "stop and disable the service" systemctl --quiet disable --now edge-agent
    act "remove $unit" rm $unit
    act "have systemd forget it" systemctl daemon-reload
    [ $dry_run = yes ] || systemctl reset-failed edge-agent 2>/dev/null || true
  fi
  case $(readlink $link || true) in
    $home/*) act "remove $link" rm $link ;;
  esac
  [ ! -d $home ] || act "remove $home" rm -rf $home
  if [ $purge = yes ]; then
    for folder in $config $unit.d /var/lib/private/edge-agent $state; do
      if [ -e "$folder" ] || [ -L "$folder" ]; then act "remove $folder" rm -rf "$folder"; fi
    done
    ! getent group $config_group >/dev/null || act "remove the group $config_group" groupdel $config_group
  fi
  if [ $changes = 0 ]; then
    say "edge-agent is not installed: nothing to do"
  elif [ $purge = no ] && [ $dry_run = no ]; then
    say "$config and $state are kept; --uninstall --purge removes them"
  fi
}

# --- what must hold before anything is done

check_rights() {
  [ "$(id -u)" = 0 ] || [ $dry_run = yes ] || fail "needs root's rights; say: sudo $0 ..."
  if [ ! -d /run/systemd/system ] || ! command -v systemctl >/dev/null; then
    fail "systemd does not run here. For a container see Dockerfile.arm64; else: edge-agent run --config agent.yaml"
  fi
  case $checkout/ in
    $home/*) fail "this checkout lies in $home, which is for what gets installed; move it, for example to /srv" ;;
  esac
}

check_machine() {
  command -v "$python" >/dev/null || fail "$python is missing; say: apt-get install python3 python3-venv"
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "needs Python 3.10 or newer, $python is $("$python" -V 2>&1); name a newer one with --python"
  "$python" -c 'import sys; sys.exit(sys.maxsize < 2**32)' ||
    fail "needs a 64-bit system, $python is a 32-bit program: ONNX Runtime has no package for it"
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python cannot make environments; say: apt-get install python3-venv"
  case $("$python" -c 'import os, sys; print(os.path.realpath(sys.base_prefix))')/ in
    /root/* | /home/* | /run/user/*)
      fail "$python lies in a home folder, which the service may not see; say: --python /usr/bin/python3"
      ;;
  esac
  [ -z "$wheels" ] || [ -d "$wheels" ] || fail "--wheels: expected a folder with wheels, $wheels is none"
  case $(uname -r)/$with in
    *tegra*/*onnxruntime*) ;;
    *tegra*)
      fail "this is a Jetson, whose ONNX Runtime comes from NVIDIA: get the wheel onnxruntime_gpu for your JetPack and
  Python, then run this again with: --with /path/to/onnxruntime_gpu-....whl (docs/install.md says more)"
      ;;
  esac
}

# --- saying and doing

# act WHAT COMMAND...: one change, counted and said; with --dry-run it is only said.
act() {
  what=$1
  shift
  changes=$((changes + 1))
  if [ $dry_run = yes ]; then
    say "would $what"
  else
    say "$what"
    "$@"
  fi
}

say() { printf '%s\n' "$*"; }

fail() {
  printf 'install.sh: %s\n' "$*" >&2
  exit 1
}

misused() {
  printf 'install.sh: %s\n\n' "$*" >&2
  usage >&2
  exit 2
}

clean_up() {
  [ -z "$unfinished" ] || rm -rf "$unfinished"
  [ -z "$scratch" ] || rm -rf "$scratch"
}

main "$@"
