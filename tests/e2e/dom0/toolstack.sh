# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash source=lib.sh
# What else xl does with a save helper, with the wrapper in its place: saving and restoring, checkpoints, Remus, and two
# migrations at once.
saves=${E2E_saves:-10} rounds=${E2E_both:-10}
# The saved guest has to fit into dom0's memory.
export E2E_memory=160 E2E_maxmem=256
# shellcheck disable=SC2034 # storm_start uses it
STORM_MIB=(180 150 200 160 190)
IMAGE=/tmp/image

# The real helper, after it has left a note of its pid and of what it was called with.
cat >/tmp/noting-helper <<-'HELPER'
	#!/usr/bin/bash
	echo "$$ $*" >>/tmp/helpers
	exec /usr/lib/xen-4.17/bin/libxl-save-helper "$@"
HELPER
chmod +x /tmp/noting-helper
with_helper() { # stock|wrapped COMMAND…
	: >/tmp/helpers
	if [[ $1 == stock ]]; then
		LIBXL_SAVE_HELPER=/tmp/noting-helper "${@:2}" >>"$LOGS/xl" 2>&1
	else
		LIBXL_SAVE_HELPER=$WRAPPER P2MGUARD_REAL_SAVE_HELPER=/tmp/noting-helper "${@:2}" >>"$LOGS/xl" 2>&1
	fi
}
called_with() { cut -d' ' -f2- /tmp/helpers | sed 's/^\(--[a-z-]* [^ ]* [^ ]*\) [0-9]*/\1 DOMID/'; }
sessions_begun() { grep -c 'session.begun' "$LOGS/daemon"; }
spoken_of() { tail -n 5 "$LOGS/xl"; }

create_guest || { not_ok toolstack.setup "no guest"; return; }
learn
start_daemon || { not_ok toolstack.setup "p2mguardd does not answer: $(tail -n1 "$LOGS/daemon")"; return; }

# --- what is not guarded ------------------------------------------------------------------------------------------------

save_and_restore() { with_helper "$1" xl save "$GUEST" $IMAGE && called_with && with_helper "$1" xl restore $IMAGE && called_with; }
checkpoint() { with_helper "$1" xl save -c "$GUEST" $IMAGE && called_with; }
checkpoints_made() { (($(tr '\r' '\n' <"$LOGS/xl" | grep -c 'Checkpointed save') >= 5)); }
# To nowhere. When the helper ends, xl takes it that the other side has gone, and has the guest run on here.
remus() {
	local xl status=0
	: >"$LOGS/xl"
	with_helper "$1" xl remus -F -b -n -d -i 300 "$GUEST" nowhere &
	xl=$!
	until_true 60 checkpoints_made || status=1
	called_with
	kill "$(cut -d' ' -f1 /tmp/helpers)"
	wait $xl
	return $status
}

unguarded() { # NAME COMMAND: the same helpers are called in the same way, nobody is guarded, and the guest runs
	local how begun status
	local -A calls=()
	begun=$(sessions_begun)
	for how in stock wrapped; do
		until status=0 && calls[$how]=$("$2" "$how") || status=1 && ! emulator_lost_guest; do :; done
		check "toolstack.$1.$how" "${calls[$how]//$'\n'/, }" test $status -eq 0 || spoken_of
		check "toolstack.$1.$how.memory" "the guest runs and its memory is intact" guest_memory_ok
	done
	check "toolstack.$1" "the helpers were called as without the wrapper, and no guest was guarded" \
		same "${calls[stock]} $begun" "${calls[wrapped]} $(sessions_begun)"
}
unguarded save save_and_restore
unguarded checkpoint checkpoint
unguarded remus remus

