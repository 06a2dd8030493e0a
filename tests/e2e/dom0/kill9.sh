# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash source=lib.sh
# kill -9 of the daemon while it holds a guest, and a restart by hand: the guest follows its latest target at once.

create_guest || { not_ok kill9.setup "no guest"; return; }
learn
start_daemon || { not_ok kill9.setup "p2mguardd does not answer: $(tail -n1 "$LOGS/daemon")"; return; }

gated() { [[ $(permissions | awk '$1 == "memory/target" {print $2}') == n0 ]]; }
# By domid, and not by name, which is slower to find out than this has to be.
moving() { [[ $(domstat "$id") != "$held "* ]]; }
journal() { xenstore-ls -f /tool/p2mguard/session 2>/dev/null; }
deferred() { [[ $(target_kib) != "$wanted" ]]; }
dead_but_held() { gated && ! moving && [[ -n $(journal) ]]; }

round() { # NAME BEFORE_KIB AFTER_KIB: the target asked for while held, and, if any, while the daemon was dead
	local name=$1 wanted=$2 start followed='' session
	until_true 60 settled
	id=$(domid)
	session=$(p2mguardctl begin --detached "$GUEST" 2>>"$LOGS/ctl") || {
		not_ok "$name" "no session: $(tail -n1 "$LOGS/ctl")"
		return
	}
	held=$(tot_kib)
	check "$name.held" "session $session, the target is out of the guest's sight" gated
	xl mem-set "$GUEST" "${wanted}k"
	until_true 5 deferred || say "the deferred target stayed in the store"
	kill -9 "$DAEMON"
	wait "$DAEMON" 2>/dev/null
	sleep 1 # nothing may move now: there is no event to wait for
	check "$name.dead" "gate and journal outlive the daemon, no page has moved" \
		dead_but_held
	if [[ -n ${3:-} ]]; then
		wanted=$3
		xl mem-set "$GUEST" "${wanted}k"
	fi
	start=$(now_ms)
	p2mguardd >>"$LOGS/daemon" 2>&1 &
	DAEMON=$!
	until [[ -n $followed ]] || (($(now_ms) - start > 10000)); do
		! moving || followed=$(($(now_ms) - start))
	done
	fig "$name.follows_ms" "${followed:-never}"
	check "$name.follows" "the guest moves towards $wanted KiB ${followed:-more than 10000} ms after the restart, 1000 allowed" \
		test "${followed:-10001}" -le 1000
	check "$name.restored" "target, max_pages and permissions as the toolstack last asked" as_libxl_makes_it "$wanted"
	check "$name.arrives" "the guest reaches its target" until_true 60 settled
	until_true 10 daemon_answers
	check "$name.journal" "the journal is empty" same '' "$(journal)"
}

round kill9.asked_while_held $((400 * 1024))
round kill9.asked_while_dead $((300 * 1024)) $((350 * 1024))
round kill9.smaller $((260 * 1024))

# An upgrade: the program is executed anew, and nobody is let go.
until_true 60 settled
id=$(domid) pid=$DAEMON wanted=$((300 * 1024))
session=$(p2mguardctl begin --detached "$GUEST" 2>>"$LOGS/ctl")
held=$(tot_kib)
xl mem-set "$GUEST" "${wanted}k"
until_true 5 deferred || say "the deferred target stayed in the store"
say "$(p2mguardctl reexec 2>&1)"
goes_on() { [[ $(p2mguardctl show "$session" --json | jq -r .state) == held && -e /proc/$pid ]] && gated && ! moving; }
check kill9.reexec.held "the same process and session, the target is out of the guest's sight, no page has moved" until_true 10 goes_on
p2mguardctl end "$session" failed >/dev/null
check kill9.reexec.restored "target, max_pages and permissions as the toolstack last asked" as_libxl_makes_it "$wanted"
check kill9.reexec.arrives "the guest reaches its target" until_true 60 settled
