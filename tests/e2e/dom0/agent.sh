# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash source=lib.sh
# The guest runs p2mguard-agent. It is frozen from outside and inside for migrations under storms from both sides, and it
# thaws whatever happens: on a new host, without a daemon, when its lease ends, after kill -9, with hooks that hang.
text='' # what run_in_guest brings
moves=${E2E_moves:-10} leases=${E2E_leases:-10} rounds=${E2E_rounds:-15}
LEASE_MS=2000

node() { xenstore-read "$(domain_dir)/$1" 2>/dev/null; }
state() { node data/p2mguard/state; }
features() { node data/p2mguard/features; }
has_agent() { [[ -n $(features) ]]; }
verdict() { p2mguardctl --json verdict "$GUEST" 2>>"$LOGS/ctl" | jq -r '"\(.verdict) \(.reason)"'; }
begin() { # [POLICY…]: what was wrong is in $LOGS/begin
	p2mguardctl begin --detached --require agent "${@/#/--policy=}" "$GUEST" >/dev/null 2>"$LOGS/begin"
}
end() { p2mguardctl end "$GUEST" cancelled >/dev/null 2>>"$LOGS/ctl"; }
kill_daemon() {
	kill -9 "$DAEMON"
	wait "$DAEMON" 2>/dev/null
	DAEMON=
}
thawed() { run_in_guest is_thawed; }
frozen() { run_in_guest is_frozen; }
at_most() { awk -v most="$1" '$1 <= most' <(printf '%s\n' "${@:2}") | wc -l; }

# At its maximum the guest has no room for growth, so that its balloon driver adds a block of memory, which the storm
# then onlines and offlines. Then it gets room, and its first target again.
export E2E_maxmem=256
make_ready() {
	run_in_guest hook off # what an administrator's program takes is not the agent's; hooks have their own part below
	run_in_guest keep_agent
	until_true 20 has_agent || say "no agent in the guest: $text"
	run_in_guest add_block || say "no block was added to the guest: $text"
	xl mem-max "$GUEST" 512m && xl mem-set "$GUEST" 256m
	until_true 20 settled || say "the guest is not at its target"
}
create_guest || { not_ok agent.setup "no guest"; return; }
learn
GUEST_READY=make_ready
make_ready
check agent.features "in the guest's node: $(features)" has_agent

# --- how long it takes, before there is a daemon ----------------------------------------------------------------------

compare() {
	run_in_guest start_echo
	agentclock compare "$(domid)" "$rounds" >/tmp/clock
}
until compare; do emulator_lost_guest || break; done
mapfile -t bare < <(cut -d' ' -f1 /tmp/clock)
mapfile -t freeze < <(cut -d' ' -f2 /tmp/clock)
bare_us=$(median "${bare[@]}") freeze_us=$(median "${freeze[@]}")
ratio=$(awk "BEGIN {printf \"%.2f\", ($freeze_us - 20000) / $bare_us}")
fig agent.round_trip_us "${bare[*]} (median $bare_us): written, seen by the guest, read, written back, seen"
fig agent.freeze_us "${freeze[*]} (median $freeze_us), with the two pauses of 10000 between three looks at the balloon driver"
fig agent.freeze_ratio "$ratio, without the pauses"
check agent.thaws_without_daemon "frozen and thawed by hand ${#freeze[@]} times of $rounds" \
	test "$(thawed && echo ${#freeze[@]})" = "$rounds"
rss() { run_in_guest agent_rss && echo "$text"; }
fig agent.rss_thawed_kib "$(rss)"

start_daemon || { not_ok agent.setup "p2mguardd does not answer: $(tail -n1 "$LOGS/daemon")"; return; }

# --- migrations under storms from both sides ---------------------------------------------------------------------------

