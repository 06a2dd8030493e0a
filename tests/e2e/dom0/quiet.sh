# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash source=lib.sh
# Nobody changes anything: what does the guard cost, and does it put everything back byte for byte?
pairs=${E2E_pairs:-8}

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

# The emulation's speed drifts by half within minutes, and single migrations differ by half as well: a ratio of medians of
# so few says little (the same daemon was measured from 0.95 to 1.09). What is judged is whether the guarded one was the
# slower one, by more than is allowed, in so many pairs that chance does not explain it (a sign test at 2 %).
too_many() { # PAIRS: the least number of them that chance makes in at most 2 of 100 runs
	awk -v n="$1" 'BEGIN {
		c = 1
		for (i = 0; i < n; i++) c /= 2 # this awk has no powers
		p = c
		for (k = n; k > 0 && p <= 0.02; k--) { c = c * k / (n - k + 1); p += c }
		print k + 1
	}'
}
daemon_cpu_ms() { # clock ticks are 10 ms
	awk '{sub(/.*\) /, ""); print ($12 + $13) * 10}' "/proc/$DAEMON/stat"
}

measure() { # plain|guarded: one migration that counts; appends to the array of that name
	local status down
	while :; do
		until_true 60 settled
		status=0
		domstat down "$(domid)" >/tmp/down &
		down=$!
		if [[ $1 == plain ]]; then migrate_plain || status=$?; else migrate_guarded 1 || status=$?; fi
		((status == 0)) || kill "$down" 2>/dev/null # which waits for a guest that is not there
		wait "$down" || ((status)) || not_ok quiet.down "nobody was seen to be suspended, and another to run then"
		does_not_count "$status" || break
	done
	((status == 0)) || {
		not_ok "quiet.$1" "exit $status: $(why_failed "$LOGS/migrate")"
		tail -n 5 "$LOGS/migrate" "$LOGS/daemon"
		return 1
	}
	case $1 in
	plain) plain+=("$(tail -n1 /tmp/times)") plain_down+=("$(cat /tmp/down)") ;;
	guarded)
		guarded+=("$(tail -n1 /tmp/times)") guarded_down+=("$(cat /tmp/down)")
		holds+=("$(field .held_after_ms)")
		as_libxl_makes_it "$((${E2E_memory:-256} * 1024))" || not_ok quiet.restored "not as libxl makes it"
		;;
	esac
}

plain=() guarded=() holds=() plain_down=() guarded_down=()
measure plain || return # the first ones after the start are not like the others
measure guarded || return
plain=() guarded=() holds=() plain_down=() guarded_down=()
cpu=0
for ((pair = 1; pair <= pairs; pair++)); do
	# In turns and first in turns, so that a drift of the machine's speed falls on both.
	if ((pair % 2)); then order='plain guarded'; else order='guarded plain'; fi
	for kind in $order; do
		before=$(daemon_cpu_ms)
		measure "$kind" || return
		[[ $kind == plain ]] || cpu=$((cpu + $(daemon_cpu_ms) - before))
	done
	say "pair $pair of $pairs: unguarded ${plain[-1]} ms, down ${plain_down[-1]} ms; guarded ${guarded[-1]} ms, down ${guarded_down[-1]} ms"
done
mapfile -t ratios < <(pair_ratios)
slower=$(printf '%s\n' "${ratios[@]}" | awk '$1 > 1.05' | wc -l)
fig quiet.times "unguarded ${plain[*]} ms (median $(median "${plain[@]}")), guarded ${guarded[*]} ms (median" \
	"$(median "${guarded[@]}"))"
fig quiet.hold_ms "${holds[*]} (median $(median "${holds[@]}"))"
fig quiet.daemon_cpu_ms "$((cpu / pairs)) a guarded migration, its hold and its settling included"
fig quiet.ratio "$(median "${ratios[@]}") (median of ${ratios[*]})"
fig quiet.down_ms "unguarded ${plain_down[*]} (median $(median "${plain_down[@]}")), guarded ${guarded_down[*]} (median" \
	"$(median "${guarded_down[@]}"))"
plain=("${plain_down[@]}") guarded=("${guarded_down[@]}")
mapfile -t down_ratios < <(pair_ratios)
fig quiet.down_ratio "$(median "${down_ratios[@]}") (median of ${down_ratios[*]})"
check quiet.overhead "guarded more than 1.05 times as long as unguarded in $slower of $pairs pairs, fewer than $(too_many "$pairs") allowed" \
	test "$slower" -lt "$(too_many "$pairs")"
check quiet.memory "the guest runs and its memory is intact" guest_memory_ok
