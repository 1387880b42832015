#!/usr/bin/env bash
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
# Runs the playbook with the verb's name. Everything that happens on the hosts is in playbooks/.
set -euo pipefail

here=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)
# Each has its metadata in its role; they are listed in start order.
COMPONENTS=$(awk '$1 == "name:" { name = $2 } $1 == "order:" { print $2, name }' "$here"/roles/*/meta/component.yml |
    sort -n | cut -d ' ' -f 2 | paste -sd ' ')
readonly COMPONENTS

usage() {
    cat <<END
Usage: manage.sh VERB [COMPONENT] [-e ENVIRONMENT | -i INVENTORY] [-l HOST] [OPTION]... [-- ARGUMENT...]

Verbs:
  start      start the services in dependency order, and wait until they are ready
  stop       stop the services in reverse order
  restart    restart the services in dependency order, and wait until they are ready
  status     show each service's state, version, memory, disk use and URL; fails unless all are running
  logs       show the last lines of the services' journals and of the demo app's log files
  doctor     trace one log line from the app to Grafana, and report the first step that fails
  clean      remove the services and their configuration, after a confirmation; retains the data unless --with-data is given

Components: ${COMPONENTS// /, }; default: all.
doctor takes no component, because it always checks the whole pipeline.

Options:
  -e, --env ENVIRONMENT      a directory of inventories/ (default: dev)
  -i, --inventory INVENTORY  path of another inventory, instead of --env; can be repeated
  -l, --limit HOST           host pattern to limit the run to, as for ansible-playbook
  -n, --lines NUMBER         logs: number of lines of each journal and file (default: 100)
  -y, --yes                  clean: skip the confirmation prompt
      --with-data            clean: also remove the data
  -h, --help                 show this help
Arguments after -- are passed to ansible-playbook, for example: manage.sh status -e prod -- --ask-vault-pass

Exit codes:
  0    success
  1    ansible-playbook failed, or --limit matches no host of the inventory
  2    a task failed on a host; status: a service is not running; doctor: a step failed
  4    a host is unreachable, or nothing is selected: no such inventory, or none of its hosts runs the component
  5    ansible-playbook has an invalid option
  64   manage.sh has an invalid argument; nothing was run
  99   interrupted from the keyboard
  250  ansible-playbook failed unexpectedly
END
}

refuse() {
    printf 'manage.sh: %s\nTry: manage.sh --help\n' "$1" >&2
    exit 64 # EX_USAGE, which ansible-playbook does not return
}

is_one_of() { # word, words
    [[ -n $1 && " $2 " == *" $1 "* ]]
}

verb='' component='' environment=''
inventories=() options=()
declare -A only=() # verb that an option is valid with, by option

while (($#)); do
    case $1 in
        -e | --env | -i | --inventory | -l | --limit | -n | --lines)
            [[ -n ${2:-} ]] || refuse "$1 requires a value"
            ;;&
        -h | --help)
            usage
            exit 0
            ;;
        -e | --env)
            environment=$2
            shift
            ;;
        -i | --inventory)
            [[ -e $2 ]] || refuse "inventory $2 does not exist"
            inventories+=(--inventory "$(realpath -- "$2")")
            shift
            ;;
        -l | --limit)
            options+=(--limit "$2")
            shift
            ;;
        -n | --lines)
            [[ $2 =~ ^[1-9][0-9]*$ ]] || refuse "$1 requires a positive integer, not $2"
            only[$1]=logs
            options+=(--extra-vars "logs_lines=$2")
            shift
            ;;
        -y | --yes)
            only[$1]=clean
            options+=(--extra-vars "{clean_confirmed: true}")
            ;;
        --with-data)
            only[$1]=clean
            options+=(--extra-vars "{clean_data: true}")
            ;;
        --)
            shift
            break
            ;;
        -*) refuse "unknown option $1" ;;
        *)
            if [[ -z $verb ]]; then
                verb=$1
            elif [[ -z $component ]]; then
                component=${1//_/-}
                is_one_of "$component" "$COMPONENTS" || refuse "unknown component $1; available: $COMPONENTS"
            else
                refuse "unexpected argument $1; expected one verb and at most one component"
            fi
            ;;
    esac
    shift
done

case $verb in
    start | stop | restart | status | logs | clean) ;;
    doctor) [[ -z $component ]] || refuse "doctor takes no component ($component): it always checks the whole pipeline" ;;
    '') refuse "a verb is required" ;;
    *) refuse "unknown verb $verb; available: start stop restart status logs doctor clean" ;;
esac
for option in "${!only[@]}"; do
    [[ ${only[$option]} == "$verb" ]] || refuse "$option is only valid with ${only[$option]}, not with $verb"
done
if ((${#inventories[@]})); then
    [[ -z $environment ]] || refuse "--env and --inventory are mutually exclusive"
else
    environment=${environment:-dev}
    [[ $environment != */* && -d $here/inventories/$environment ]] ||
        refuse "unknown environment $environment; available: $(cd -- "$here/inventories" && echo *)"
    inventories=(--inventory "inventories/$environment")
fi
[[ -z $component ]] || options+=(--extra-vars "component=$component")
# Falls back to the Makefile's virtual environment if no other is active.
command -v ansible-playbook >/dev/null || PATH="$here/.venv/bin:$PATH"
command -v ansible-playbook >/dev/null || refuse "ansible-playbook is not on the PATH; install requirements/controller.txt"

cd -- "$here"
exec ansible-playbook "${inventories[@]}" "playbooks/$verb.yml" "${options[@]}" "$@"