# Under the storm a checkpoint leaves a guest that runs. An image is not always one that can be restored: its configuration
# has a target of a moment before. That is xl's own doing, and its own to mend: nothing is checked but what is left here.
kept=0 restored=0 n=1
while ((n <= saves)); do
	storm_start
	checkpoint wrapped >/dev/null || spoken_of
	kept_one=0
	if runs_here "$(domid)" && guest_memory_ok; then kept_one=1; fi
	with_helper wrapped xl save "$GUEST" $IMAGE || spoken_of
	storm_stop
	emulator_lost_guest && continue
	kept=$((kept + kept_one))
	if with_helper wrapped xl restore $IMAGE && guest_memory_ok; then
		restored=$((restored + 1))
	else
		xl destroy "$GUEST" >/dev/null 2>&1
		create_guest || { not_ok toolstack.setup "no guest"; return; }
	fi
	n=$((n + 1))
done
rm -f $IMAGE
check toolstack.storm.checkpoint "left running by a checkpoint under the storm $kept of $saves times" test "$kept" -eq "$saves"
fig toolstack.storm.restored "$restored of $saves images that were saved under the storm, unguarded"

# --- two at once --------------------------------------------------------------------------------------------------------

OTHER=v
create_other() { (GUEST=$OTHER E2E_memory=130 create_guest); }
mem_set() { # MIB: both; what the other was asked for, and where, is in /tmp/storm.other
	local of
	xl mem-set "$GUEST" "${1}m" || return
	of=$(xl domid "$OTHER")
	! xl mem-set "$OTHER" "$(($1 - 20))m" || echo "$((($1 - 20) * 1024)) $of" >/tmp/storm.other
}
move() { # GUEST: leaves the number of tries in /tmp/tries.GUEST
	local before try
	before=$(xl domid "$1")
	for try in 1 2; do
		LIBXL_SAVE_HELPER=$WRAPPER timeout 240 xl migrate -s "" "$1" "$RECEIVE" >>"$LOGS/xl.$1" 2>&1 && break
		xl destroy "$1--incoming" >/dev/null 2>&1
	done
	echo "$try" >"/tmp/tries.$1"
	[[ $(xl domid "$1") != "$before" ]]
}
two_held() { p2mguardctl --json list | jq -e '[.[] | select(.state == "held")] | length == 2' >/dev/null 2>&1; }
other_as_asked() {
	local kib of
	read -r kib of </tmp/storm.other
	(GUEST=$OTHER as_libxl_makes_it "$kib") || [[ $of != "$(xl domid "$OTHER")" ]]
}

create_other || { not_ok toolstack.setup "no second guest"; return; }
moved=0 together=0 n=1 tries=() times=()
while ((n <= rounds)); do
	storm_start
	start=$(now_ms) status=0
	move "$GUEST" &
	one=$!
	move $OTHER &
	other=$!
	if until_true 60 two_held; then together=$((together + 1)); fi
	wait $one || status=$?
	wait $other || status=$?
	times+=("$(($(now_ms) - start))")
	storm_stop
	until_true 10 journal_is_empty
	if emulator_lost_guest; then
		xl destroy $OTHER >/dev/null 2>&1
		xl destroy $OTHER--incoming >/dev/null 2>&1
		create_other
		continue
	fi
	tries+=("$(<"/tmp/tries.$GUEST")+$(<"/tmp/tries.$OTHER")")
	if ((status == 0)); then
		moved=$((moved + 1))
	else
		tail -n 8 "$LOGS/xl.$GUEST" "$LOGS/xl.$OTHER" "$LOGS/daemon"
	fi
	as_libxl_makes_it "$(</tmp/storm.last)" || asked_of_domain_left || not_ok "toolstack.both.restored.$n" "the first guest is not as asked last"
	other_as_asked || not_ok "toolstack.both.restored.$n" "the second guest is not as asked last"
	guest_memory_ok || not_ok "toolstack.both.memory.$n" "the first guest does not run, or its memory is not what it was"
	(GUEST=$OTHER guest_memory_ok) || not_ok "toolstack.both.memory.$n" "the second guest does not run, or its memory is not what it was"
	n=$((n + 1))
done
fig toolstack.both.tries "${tries[*]}"
fig toolstack.both.ms "${times[*]}"
check toolstack.both "both guests migrated at once within two tries $moved of $rounds times" test "$moved" -eq "$rounds"
check toolstack.both.together "both were held at the same time $together of $rounds times" test "$together" -ge 1