await_thaw() { # starts a clock for the guest's first instant in its new domain
	local vm
	vm=$(node vm)
	agentclock thaw "${vm#/vm/}" "$(domid)" 120 >/tmp/thawed &
	CLOCK=$!
}
take_thaw() { # -> $ms by the guest's own clock, and how long it took until dom0 had seen both
	wait "$CLOCK"
	read -r _ seen _ </tmp/thawed
	seen_times+=("${seen:-never}")
	run_in_guest thaw_ms
	ms=${text:-never}
	times+=("$ms")
}
forget_thaw() { kill "$CLOCK" 2>/dev/null; }

run_in_guest storm
GUEST_READY='make_ready_and_storm'
make_ready_and_storm() { make_ready && run_in_guest storm; }
migrated=0 times=() seen_times=() n=1
while ((n <= moves)); do
	storm_start
	await_thaw
	before=$(domid) status=0
	p2mguardctl migrate --json --require agent --attempts 3 "$GUEST" -- /tmp/migrate >"$LOGS/guarded.out" 2>"$LOGS/migrate" ||
		status=$?
	tail -n1 "$LOGS/guarded.out" >/tmp/summary
	storm_stop
	if emulator_lost_guest; then
		forget_thaw
		continue
	fi
	if ((status == 0)) && [[ $(domid) != "$before" ]]; then
		migrated=$((migrated + 1))
		take_thaw
		ok "agent.storm.$n" "migrated at attempt $(field '.attempts | length'), held after $(field .held_after_ms) ms," \
			"thawed $ms ms after its first instant, seen by dom0 after $seen ms"
	else
		forget_thaw
		not_ok "agent.storm.$n" "exit $status: $(why_failed "$LOGS/migrate")"
		tail -n 5 "$LOGS/migrate" "$LOGS/daemon"
	fi
	check "agent.storm.restored.$n" "target, max_pages and permissions as the toolstack last asked" \
		as_libxl_makes_it "$(</tmp/storm.last)"
	check "agent.storm.memory.$n" "the guest runs and its memory is intact" guest_memory_ok
	xl destroy "$GUEST--incoming" >/dev/null 2>&1
	n=$((n + 1))
done
fig agent.storm.migrated "$migrated of $moves"
run_in_guest storm_counts
read -r _ targets _ refused _ onlined <<<"$text"
check agent.storm.blew "inside, $targets targets were set and a block onlined $onlined times while thawed, $refused targets refused" \
	test "${targets:-0}" -gt 0 -a "${refused:-0}" -gt 0 -a "${onlined:-0}" -gt 0
# shellcheck disable=SC2034 # lib.sh uses it
GUEST_READY=make_ready
run_in_guest calm
xl mem-set "$GUEST" 256m
until_true 60 settled
at_its_target() { as_libxl_makes_it 262144; }
check agent.calm "after the storms the guest is at its first target again" at_its_target

# --- to a host without a daemon: it is killed as soon as the guest is suspended ----------------------------------------

suspended() { xl list "$old" 2>/dev/null | awk 'NR > 1 {exit $5 !~ /^...s/}'; }
n=1
while ((n <= moves)); do
	[[ -n $DAEMON ]] || start_daemon
	begin || say "not held: $(cat "$LOGS/begin")"
	old=$(domid) status=0
	await_thaw
	forget_last
	/tmp/migrate >"$LOGS/migrate" 2>&1 &
	moving=$!
	until_true 60 suspended || say "the guest was not seen suspended"
	kill_daemon
	wait "$moving" || status=$?
	if emulator_lost_guest; then
		forget_thaw
		continue
	fi
	take_thaw
	check "agent.nodaemon.$n" "exit $status; thawed $ms ms after its first instant, seen after $seen ms: $(state)" thawed
	n=$((n + 1))
done
start_daemon
fig agent.thaw_ms "${times[*]} (median $(median "${times[@]}")), after the guest's first instant in its new domain, by its own clock"
fig agent.thaw_seen_ms "${seen_times[*]} (median $(median "${seen_times[@]}")), as seen by dom0"
fig agent.thaw_in_1000_ms "$(at_most 1000 "${times[@]}") of $((2 * moves))"
# What is to take one second takes an emulated host up to three when its own host is busy.
check agent.thaw_in_time "thawed within 3000 ms $(at_most 3000 "${times[@]}") of $((2 * moves)) times" \
	test "$(at_most 3000 "${times[@]}")" -eq $((2 * moves))
