#!/usr/bin/env bash
# Copyright (c) logstead contributors
# SPDX-License-Identifier: MIT
# Runs the playbook that is named like the verb. All that happens on the hosts is in playbooks/.
set -euo pipefail

here=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")" && pwd)
# Each is described by a record in its role; they are listed in the order of starting.
COMPONENTS=$(awk '$1 == "name:" { name = $2 } $1 == "order:" { print $2, name }' "$here"/roles/*/meta/component.yml |
    sort -n | cut -d ' ' -f 2 | paste -sd ' ')
readonly COMPONENTS

usage() {
    cat <<END
Usage: manage.sh VERB [COMPONENT] [-e ENVIRONMENT | -i INVENTORY] [-l HOST] [OPTION]... [-- ARGUMENT...]

Verbs:
  start      start the services in the order in which they need one another, and wait until they are ready
  stop       stop them in the reverse order
  restart    restart them, and wait until they are ready
  status     show each service's state, version, memory, data and address; fails if one that should run doesn't
  logs       show the last lines of their journals
  doctor     follow one log line from the app to Grafana, and name the first step that fails
  clean      remove the services and their settings, after a question; data stays unless --with-data is given

Components: ${COMPONENTS// /, }; without one, all of them.
doctor always looks at the whole way.

Options:
  -e, --env ENVIRONMENT      a folder of inventories/ (default: dev)
  -i, --inventory INVENTORY  an inventory elsewhere, instead; may be given more than once
  -l, --limit HOST           these hosts only, as ansible-playbook understands it
  -n, --lines NUMBER         logs: how many lines of each (default: 100)
  -y, --yes                  clean: don't ask
      --with-data            clean: remove the data too
  -h, --help                 show this help
Whatever follows -- goes to ansible-playbook, such as: manage.sh status -e prod -- --ask-vault-pass
END
}

refuse() {
    printf 'manage.sh: %s\nTry: manage.sh --help\n' "$1" >&2
    exit 2
}

is_one_of() { # word, words
    [[ -n $1 && " $2 " == *" $1 "* ]]
}

verb='' component='' environment=''
inventories=() options=()
declare -A only=() # verb that an option belongs to, by option

while (($#)); do
    case $1 in
        -e | --env | -i | --inventory | -l | --limit | -n | --lines)
            [[ -n ${2:-} ]] || refuse "$1 needs a value"
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
            [[ -e $2 ]] || refuse "there is no inventory $2"
            inventories+=(--inventory "$(realpath -- "$2")")
            shift
            ;;
        -l | --limit)
            options+=(--limit "$2")
            shift
            ;;
        -n | --lines)
            [[ $2 =~ ^[1-9][0-9]*$ ]] || refuse "$1 needs a number, not $2"
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
                is_one_of "$component" "$COMPONENTS" || refuse "unknown component $1; there are: $COMPONENTS"
            else
                refuse "one verb and one component at most, not also $1"
            fi
            ;;
    esac
    shift
done

case $verb in
    start | stop | restart | status | logs | clean) ;;
    doctor) [[ -z $component ]] || refuse "doctor looks at the whole way, not at $component alone" ;;
    '') refuse "say what to do" ;;
    *) refuse "unknown verb $verb; there are: start stop restart status logs doctor clean" ;;
esac
for option in "${!only[@]}"; do
    [[ ${only[$option]} == "$verb" ]] || refuse "$option is an option of ${only[$option]}, not of $verb"
done
if ((${#inventories[@]})); then
    [[ -z $environment ]] || refuse "give --env or --inventory, not both"
else
    environment=${environment:-dev}
    [[ $environment != */* && -d $here/inventories/$environment ]] ||
        refuse "unknown environment $environment; there are: $(cd -- "$here/inventories" && echo *)"
    inventories=(--inventory "inventories/$environment")
fi
[[ -z $component ]] || options+=(--extra-vars "component=$component")
# The Makefile's environment, where there is one and no other is active.
command -v ansible-playbook >/dev/null || PATH="$here/.venv/bin:$PATH"
command -v ansible-playbook >/dev/null || refuse "ansible-playbook is not on the PATH; install requirements/controller.txt"

cd -- "$here"
exec ansible-playbook "${inventories[@]}" "playbooks/$verb.yml" "${options[@]}" "$@"
