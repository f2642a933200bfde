#!/bin/sh
# Proves the two commands of the README on a fresh machine: a minimal Debian with make and python3 and nothing else.
#   sh tests/fresh_machine.sh [--mode root|user] [--suite bookworm] [--skip-tests]
# root: `make demo` is the first thing ever run, then `make test`, then `make demo` with a damaged environment.
# user: without rights `make demo` names one command; after that command it works.
# Needs root and mmdebstrap. Everything happens in one temporary folder and in namespaces that end with the script;
# the host's name resolution, certificates and pip settings are passed through, with the folders they name.
set -eu
checkout=$(cd "$(dirname "$0")/.." && pwd)
mode=root suite=bookworm tests=yes inside=
while [ $# -gt 0 ]; do
  case $1 in
    --mode) mode=$2; shift ;;
    --suite) suite=$2; shift ;;
    --skip-tests) tests=no ;;
    --inside) inside=$2; shift ;;
    *) sed -n '2,4s/^# *//p' "$0"; exit 2 ;;
  esac
  shift
done

main() {
  [ "$(id -u)" = 0 ] || { echo "needs root: it makes a chroot" >&2; exit 2; }
  command -v mmdebstrap >/dev/null || { echo "needs mmdebstrap: apt-get install mmdebstrap" >&2; exit 2; }
  scratch=$(mktemp -d)
  trap 'rm -rf --one-file-system "$scratch"' EXIT
  trap 'exit 130' INT TERM
  test_flag=; [ $tests = yes ] || test_flag=--skip-tests
  # The mounts and every process end with the namespaces; then only plain files are left to remove.
  unshare --mount --propagation private --pid --fork --kill-child \
    sh "$0" --inside "$scratch" --mode "$mode" --suite "$suite" $test_flag
}

inside() {
  root=$scratch/root summary=$scratch/summary
  apt-config dump | grep -E '^Acquire::(https?::|Check-)' >"$scratch/apt.conf" || true
  timed "bootstrap a minimal $suite" mmdebstrap --quiet --variant=minbase --include=make,python3 \
    --aptopt="$scratch/apt.conf" "$suite" "$root"
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d" && chmod +x "$root/usr/sbin/policy-rc.d"
  mount -t proc proc "$root/proc"
  mount --rbind /dev "$root/dev"
  cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
  pass_pip_settings
  "${mode}_mode"
  printf '\n%s mode, %s, %s\n' "$mode" "$suite" "$(chroot "$root" python3 -V)"
  cat "$summary"
}

root_mode() {
  home=/root user=root:root
  put_clone
  timed "make demo, the first thing ever run" in_root make demo SECONDS=5
  [ $tests = no ] || timed "make test" in_root make test
  rm "$root$home"/edge-agent/.venv/environment.json
  rm -r "$root$home"/edge-agent/.venv/lib/python3*/site-packages/pip
  timed "make demo with a damaged environment" in_root make demo SECONDS=2
  timed "make demo again" in_root make demo SECONDS=2
}

user_mode() {
  chroot "$root" useradd --create-home --shell /bin/sh pi
  home=/home/pi user=pi:pi
  put_clone
  if in_root make demo SECONDS=5 >"$scratch/output" 2>&1; then
    echo "make demo worked without python3-venv; expected it to ask for it" >&2; exit 1
  fi
  sed 's/^/    /' "$scratch/output"
  command=$(sed -n '/^ *sudo /{s/^ *//; s/sudo //gp}' "$scratch/output")
  [ "$(printf '%s\n' "$command" | wc -l)" = 1 ] && [ -n "$command" ] || { echo "expected one command" >&2; exit 1; }
  home=/root user=root:root folder=/ timed "as root: $command" in_root sh -c "$command"
  timed "make demo as a user" in_root make demo SECONDS=5
}

put_clone() {
  git clone --quiet --no-hardlinks "$checkout" "$root$home/edge-agent"
  chroot "$root" chown -R "$user" "$home/edge-agent"
  folder=$home/edge-agent
}

in_root() {
  chroot --userspec="$user" "$root" /usr/bin/env -i HOME="$home" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    sh -c '. /etc/host-files/environment; cd "$1"; shift; exec "$@"' sh "$folder" "$@" </dev/null
}

timed() {
  what=$1; shift
  printf '\n=== %s\n' "$what"
  started=$(date +%s)
  if "$@"; then result=ok; else result="FAILED ($?)"; fi
  printf '%6d s  %-6s  %s\n' $(($(date +%s) - started)) "$result" "$what" | tee -a "$summary"
  [ "$result" = ok ] || { printf '\nthis far:\n'; cat "$summary"; exit 1; }
}

# Settings become variables for the machine inside. Folders that they name are mounted at the same place; files are
# copied elsewhere, since its packages may bring files of the same names.
pass_pip_settings() {
  python3 - "$scratch" <<'PYTHON'
import ast, os, pathlib, re, shlex, shutil, subprocess, sys

settings = {}
for line in subprocess.run(["python3", "-m", "pip", "config", "list"], capture_output=True, text=True).stdout.splitlines():
    key, _, value = line.partition("=")
    if not key.startswith(":env:"):
        settings["PIP_" + key.rpartition(".")[2].upper().replace("-", "_")] = " ".join(ast.literal_eval(value).split())
wanted = re.compile(r"PIP_(?!CONFIG_FILE)|(SSL_CERT_FILE|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|(https?|no)_proxy)$", re.I)
settings |= {key: value for key, value in os.environ.items() if wanted.match(key)}
scratch, places = pathlib.Path(sys.argv[1]), set()
host_files = scratch / "root/etc/host-files"
host_files.mkdir()
for key, value in settings.items():
    for place in map(pathlib.Path, re.findall(r"(?:^|(?<=\s)|file://)(/\S+)", value)):
        if place.is_file():
            shutil.copy(place, host_files)
            settings[key] = settings[key].replace(str(place), f"/etc/host-files/{place.name}")
        elif place.is_dir():
            places.add(place.parent if place.name == "simple" else place)  # an index links to files beside it
exports = [f"export {key}={shlex.quote(value)}\n" for key, value in settings.items()]
(host_files / "environment").write_text("".join(exports))
(scratch / "places").write_text("".join(f"{place}\n" for place in sorted(places)))
PYTHON
  while read -r place; do
    mkdir -p "$root$place"
    mount --bind "$place" "$root$place" && mount -o remount,bind,ro "$root$place"
  done <"$scratch/places"
}

if [ -n "$inside" ]; then scratch=$inside; inside; else main; fi
