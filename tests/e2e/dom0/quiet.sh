# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash source=lib.sh
# Nobody changes anything: what does the guard cost, and does it put everything back byte for byte?
rounds=${E2E_rounds:-3} pairs=${E2E_pairs:-7}

create_guest || { not_ok quiet.setup "no guest"; return; }
learn
start_daemon || { not_ok quiet.setup "p2mguardd does not answer: $(tail -n1 "$LOGS/daemon")"; return; }

# Receivers that fail at once, and half-way through: the source goes on as if nothing had been.
for failure in 'false' 'timeout 2 xl migrate-receive'; do
	receiver "$failure"
	before=$(whole_state) status=0
	migrate_guarded 1 || status=$?
	check quiet.failing "receiver '$failure': exit $status" test $status -eq 1
	check quiet.failing_restored "receiver '$failure': memory nodes, permissions and max_pages byte for byte what they were" \
		same "$before" "$(whole_state)"
	xl destroy "$GUEST--incoming" >/dev/null 2>&1
done
receiver 'xl migrate-receive'

# The emulation's speed drifts by half within minutes, but not much between a migration and the one right after it.
pair_ratios() {
	local i
	for ((i = 0; i < ${#plain[@]}; i++)); do
		awk "BEGIN {print ${guarded[i]} / ${plain[i]}}"
	done
}

measure() { # plain|guarded: one migration that counts; appends to the array of that name
	local status
	while :; do
		until_true 60 settled
		status=0
		if [[ $1 == plain ]]; then migrate_plain || status=$?; else migrate_guarded 1 || status=$?; fi
		emulator_lost_guest || break
	done
	((status == 0)) || {
		not_ok "quiet.$1" "exit $status: $(why_failed "$LOGS/migrate")"
		tail -n 5 "$LOGS/migrate" "$LOGS/daemon"
		return 1
	}
	case $1 in
	plain) plain+=("$(tail -n1 /tmp/times)") ;;
	guarded)
		guarded+=("$(tail -n1 /tmp/times)")
		holds+=("$(field .held_after_ms)")
		as_libxl_makes_it "$((${E2E_memory:-256} * 1024))" || not_ok quiet.restored "not as libxl makes it"
		;;
	esac
}

plain=() guarded=() holds=()
measure plain || return # the first ones after the start are not like the others
measure guarded || return
plain=() guarded=() holds=()
for ((round = 1; round <= rounds; round++)); do
	for ((pair = 1; pair <= pairs; pair++)); do
		# In turns and first in turns, so that a drift of the machine's speed falls on both.
		if ((pair % 2)); then order='plain guarded'; else order='guarded plain'; fi
		for kind in $order; do measure "$kind" || return; done
	done
	mapfile -t ratios < <(pair_ratios)
	ratio=$(printf '%.3f' "$(median "${ratios[@]}")")
	fig "quiet.round$round" "unguarded ${plain[*]} ms (median $(median "${plain[@]}")), guarded ${guarded[*]} ms" \
		"(median $(median "${guarded[@]}")), median of the pairs' ratios $ratio"
	((10#${ratio/./} > 1050)) || break
done
fig quiet.hold_ms "${holds[*]} (median $(median "${holds[@]}"))"
fig quiet.ratio "$ratio"
check quiet.overhead "a guarded migration takes $ratio times as long as the unguarded one beside it, 1.050 allowed" \
	test "${ratio/./}" -le 1050
check quiet.memory "the guest runs and its memory is intact" guest_memory_ok
