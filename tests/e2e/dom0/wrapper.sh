# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash source=lib.sh
# Plain "xl migrate", and LIBXL_SAVE_HELPER in its environment: nothing else is changed.
storms=${E2E_storms:-20} pairs=${E2E_wrapped:-5} deaths=${E2E_deaths:-10}

create_guest || { not_ok wrapper.setup "no guest"; return; }
learn
start_daemon || { not_ok wrapper.setup "p2mguardd does not answer: $(tail -n1 "$LOGS/daemon")"; return; }

wrapped() { # COMMAND…: with the wrapper, and no guard of p2mguardctl's
	forget_last
	LIBXL_SAVE_HELPER=$WRAPPER "$@" >>"$LOGS/migrate" 2>&1
}

# --- under the storm ----------------------------------------------------------------------------------------------------

# A try that fails has failed before a page was copied: libxl's own helper had not been started.
fails_in_time() { grep -q 'p2mguard: error: retry' "$LOGS/migrate" && ! grep -qE 'Frames|starting save' "$LOGS/migrate"; }

migrated=0 late=0 n=1 tries=()
while ((n <= storms)); do
	storm_start
	before=$(domid) lost='' try=0
	while [[ $(domid) == "$before" ]] && ((try < 2)); do
		try=$((try + 1))
		: >"$LOGS/migrate"
		wrapped /tmp/migrate && break
		xl destroy "$GUEST--incoming" >/dev/null 2>&1
		if lost_unseen || dom0_stood_still "$LOGS/migrate"; then lost=yes && break; fi
		fails_in_time || { late=$((late + 1)) && say "round $n, try $try failed late: $(why_failed "$LOGS/migrate")" && tail -n 5 "$LOGS/migrate"; }
	done
	storm_stop
	until_true 10 journal_is_empty
	if emulator_lost_guest || [[ -n $lost ]]; then continue; fi
	tries+=("$try")
	if [[ $(domid) != "$before" ]]; then
		migrated=$((migrated + 1))
		say "round $n of $storms: migrated at try $try"
	else
		say "round $n: $(why_failed "$LOGS/migrate")"
		tail -n 8 "$LOGS/migrate" "$LOGS/daemon"
	fi
	as_libxl_makes_it "$(</tmp/storm.last)" || asked_of_domain_left || not_ok "wrapper.storm.restored.$n" "not as the toolstack last asked"
	guest_memory_ok || not_ok "wrapper.storm.memory.$n" "the guest does not run, or its memory is not what it was"
	n=$((n + 1))
done
fig wrapper.storm.tries "${tries[*]}"
check wrapper.storm.migrated "under the storm $migrated of $storms migrated within two tries" test "$migrated" -eq "$storms"
check wrapper.storm.in_time "tries that failed after pages were copied: $late" test "$late" -eq 0

# --- when nobody changes anything ---------------------------------------------------------------------------------------

# As any guest that nobody has touched for some time: rest_ms is 2000.
at_rest() { p2mguardctl --json domain "$GUEST" | jq -e '.target_steady_ms >= 2500' >/dev/null 2>&1; }

measure() { # plain|wrapped
	local status
	while :; do
		settle_by_itself
		until_true 20 at_rest
		: >"$LOGS/migrate"
		status=0
		if [[ $1 == plain ]]; then migrate_plain || status=$?; else wrapped /tmp/migrate || status=$?; fi
		until_true 10 journal_is_empty
		emulator_lost_guest || break
	done
	((status == 0)) || { not_ok "wrapper.quiet.$1" "exit $status: $(why_failed "$LOGS/migrate")" && tail -n 5 "$LOGS/migrate" && return 1; }
	if [[ $1 == plain ]]; then plain+=("$(tail -n1 /tmp/times)"); else guarded+=("$(tail -n1 /tmp/times)"); fi
}
# As the daemon saw it: from being asked to the guest being held.
held_after_ms() { sed -n 's/.*session\.held .*"after_ms":\([0-9]*\).*/\1/p' "$LOGS/daemon" | tail -n "$1"; }

if ((pairs)); then
	plain=() guarded=()
	measure plain && measure wrapped || return
	plain=() guarded=()
	for ((n = 0; n < pairs; n++)); do
		if ((n % 2)); then measure plain && measure wrapped || return; else measure wrapped && measure plain || return; fi
	done
	mapfile -t ratios < <(pair_ratios)
	fig wrapper.quiet.times "${E2E_memory:-256} MiB: unguarded ${plain[*]} ms (median $(median "${plain[@]}")), wrapped ${guarded[*]} ms (median $(median "${guarded[@]}")), its hold included; of each pair ${ratios[*]} (median $(median "${ratios[@]}"))"
	mapfile -t holds < <(held_after_ms "$pairs")
	fig wrapper.quiet.held_after_ms "${holds[*]} (median $(median "${holds[@]}"))"
	check wrapper.quiet.first_try "${#guarded[@]} of $pairs migrated at the first try" test "${#guarded[@]}" -eq "$pairs"
fi

# --- somebody dies -------------------------------------------------------------------------------------------------------

death() { # NAME COMMAND: the command kills somebody in the middle of a migration
	local in_time=0 n=1 times=() start ms
	while ((n <= deaths)); do
		settle_by_itself
		: >"$LOGS/migrate"
		id=$(domid)
		set -m # a group of its own, with signals as a terminal's foreground has them
		LIBXL_SAVE_HELPER=$WRAPPER xl migrate -s "" "$GUEST" "$RECEIVE" >>"$LOGS/migrate" 2>&1 &
		moving=$!
		set +m
		until_true 60 copying || say "$1 $n: not seen copying"
		$2
		start=$(now_ms)
		until_true 10 journal_is_empty
		ms=$(($(now_ms) - start))
		wait "$moving" 2>/dev/null
		# Stock xl leaves the receiver's half behind when it is killed.
		xl destroy "$GUEST--incoming" >/dev/null 2>&1
		emulator_lost_guest && continue
		[[ $(domid) == "$id" ]] || { say "$1 $n: it had migrated already" && continue; }
		times+=("$ms")
		say "$1 $n of $deaths: thawed after $ms ms"
		if ((ms <= 2000)) && runs_as_before "$id"; then in_time=$((in_time + 1)); fi
		n=$((n + 1))
	done
	fig "wrapper.$1.thawed_ms" "${times[*]}"
	check "wrapper.$1" "thawed and running within 2000 ms $in_time of $deaths times" test "$in_time" -eq "$deaths"
}
kill_xl() { kill -9 "$moving"; }
interrupt_xl() { kill -INT -- "-$moving"; }
kill_receiver() { # as when its host dies: with the helper that takes the pages
	kill_all 'xl migrate-receive'
	kill_all ' --restore-domain '
}
kill_wrapper() { kill_all "$WRAPPER --save-domain"; }
death xl_killed kill_xl
death xl_interrupted interrupt_xl
death receiver_killed kill_receiver
death wrapper_killed kill_wrapper

# --- without a daemon ------------------------------------------------------------------------------------------------------

stop_daemon
settle_by_itself
: >"$LOGS/migrate"
before=$(domid)
P2MGUARD_SAVE_POLICY=strict wrapped /tmp/migrate
check wrapper.strict "no daemon, strict: $(grep -o 'not saved, for nobody guards it.*' "$LOGS/migrate" | head -n1)" same "$before" "$(domid)"
: >"$LOGS/migrate"
wrapped /tmp/migrate
check wrapper.permissive "no daemon, permissive: $(grep -o 'saved without a guard.*' "$LOGS/migrate" | head -n1)" test "$(domid)" != "$before"