check agent.features_again "published anew: $(features)" has_agent
until_true 60 settled
check agent.nodaemon.restored "target, max_pages and permissions as before" at_its_target

# --- the daemon is gone for good -----------------------------------------------------------------------------------------

# The last renewal was a third of the lease ago, or a little more where the host is busy.
in_time=0 times=() n=1
while ((n <= leases)); do
	until_true 60 settled
	begin "agent_lease_ms=$LEASE_MS" || say "not held: $(cat "$LOGS/begin")"
	# The clock is started first: on a busy host starting it takes as long as what it is to measure.
	id=$(domid)
	agentclock state "$id" "thawed " 20 >/tmp/lease &
	CLOCK=$!
	kill_daemon
	wait "$CLOCK"
	ms=$(</tmp/lease)
	emulator_lost_guest || {
		times+=("${ms:-never}")
		((${ms:-0} >= LEASE_MS / 2 && ${ms:-99999} <= LEASE_MS + 1000)) && in_time=$((in_time + 1))
		[[ -n $(node control/p2mguard) ]] || not_ok "agent.lease.$n" "somebody took the request back"
		thawed || not_ok "agent.lease.$n" "something of the freeze is left"
		n=$((n + 1))
	}
	start_daemon
done
fig agent.lease_ms "${times[*]}, of a lease of $LEASE_MS, after kill -9 of the daemon"
check agent.lease "thawed when the lease ended: $in_time of $leases" test "$in_time" -eq "$leases"
until_true 60 settled
check agent.lease.restored "target, max_pages and permissions as before" at_its_target

# --- the agent is killed while frozen, and started again; hooks --------------------------------------------------------

says_thawed() { [[ $(state) == "thawed "* ]]; }
killed() {
	local rss
	until_true 60 settled
	begin || not_ok agent.killed "not held: $(cat "$LOGS/begin")"
	check agent.frozen "the guest's own eyes: its target cannot be written" frozen
	rss=$(rss)
	check agent.rss "$rss KiB resident while frozen, less than 2048 allowed" test "${rss:-9999}" -lt 2048
	run_in_guest kill_agent
	until_true 10 says_thawed
	check agent.killed.thawed "started again, it has thawed: $(state)" thawed
	check agent.killed.verdict "the verdict: $(verdict)" same "retry agent-thawed" "$(verdict)"
	p2mguardctl retry "$GUEST" >/dev/null 2>>"$LOGS/ctl"
	check agent.killed.again "and again: $(verdict)" same "proceed unchanged" "$(verdict)"
	end
}

calls() { grep -o "$1" <<<"$text" | wc -l; }
hooks() {
	local status=0
	run_in_guest hook on
	run_in_guest hang
	begin || status=$?
	check agent.hook "a hook that hangs: $(tail -n1 "$LOGS/begin")" test "$status" -ne 0
	check agent.hook.refused "the agent: $(state)" grep -q 'refused .*50-test' <<<"$(state)"
	check agent.hook.thawed "nothing of the freeze is left" thawed
	run_in_guest unhang
	check agent.hook.again "without it the guest is held" begin
	end
	until_true 10 thawed
	run_in_guest hooks_log
	check agent.hook.pairs "called with: $text" test "$(calls freeze)" -ge 2 -a "$(calls freeze)" -eq "$(calls thaw)"
	until_true 60 settled
	check agent.restored "target, max_pages and permissions as before" at_its_target
}

unless_lost() { # PART: its results, of a time when the emulator did not lose the guest
	local failed=yes unseen=yes
	[[ -e /tmp/failed ]] || failed=''
	[[ -e /tmp/lost-unseen ]] || unseen=''
	while :; do
		"$1" >/tmp/part
		emulator_lost_guest || break
		[[ -n $failed ]] || rm -f /tmp/failed
		[[ -n $unseen ]] || rm -f /tmp/lost-unseen
	done
	cat /tmp/part
}
unless_lost killed
unless_lost hooks
